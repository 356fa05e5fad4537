//! Files: each record once, whatever run sends it.

use crate::fake::{Fake, Fault};
use dtm_client::Endpoint;
use dtm_client::publish::{Error, PublishOptions, publish_path, publish_reader};
use std::fs;
use std::path::Path;
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

async fn run(fake: &Fake, path: &Path) -> Result<dtm_client::publish::Summary, Error> {
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
    assert_eq!(summary.exit_status(), 0);
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
    assert_eq!((summary.sent, summary.refused, summary.exit_status()), (3, 1, 1));
    assert_eq!((summary.refusals[0].line, summary.refusals[0].sequence), (5, 2));
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

#[tokio::test]
async fn another_input_under_the_same_stream_is_noticed() {
    let fake = Fake::start().await;
    let (endpoint, mut options) = (endpoint(&fake), options());
    options.publisher.stream = "named".into();
    let of = |text: &'static str| Box::new(text.as_bytes()) as Box<dyn std::io::Read + Send>;
    let quiet = |_: &dtm_client::publish::PublishProgress| {};
    let three = of("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
    publish_reader(&endpoint, &options, "-", three, &quiet).await.unwrap();
    let error =
        publish_reader(&endpoint, &options, "-", of("{\"a\":1}\n"), &quiet).await.unwrap_err();
    assert!(matches!(error, Error::StreamLonger { held: 3, sequence: 1, .. }), "{error}");
}
