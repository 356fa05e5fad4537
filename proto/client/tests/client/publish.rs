//! Files: each record once, whatever run sends it.

use crate::fake::{Fake, Fault};
use dtm_client::Endpoint;
use dtm_client::publish::{
    Error, GoOn, PublishOptions, Summary, folder_files, publish_path, publish_reader,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::Status;

fn endpoint(fake: &Fake) -> Endpoint {
    Endpoint::plaintext([fake.address.clone()]).unwrap()
}

fn options() -> PublishOptions {
    let mut options = PublishOptions::new("tinh-01", "payment");
    options.publisher.seed = Some(0);
    options.publisher.backoff_max = Duration::from_millis(50);
    options.publisher.frame_bytes_max = 512;
    options
}

async fn run(fake: &Fake, path: &Path) -> Result<Summary, Error> {
    let (endpoint, options) = (endpoint(fake), options());
    let work = publish_path(&endpoint, &options, path, &|_| {});
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time")
}

fn only_stream(fake: &Fake) -> Vec<Vec<u8>> {
    let name = fake.world.lock().streams.keys().next().unwrap().clone();
    fake.payloads(&name)
}

#[tokio::test]
async fn a_second_run_goes_on_and_a_third_has_nothing_to_do() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    let lines: Vec<String> = (1..=300).map(|n| format!("{{\"n\":{n}}}")).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    // The first run is cut off for good in the middle.
    fake.script([vec![Fault::AckLost(3)], vec![Fault::Refuse(Status::permission_denied("no"))]]);
    assert!(run(&fake, &file).await.is_err());
    let summary = run(&fake, &file).await.unwrap();
    assert!(summary.skipped > 0 && summary.skipped + summary.sent == 300, "{summary:?}");
    assert_eq!((summary.refused, summary.conflicts), (0, 0));
    let expected: Vec<_> = lines.iter().map(|l| l.clone().into_bytes()).collect();
    assert_eq!(only_stream(&fake), expected);
    let again = run(&fake, &file).await.unwrap();
    assert_eq!((again.sent, again.skipped), (0, 300));
    assert_eq!(fake.world.lock().streams.len(), 1);
}

#[tokio::test]
async fn refused_lines_are_named_with_their_line() {
    let fake = Fake::start().await;
    fake.world.lock().refuse_payload = Some(b"{\"bad\":1}".to_vec());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    fs::write(&file, "\n{\"a\":1}\n\n\n{\"bad\":1}\n{\"b\":1}\n").unwrap();
    let summary = run(&fake, &file).await.unwrap();
    assert_eq!((summary.sent, summary.refused, summary.conflicts), (3, 1, 0));
    assert_eq!((summary.refusals[0].line, summary.refusals[0].sequence), (5, 2));
}

#[tokio::test]
async fn what_is_held_by_its_message_id_is_counted_by_the_run_that_sent_it() {
    let named = Named::new().await;
    named.fake.world.lock().double_payload = Some(b"{\"n\":2}".to_vec());
    let path = named.folder.path().join("a.jsonl");
    for (text, duplicates) in [("{\"n\":1}\n{\"n\":2}\n", 1), ("{\"n\":2}\n{\"n\":2}\n", 2)] {
        fs::write(&path, text).unwrap();
        let summary = named.publish(&path, GoOn::Append).await.unwrap();
        assert_eq!((summary.sent, summary.duplicates), (2, duplicates));
    }
}

#[tokio::test]
async fn arrays_and_folders_are_published_whole() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.json"), "[{\"a\":1},\n {\"a\":2}]").unwrap();
    fs::write(folder.path().join("b.ndjson"), "{\"b\":1}\n").unwrap();
    fs::write(folder.path().join(".hidden"), "{}").unwrap();
    fs::write(folder.path().join("c.jsonl.part"), "{}").unwrap();
    let summary = run(&fake, folder.path()).await.unwrap();
    assert_eq!((summary.sent, summary.refused), (3, 0));
    assert_eq!(fake.world.lock().streams.len(), 2);
}

#[tokio::test]
async fn a_broken_array_ends_with_its_line_and_a_table_needs_its_header() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    fs::write(&file, "[{\"a\":1},\n\n,{\"a\":2}]").unwrap();
    assert!(matches!(run(&fake, &file).await, Err(Error::Syntax { line: 3, .. })));
    let table = folder.path().join("t.csv");
    fs::write(&table, "nothing_of_this\n1\n").unwrap();
    assert!(matches!(run(&fake, &table).await, Err(Error::Header { .. })));
}

/// What the caller names a stream goes on in it.
struct Named {
    fake: Fake,
    folder: tempfile::TempDir,
}

impl Named {
    async fn new() -> Self {
        let fake = Fake::start().await;
        fake.world.lock().answers_conflicts = true;
        Self { fake, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, from: u64, to: u64) -> PathBuf {
        let path = self.folder.path().join(name);
        let lines: Vec<String> = (from..=to).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        fs::write(&path, lines.concat()).unwrap();
        path
    }

    fn options(&self, go_on: GoOn) -> PublishOptions {
        let mut options = options();
        options.publisher.stream = "daily".into();
        options.history = Some(self.folder.path().join("notes"));
        options.go_on = go_on;
        options
    }

    async fn publish(&self, path: &Path, go_on: GoOn) -> Result<Summary, Error> {
        let (endpoint, options) = (endpoint(&self.fake), self.options(go_on));
        let work = publish_path(&endpoint, &options, path, &|_| {});
        tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time")
    }

    async fn pipe(&self, path: &Path, go_on: GoOn) -> Result<Summary, Error> {
        let (endpoint, options) = (endpoint(&self.fake), self.options(go_on));
        let input = Box::new(fs::File::open(path).unwrap());
        let work = publish_reader(&endpoint, &options, "-", input, &|_| {});
        tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time")
    }

    fn stored(&self) -> Vec<String> {
        let payloads = self.fake.payloads("daily");
        payloads.into_iter().map(|p| String::from_utf8(p).unwrap()).collect()
    }
}

fn numbered(ranges: &[(u64, u64)]) -> Vec<String> {
    ranges.iter().flat_map(|(from, to)| (*from..=*to).map(|n| format!("{{\"n\":{n}}}"))).collect()
}

#[tokio::test]
async fn another_data_set_is_another_stream() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    fs::write(&file, "{\"a\":1}\n{\"a\":2}\n").unwrap();
    let endpoint = endpoint(&fake);
    for (dataset, version) in [("payment", 0), ("petition_sync", 0), ("payment", 2)] {
        let mut options = options();
        options.publisher.dataset = dataset.into();
        options.publisher.schema_version = version;
        let first = publish_path(&endpoint, &options, &file, &|_| {}).await.unwrap();
        assert_eq!((first.sent, first.skipped), (2, 0), "{dataset} {version}");
        let again = publish_path(&endpoint, &options, &file, &|_| {}).await.unwrap();
        assert_eq!((again.sent, again.skipped), (0, 2), "{dataset} {version}");
    }
    assert_eq!(fake.world.lock().streams.len(), 3);
}

#[tokio::test]
async fn files_follow_one_another_in_a_named_stream_each_once() {
    let named = Named::new().await;
    let (day_1, day_2) = (named.file("day1.jsonl", 1, 50), named.file("day2.jsonl", 101, 160));
    for (file, records) in [(&day_1, 50), (&day_2, 60)] {
        let summary = named.publish(file, GoOn::Known).await.unwrap();
        assert_eq!((summary.sent, summary.skipped), (records, 0));
    }
    for (file, records) in [(&day_1, 50), (&day_2, 60)] {
        let summary = named.publish(file, GoOn::Known).await.unwrap();
        assert_eq!((summary.sent, summary.skipped), (0, records));
    }
    assert_eq!(named.stored(), numbered(&[(1, 50), (101, 160)]));
    let again = named.publish(&day_1, GoOn::Append).await.unwrap();
    assert_eq!((again.sent, again.skipped), (50, 0));
}

#[tokio::test]
async fn a_cut_file_is_resumed_and_nothing_else_goes_behind_it() {
    let named = Named::new().await;
    let (day_1, day_2) = (named.file("day1.jsonl", 1, 50), named.file("day2.jsonl", 101, 400));
    named.publish(&day_1, GoOn::Known).await.unwrap();
    let cut = vec![Fault::AckLost(2)];
    named.fake.script([cut, vec![Fault::Refuse(Status::permission_denied("no"))]]);
    assert!(named.publish(&day_2, GoOn::Known).await.is_err());
    let held = named.stored().len() as u64;
    assert!(held > 50 && held < 350, "{held}");
    let day_3 = named.file("day3.jsonl", 501, 510);
    let error = named.publish(&day_3, GoOn::Known).await.unwrap_err();
    assert!(matches!(&error, Error::Interrupted { other, .. } if other.ends_with("day2.jsonl")));
    let summary = named.publish(&day_2, GoOn::Known).await.unwrap();
    assert_eq!((summary.skipped, summary.sent), (held - 50, 350 - held));
    named.publish(&day_3, GoOn::Known).await.unwrap();
    assert_eq!(named.stored(), numbered(&[(1, 50), (101, 400), (501, 510)]));
}

#[tokio::test]
async fn a_file_that_grows_is_sent_on_and_not_again() {
    let named = Named::new().await;
    let file = named.file("log.jsonl", 1, 50);
    named.publish(&file, GoOn::Known).await.unwrap();
    named.file("log.jsonl", 1, 80);
    let summary = named.publish(&file, GoOn::Known).await.unwrap();
    assert_eq!((summary.skipped, summary.sent), (50, 30));
    let again = named.publish(&file, GoOn::Known).await.unwrap();
    assert_eq!((again.skipped, again.sent), (80, 0));
    // Under the same name another content.
    named.file("log.jsonl", 101, 200);
    let summary = named.publish(&file, GoOn::Known).await.unwrap();
    assert_eq!((summary.skipped, summary.sent), (0, 100));
    assert_eq!(named.stored(), numbered(&[(1, 80), (101, 200)]));
}

#[tokio::test]
async fn what_nobody_noted_is_not_passed_by_in_silence() {
    let named = Named::new().await;
    let (first, longer) = (named.file("a.jsonl", 1, 50), named.file("b.jsonl", 101, 160));
    named.pipe(&first, GoOn::Known).await.unwrap();
    for pipe in [true, false] {
        let error = match pipe {
            true => named.pipe(&longer, GoOn::Known).await.unwrap_err(),
            false => {
                fs::remove_dir_all(named.folder.path().join("notes")).unwrap();
                named.publish(&longer, GoOn::Known).await.unwrap_err()
            }
        };
        assert!(matches!(error, Error::StreamHolds { held: 50, .. }), "{error}");
    }
    // Compared by the cluster: not the same, the same, too short.
    let error = named.pipe(&longer, GoOn::Resume).await.unwrap_err();
    assert!(matches!(error, Error::OtherContent { .. }), "{error}");
    let grown = named.file("c.jsonl", 1, 70);
    let summary = named.pipe(&grown, GoOn::Resume).await.unwrap();
    assert_eq!((summary.skipped, summary.sent), (50, 20));
    let error = named.pipe(&first, GoOn::Resume).await.unwrap_err();
    assert!(matches!(error, Error::StreamLonger { held: 70, sequence: 50, .. }), "{error}");
    let summary = named.pipe(&longer, GoOn::Append).await.unwrap();
    assert_eq!((summary.skipped, summary.sent), (0, 60));
    assert_eq!(named.stored(), numbered(&[(1, 70), (101, 160)]));
}

#[tokio::test]
async fn refused_lines_fail_every_run() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    let long = format!("{{\"t\":\"{}\"}}", "x".repeat(8 << 20));
    fs::write(&file, format!("{{\"a\":1}}\n{{\"bad\":1}}\n{long}\n{{\"b\":1}}\n")).unwrap();
    {
        // The answer that names the refusal is lost: the stream's count says it all the same.
        let mut world = fake.world.lock();
        world.refuse_payload = Some(b"{\"bad\":1}".to_vec());
        world.keeps_silent = true;
    }
    let first = run(&fake, &file).await.unwrap();
    assert_eq!((first.sent, first.refused, first.unsendable, first.conflicts), (3, 2, 1, 0));
    let again = run(&fake, &file).await.unwrap();
    assert_eq!((again.sent, again.skipped), (0, 2));
    assert_eq!((again.refused, again.refused_earlier, again.unsendable), (2, 1, 1));
    let lines: Vec<_> = again.refusals.iter().map(|refusal| refusal.line).collect();
    assert_eq!(lines, [2, 3], "the quarantine has the one, the file the other");
}

#[tokio::test]
async fn a_slip_in_the_id_member_or_a_quote_sends_nothing() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, mut options) = (endpoint(&fake), options());
    let file = folder.path().join("a.jsonl");
    fs::write(&file, "{\"a\":1}\n{\"a\":2}\n").unwrap();
    options.message_id_member = Some("b".into());
    let error = publish_path(&endpoint, &options, &file, &|_| {}).await.unwrap_err();
    assert!(matches!(error, Error::IdMember { .. }), "{error}");
    let table = folder.path().join("a.csv");
    fs::write(&table, "a,b\n1,\"2\n3,4\n").unwrap();
    let error = run(&fake, &table).await.unwrap_err();
    assert!(matches!(error, Error::Syntax { line: 2, .. }), "{error}");
    let empty = folder.path().join("empty.csv");
    fs::write(&empty, "").unwrap();
    assert_eq!(run(&fake, &empty).await.unwrap().refused, 0);
    assert!(fake.world.lock().streams.is_empty());
}

#[test]
fn a_folder_says_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| folder.path().join(name);
    for name in ["b.csv", "a.JSON", "README.md", ".hidden", "c.jsonl.part"] {
        fs::write(of(name), "").unwrap();
    }
    fs::create_dir(of("sub")).unwrap();
    let found = folder_files(folder.path()).unwrap();
    assert_eq!(found.files, [of("a.JSON"), of("b.csv")]);
    assert_eq!((found.unknown, found.folders), (vec![of("README.md")], vec![of("sub")]));
}
