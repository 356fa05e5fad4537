//! The Python example against the same server. Needs `proto/examples/python/generate.sh` first,
//! therefore not part of a plain run.

use crate::fake::{Fake, Fault};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

fn example(fake: &Fake, file: &Path) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python");
    let mut command = Command::new(folder.join(".venv/bin/python"));
    command
        .arg(folder.join("publish.py"))
        .arg(file)
        .args(["--plaintext", "--language", "en", "--source", "tinh-01", "--stream", "s"])
        .args(["--dataset", "payment", "--address", &fake.address])
        .kill_on_drop(true);
    command
}

fn lines(count: u64) -> String {
    (1..=count).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

#[tokio::test]
#[ignore = "run proto/examples/python/generate.sh first"]
async fn the_python_example_survives_cuts_of_both_sides() {
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
    let mut first = example(&fake, &file).args(["--slow", "0.2"]).spawn().unwrap();
    for _ in 0..1000 {
        if fake.payloads("s").len() > 500 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.kill().await.unwrap();
    assert!(fake.payloads("s").len() < 5000, "it was killed too late to show anything");
    let run = example(&fake, &file).output();
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "acked through 5000, refused 0");
    let expected: Vec<_> = lines(5000).lines().map(|l| l.as_bytes().to_vec()).collect();
    assert!(fake.payloads("s") == expected);
}

#[tokio::test]
#[ignore = "run proto/examples/python/generate.sh first"]
async fn the_python_example_prints_refusals() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    fs::write(&file, lines(10)).unwrap();
    let fake = Fake::start().await;
    fake.world.lock().refuse_payload = Some(b"{\"n\":4}".to_vec());
    let run = example(&fake, &file).output();
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("refused 4:") && shown.contains("acked through 10"), "{shown}");
}
