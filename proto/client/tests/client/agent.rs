//! The agent: what it takes is stored once, through crashes of itself and absence of the cluster.

use crate::fake::{Fake, Fault, World};
use dtm_catalog::Definition;
use dtm_client::Endpoint;
use dtm_client::agent::{AgentConfig, Error, Input, Report, run};
use parking_lot::Mutex;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

type Reports = Arc<Mutex<Vec<Report>>>;

struct Agent {
    task: JoinHandle<Result<u64, Error>>,
    stop: CancellationToken,
    reports: Reports,
}

fn start(address: &str, spool: &Path, input: Input) -> Agent {
    start_with(address, spool, input, |_| ())
}

fn start_with(
    address: &str,
    spool: &Path,
    input: Input,
    change: impl FnOnce(&mut AgentConfig),
) -> Agent {
    let mut config = AgentConfig::new("tinh-01", "payment", spool);
    config.poll = Duration::from_millis(20);
    config.settle = Duration::from_millis(40);
    config.publisher.backoff_max = Duration::from_millis(50);
    config.publisher.ack_timeout = Duration::from_millis(500);
    config.publisher.frame_bytes_max = 400;
    config.spool.segment_bytes = 2000;
    change(&mut config);
    let reports: Reports = Arc::default();
    let told = reports.clone();
    let stop = CancellationToken::new();
    let endpoint = Endpoint::plaintext([address.to_owned()]).unwrap();
    let on_report = Arc::new(move |report| told.lock().push(report));
    let task = tokio::spawn(run(endpoint, config, input, stop.clone(), on_report));
    Agent { task, stop, reports }
}

async fn until(what: &str, mut look: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if look() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// An address where nobody answers yet, and what will be there.
async fn away() -> (String, Arc<Mutex<World>>) {
    let gone = Fake::start().await;
    gone.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    (gone.address.clone(), gone.world.clone())
}

impl Agent {
    fn has_told(&self, wanted: impl Fn(&Report) -> bool) -> bool {
        self.reports.lock().iter().any(wanted)
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn works() -> Arc<Definition> {
    let head = "id = \"works\"\nversion = 1\nowner = \"x\"\ncategory = \"B3\"\nkey = [\"ma\"]\n\
                priority = \"normal\"\nsecurity = \"internal\"\n\
                title = { vi = \"x\", en = \"x\" }\n";
    let field = |name: &str, spec: &str| {
        format!(
            "[[field]]\nname = \"{name}\"\ntype = \"{spec}\"\nmax_length = 32\n\
             label = {{ vi = \"x\", en = \"x\" }}\n"
        )
    };
    let text = [head.to_owned(), field("ma", "Code"), field("ten", "Text")].concat();
    Arc::new(Definition::parse(&text, "works").unwrap())
}

/// Rows of that data set, and the records they become.
fn rows(from: u64, to: u64) -> String {
    let rows = (from..=to).map(|n| format!("F-{n},x\n"));
    std::iter::once("ma,ten\n".to_owned()).chain(rows).collect()
}

fn row_records(from: u64, to: u64) -> Vec<String> {
    (from..=to).map(|n| format!("{{\"ma\":\"F-{n}\",\"ten\":\"x\"}}")).collect()
}

fn lines(from: u64, to: u64) -> String {
    (from..=to).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

fn stored(fake: &Fake) -> Vec<String> {
    let names: Vec<String> = fake.world.lock().streams.keys().cloned().collect();
    assert!(names.len() <= 1, "one spool, one stream: {names:?}");
    let of = |name: &String| fake.payloads(name);
    names.iter().flat_map(of).map(|p| String::from_utf8(p).unwrap()).collect()
}

fn all(from: u64, to: u64) -> Vec<String> {
    lines(from, to).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn files_are_taken_while_the_cluster_is_away_and_done_when_it_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    fs::write(inbox.join("a.jsonl"), lines(1, 1000)).unwrap();
    fs::write(inbox.join("b.jsonl.tmp"), "{\"half\":").unwrap();
    // Reserve a port that nobody answers yet.
    let gone = Fake::start().await;
    let address = gone.address.clone();
    let world = gone.world.clone();
    gone.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;

    let agent = start(&address, &folder.path().join("spool"), Input::Folder(inbox.clone()));
    let reports = agent.reports.clone();
    until("taken", || {
        reports.lock().iter().any(|r| matches!(r, Report::Taken { through: 1000, .. }))
    })
    .await;
    assert!(inbox.join("a.jsonl").exists(), "it stays until it is acked");
    let fake = Fake::serve(world, &address).await;
    until("done", || inbox.join("a.jsonl.done").exists()).await;
    assert_eq!(stored(&fake), all(1, 1000));
    fs::rename(inbox.join("b.jsonl.tmp"), inbox.join("b.jsonl")).unwrap();
    fs::write(inbox.join("b.jsonl"), lines(1001, 1010)).unwrap();
    until("done", || inbox.join("b.jsonl.done").exists()).await;
    assert_eq!(stored(&fake), all(1, 1010));
    agent.stop.cancel();
    agent.task.await.unwrap().unwrap();
    // What is acked leaves the disk.
    let blocks = fs::read_dir(folder.path().join("spool"))
        .unwrap()
        .filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|x| x == "blocks"))
        .count();
    assert!(blocks <= 2, "{blocks} files");
}

/// Aborting the task drops everything at an await point, as `kill -9` would between two system
/// calls; the spool's own tests cut at any byte.
// holds: ING-1, ING-2
#[tokio::test]
async fn an_agent_that_dies_again_and_again_stores_each_line_once() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    let fake = Fake::start().await;
    fake.script((0..6).map(|n| vec![Fault::AckLost(n % 3 + 1)]));
    for (at, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let from = at as u64 * 700 + 1;
        fs::write(inbox.join(format!("{name}.jsonl")), lines(from, from + 699)).unwrap();
    }
    for round in 0..12u64 {
        let spool = folder.path().join("spool");
        let agent = start(&fake.address, &spool, Input::Folder(inbox.clone()));
        tokio::time::sleep(Duration::from_millis(40 + round * 13)).await;
        agent.task.abort();
        assert!(agent.task.await.unwrap_err().is_cancelled());
        // A blocking call that was under way ends by itself and lets the folder go.
        until("free", || dtm_client::Spool::open(dtm_client::SpoolConfig::new(&spool)).is_ok())
            .await;
    }
    let agent = start(&fake.address, &folder.path().join("spool"), Input::Folder(inbox.clone()));
    until("done", || {
        ["a", "b", "c", "d"].iter().all(|n| inbox.join(format!("{n}.jsonl.done")).exists())
    })
    .await;
    agent.stop.cancel();
    agent.task.await.unwrap().unwrap();
    assert_eq!(stored(&fake), all(1, 2800));
}

#[tokio::test]
async fn a_reader_is_taken_to_its_end_and_acked() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    let text = lines(1, 3000);
    let input = Input::Reader(Box::new(std::io::Cursor::new(text.into_bytes())));
    let agent = start(&fake.address, folder.path(), input);
    let acked = tokio::time::timeout(Duration::from_secs(20), agent.task).await;
    assert_eq!(acked.expect("in time").unwrap().unwrap(), 3000);
    assert_eq!(stored(&fake), all(1, 3000));
}

#[tokio::test]
async fn a_loss_that_nobody_holds_ends_the_agent_unless_it_may_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start().await;
    let one = |text: String| Input::Reader(Box::new(std::io::Cursor::new(text.into_bytes())));
    // Enough that the files of the first records are removed.
    let agent = start(&fake.address, folder.path(), one(lines(1, 2000)));
    agent.task.await.unwrap().unwrap();
    for held in fake.world.lock().streams.values_mut() {
        held.cursor = 10;
        held.records.retain(|sequence, _| *sequence <= 10);
    }
    let agent = start(&fake.address, folder.path(), one(lines(2001, 2001)));
    let error = tokio::time::timeout(Duration::from_secs(20), agent.task).await;
    let error = error.expect("in time").unwrap().unwrap_err();
    assert!(matches!(error, Error::Loss { from: 11, to, .. } if to <= 2000), "{error}");
}

#[tokio::test]
async fn what_a_slow_writer_adds_is_taken_before_and_after_the_file_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    let fake = Fake::start().await;
    let agent = start(&fake.address, &folder.path().join("spool"), Input::Folder(inbox.clone()));
    let mut writer = fs::File::create(inbox.join("a.jsonl")).unwrap();
    let done = inbox.join("a.jsonl.done");
    writer.write_all(b"{\"n\":1}\n{\"n\":2}\n{\"n\"").unwrap();
    until("done", || done.exists()).await;
    // The half line was taken for a record, and is taken once more when it is whole.
    writer.write_all(b":3}\n{\"n\":4}").unwrap();
    until("taken back", || !done.exists()).await;
    until("done again", || done.exists()).await;
    writer.write_all(b"\n{\"n\":5}\n").unwrap();
    let expected = ["{\"n\":1}", "{\"n\":2}", "{\"n\"", "{\"n\":3}", "{\"n\":4}", "{\"n\":5}"];
    until("all", || stored(&fake) == expected).await;
    until("done for good", || done.exists()).await;
    // Another file has the name: what comes later cannot be taken, which is told.
    fs::write(inbox.join("a.jsonl"), "{\"n\":6}\n").unwrap();
    writer.write_all(b"{\"n\":7}\n").unwrap();
    until("told", || {
        let is_told = |r: &Report| matches!(r, Report::Late { bytes: 8, is_taken: false, .. });
        agent.reports.lock().iter().any(is_told)
    })
    .await;
    agent.stop.cancel();
    agent.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refusal_is_told_with_its_file_and_line_and_the_stream_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    let fake = Fake::start().await;
    fake.world.lock().refuse_payload = Some(b"{\"bad\":1}".to_vec());
    fs::write(inbox.join("a.jsonl"), lines(1, 600)).unwrap();
    fs::write(inbox.join("b.jsonl"), "{\"n\":1}\n\n{\"bad\":1}\n").unwrap();
    fs::write(inbox.join("a.txt"), "n\n1\n").unwrap();
    let agent = start(&fake.address, &folder.path().join("spool"), Input::Folder(inbox.clone()));
    until("done", || inbox.join("b.jsonl.done").exists()).await;
    agent.stop.cancel();
    agent.task.await.unwrap().unwrap();
    let name = fake.world.lock().streams.keys().next().unwrap().clone();
    let reports = agent.reports.lock();
    assert!(matches!(&reports[0], Report::Started { stream } if *stream == name));
    let refused = reports.iter().find_map(|report| match report {
        Report::Refused { file, line, record } => Some((file.clone(), *line, record.sequence)),
        _ => None,
    });
    assert_eq!(refused, Some((Some("b.jsonl".into()), 3, 602)));
    let passed = |r: &&Report| matches!(r, Report::Skipped { file, .. } if file == "a.txt");
    assert_eq!(reports.iter().filter(passed).count(), 1, "told once, as publish does");
}

#[tokio::test]
async fn tables_wait_for_their_definition_and_lines_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    fs::write(inbox.join("a.csv"), rows(1, 3)).unwrap();
    fs::write(inbox.join("b.jsonl"), lines(1, 2)).unwrap();
    let (address, world) = away().await;
    let (known, definition) = watch::channel(None);
    let spool = folder.path().join("spool");
    let agent = start_with(&address, &spool, Input::Folder(inbox.clone()), |config| {
        config.definition = definition;
    });
    until("b taken", || agent.has_told(|r| matches!(r, Report::Taken { through: 2, .. }))).await;
    let waits = |r: &Report| matches!(r, Report::Waiting { file } if file == "a.csv");
    until("a waits", || agent.has_told(waits)).await;
    let fake = Fake::serve(world, &address).await;
    until("b done", || inbox.join("b.jsonl.done").exists()).await;
    assert!(inbox.join("a.csv").exists());
    known.send_replace(Some(works()));
    until("a done", || inbox.join("a.csv.done").exists()).await;
    assert_eq!(stored(&fake), [all(1, 2), row_records(1, 3)].concat());
    assert!(!agent.has_told(|r| matches!(r, Report::Skipped { .. })));
    assert_eq!(agent.reports.lock().iter().filter(|r| waits(r)).count(), 1, "told once");
    agent.end().await;

    // A pipe waits as well; where no definition will come, the agent ends and says so.
    let spool = folder.path().join("pipe");
    let input = || Input::Reader(Box::new(std::io::Cursor::new(rows(4, 5).into_bytes())));
    let (known, definition) = watch::channel(None);
    let agent = start_with(&address, &spool, input(), |config| config.definition = definition);
    until("waits", || agent.has_told(|r| matches!(r, Report::Waiting { .. }))).await;
    known.send_replace(Some(works()));
    assert_eq!(agent.task.await.unwrap().unwrap(), 2);
    let (_, definition) = watch::channel(None);
    let agent = start_with(&address, &spool, input(), |config| config.definition = definition);
    assert!(matches!(agent.task.await.unwrap(), Err(Error::Input(_))));
}

/// What is written over keeps its inode, as a new file in a freed inode has it.
// holds: ING-1
#[tokio::test]
async fn what_is_written_over_while_the_cluster_is_away_is_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let (inbox, spool) = (folder.path().join("inbox"), folder.path().join("spool"));
    fs::create_dir(&inbox).unwrap();
    for (name, from, to) in [("a", 1, 100), ("b", 101, 150), ("c", 151, 160)] {
        fs::write(inbox.join(name).with_extension("jsonl"), lines(from, to)).unwrap();
    }
    let (address, world) = away().await;
    let agent = start(&address, &spool, Input::Folder(inbox.clone()));
    until("taken", || agent.has_told(|r| matches!(r, Report::Taken { through: 160, .. }))).await;
    agent.end().await;
    // Shorter, longer, and the same with another time.
    fs::write(inbox.join("a.jsonl"), lines(201, 210)).unwrap();
    fs::write(inbox.join("b.jsonl"), lines(301, 400)).unwrap();
    fs::write(inbox.join("c.jsonl"), lines(151, 160)).unwrap();
    let agent = start(&address, &spool, Input::Folder(inbox.clone()));
    let fake = Fake::serve(world, &address).await;
    until("done", || {
        ["a", "b", "c"].iter().all(|name| inbox.join(format!("{name}.jsonl.done")).exists())
    })
    .await;
    agent.end().await;
    let (mut found, mut expected) =
        (stored(&fake), [all(1, 160), all(201, 210), all(301, 400)].concat());
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// Its marks are kept while the disk of the folder is away, and a spool is one folder's.
// holds: ING-1, ING-2
#[tokio::test]
async fn what_is_taken_away_and_comes_back_is_not_read_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (inbox, spool) = (folder.path().join("inbox"), folder.path().join("spool"));
    let (aside, other) = (folder.path().join("aside"), folder.path().join("other"));
    for path in [&inbox, &aside, &other] {
        fs::create_dir(path).unwrap();
    }
    for (name, from, to) in [("a", 1, 5), ("b", 6, 9), ("c", 10, 12)] {
        fs::write(inbox.join(name).with_extension("jsonl"), lines(from, to)).unwrap();
    }
    let (address, world) = away().await;
    let agent = start(&address, &spool, Input::Folder(inbox.clone()));
    until("taken", || agent.has_told(|r| matches!(r, Report::Taken { through: 12, .. }))).await;
    agent.end().await;
    for name in ["a.jsonl", "b.jsonl"] {
        fs::rename(inbox.join(name), aside.join(name)).unwrap();
    }
    let wrong = start(&address, &spool, Input::Folder(other));
    let refused = wrong.task.await.unwrap().unwrap_err();
    assert!(matches!(refused, Error::OtherOwner { what: "input", .. }), "{refused}");

    let agent = start(&address, &spool, Input::Folder(inbox.clone()));
    let fake = Fake::serve(world, &address).await;
    until("the one that is there", || inbox.join("c.jsonl.done").exists()).await;
    // One by its inode; one copied, as another disk would bring it.
    fs::rename(aside.join("a.jsonl"), inbox.join("a.jsonl")).unwrap();
    let changed = fs::metadata(aside.join("b.jsonl")).unwrap().modified().unwrap();
    let copy = inbox.join("b.jsonl.tmp");
    fs::copy(aside.join("b.jsonl"), &copy).unwrap();
    fs::File::options().append(true).open(&copy).unwrap().set_modified(changed).unwrap();
    fs::rename(&copy, inbox.join("b.jsonl")).unwrap();
    until("done", || {
        ["a", "b"].iter().all(|name| inbox.join(format!("{name}.jsonl.done")).exists())
    })
    .await;
    agent.end().await;
    assert_eq!(stored(&fake), all(1, 12));
}

#[tokio::test]
async fn a_table_with_an_open_quote_is_taken_whole_once_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let inbox = folder.path().join("inbox");
    fs::create_dir(&inbox).unwrap();
    fs::write(inbox.join("a.csv"), format!("{}F-601,\"x\n", rows(1, 600))).unwrap();
    let fake = Fake::start().await;
    let spool = folder.path().join("spool");
    let agent = start_with(&fake.address, &spool, Input::Folder(inbox.clone()), |config| {
        config.definition = watch::channel(Some(works())).1;
    });
    let named = |r: &Report| matches!(r, Report::Skipped { reason, .. } if reason.to_string().contains("line 602"));
    until("skipped", || agent.has_told(named)).await;
    assert!(!agent.has_told(|r| matches!(r, Report::Taken { .. })), "nothing would be sent twice");
    fs::write(inbox.join("a.csv"), rows(1, 601)).unwrap();
    until("done", || inbox.join("a.csv.done").exists()).await;
    assert_eq!(stored(&fake), row_records(1, 601));
    agent.end().await;
}
