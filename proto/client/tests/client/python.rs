//! The Python example against the same server.

use crate::fake::{Fake, Fault};
use crate::python_env::Example;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

fn publish(example: &Example, fake: &Fake, file: &Path) -> Command {
    let mut command = example.command();
    command
        .arg(file)
        .args(["--plaintext", "--language", "en", "--source", "tinh-01", "--stream", "s"])
        .args(["--dataset", "payment", "--address", &fake.address]);
    command
}

fn lines(count: u64) -> String {
    (1..=count).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

#[tokio::test]
async fn the_python_example_survives_cuts_of_both_sides() {
    let Some(example) = Example::prepared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    fs::write(&file, lines(5000)).unwrap();
    let fake = Fake::start().await;
    fake.script([
        vec![Fault::AckLost(2)],
        vec![Fault::FrameLost(1)],
        vec![Fault::Gap(1)],
        vec![Fault::AckLost(1)],
    ]);
    // Killed in the middle, then again from the start with the same file and stream.
    let mut first = publish(example, &fake, &file).args(["--slow", "0.2"]).spawn().unwrap();
    for _ in 0..1000 {
        if fake.payloads("s").len() > 500 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.kill().await.unwrap();
    assert!(fake.payloads("s").len() < 5000, "it was killed too late to show anything");
    let run = publish(example, &fake, &file).output();
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "acked through 5000, refused 0");
    let expected: Vec<_> = lines(5000).lines().map(|l| l.as_bytes().to_vec()).collect();
    assert!(fake.payloads("s") == expected);
}

#[tokio::test]
async fn the_python_example_tells_the_refusals_of_an_earlier_life() {
    let Some(example) = Example::prepared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    fs::write(&file, lines(1000)).unwrap();
    let fake = Fake::start().await;
    fake.world.lock().refuse_payload = Some(b"{\"n\":4}".to_vec());
    // The refusal is lost with its connection, and the client ends before it is told.
    fake.script([vec![Fault::AckLost(1)]]);
    let mut first = publish(example, &fake, &file).args(["--slow", "2"]).spawn().unwrap();
    for _ in 0..6000 {
        if !fake.payloads("s").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.kill().await.unwrap();
    assert!((4..1000).contains(&fake.payloads("s").len()));
    for sent in ["sent the rest", "sent nothing"] {
        let run = publish(example, &fake, &file).output();
        let output = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(1), "{sent}");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = shown.lines().filter(|line| *line == "refused 4: kept").count();
        assert!(told == 1 && shown.contains("acked through 1000, refused 1"), "{sent}: {shown}");
    }
}

#[tokio::test]
async fn the_python_example_prints_refusals() {
    let Some(example) = Example::prepared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    fs::write(&file, lines(10)).unwrap();
    let fake = Fake::start().await;
    fake.world.lock().refuse_payload = Some(b"{\"n\":4}".to_vec());
    let run = publish(example, &fake, &file).output();
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("refused 4:") && shown.contains("acked through 10"), "{shown}");
}
