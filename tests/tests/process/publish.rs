//! `dtm publish` as people run it: what was not sent is never told as sent, and what was refused
//! fails each run.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::cluster::{Cluster, WITHIN};
use crate::sources::{Source, definition};

/// What a run told.
struct Told {
    code: i32,
    documents: Vec<Value>,
    aside: String,
}

impl Told {
    /// Sent, there from an earlier run, refused; of all inputs.
    fn counts(&self) -> (u64, u64, u64) {
        let sum = |name: &str| self.documents.iter().filter_map(|d| d[name].as_u64()).sum();
        (sum("sent"), sum("skipped"), sum("refused"))
    }
}

struct Desk<'a> {
    cluster: &'a Cluster,
    source: &'a Source,
}

impl Desk<'_> {
    async fn run(&self, arguments: &[&str], input: &str) -> Result<(i32, String, String)> {
        let mut command = self.cluster.source_command(self.source)?;
        command.args(["--lang", "en", "-o", "json"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("dtm")?;
        let mut pipe = child.stdin.take().context("stdin")?;
        // A run that ends before it reads everything closes the pipe.
        pipe.write_all(input.as_bytes()).await.ok();
        drop(pipe);
        let done = tokio::time::timeout(WITHIN, child.wait_with_output()).await??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((done.status.code().unwrap_or(-1), text(&done.stdout), text(&done.stderr)))
    }

    async fn publish(&self, arguments: &[&str], input: &str) -> Result<Told> {
        let arguments = [&["publish"], arguments].concat();
        let (code, out, aside) = self.run(&arguments, input).await?;
        let documents = serde_json::from_str(&out).unwrap_or_default();
        Ok(Told { code, documents, aside })
    }

    fn file(&self, name: &str, lines: &str) -> Result<String> {
        let path = self.cluster.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(&path, lines)?;
        Ok(path.display().to_string())
    }
}

fn lines(from: u32, to: u32) -> String {
    (from..=to).map(|n| format!("{{\"code\":\"C-{n}\",\"note\":\"x\"}}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_never_tells_unsent_records_as_sent() -> Result<()> {
    let cluster = Cluster::beside().await?;
    cluster.publish_dataset(&definition("other").replace("\"note\"", "\"other\"")).await?;
    let source = cluster.add_source("src-1", &["notes", "other"]).await?;
    let desk = Desk { cluster: &cluster, source: &source };

    // The wrong data set refuses all, each time; the right one gets all.
    let day_1 = desk.file("day1.jsonl", &lines(1, 50))?;
    for (sent, round) in [(50, "first"), (0, "again")] {
        let told = desk.publish(&["--dataset", "other", &day_1], "").await?;
        ensure!(told.code == 1 && told.counts() == (sent, 0, 50), "{round}: {:?}", told.documents);
        let line = &told.documents[0]["refusals"][49]["line"];
        ensure!(*line == 50, "{round}: the refused lines are named: {line}");
    }
    let told = desk.publish(&["--dataset", "notes", &day_1], "").await?;
    ensure!(told.code == 0 && told.counts() == (50, 0, 0), "{:?}", told.documents);

    named_stream(&desk, &day_1).await?;

    // A folder: what is no input of this kind is told, and the rest goes on.
    desk.file("in/README.md", "# x\n")?;
    desk.file("in/a.csv", "code,note\nC-1,\"open\n")?;
    desk.file("in/b.jsonl", &lines(501, 503))?;
    let folder = cluster.path("in").display().to_string();
    let told = desk.publish(&["--dataset", "notes", &folder], "").await?;
    ensure!(told.code == 1 && told.counts() == (3, 0, 0), "{:?}", told.documents);
    ensure!(told.aside.contains("README.md") && told.aside.contains("line 2"), "{}", told.aside);

    every_definition_is_listed(&desk).await?;
    cluster.passed();
    Ok(())
}

/// More definitions than one answer, or a part of a snapshot of meta, holds.
async fn every_definition_is_listed(desk: &Desk<'_>) -> Result<()> {
    const VERSIONS: u64 = 36;
    let remark = format!("# {}\n", "x".repeat(1_000_000));
    for version in 1..=VERSIONS {
        let text = definition("large").replace("version = 1", &format!("version = {version}"));
        desk.cluster.publish_dataset(&(text + &remark)).await?;
    }
    let (code, out, aside) = desk.run(&["dataset", "list"], "").await?;
    ensure!(code == 0, "{aside}");
    let listed: Vec<Value> = serde_json::from_str(&out)?;
    let versions = listed.iter().filter(|row| row["dataset"] == "large");
    let versions: Vec<_> = versions.filter_map(|row| row["schema_version"].as_u64()).collect();
    ensure!(versions == (1..=VERSIONS).collect::<Vec<_>>(), "{versions:?}");
    ensure!(listed.iter().any(|row| row["dataset"] == "notes"), "{listed:?}");
    Ok(())
}

/// One input after the other in a stream that has a name, and the same from standard input.
async fn named_stream(desk: &Desk<'_>, day_1: &str) -> Result<()> {
    let day_2 = desk.file("day2.jsonl", &lines(101, 160))?;
    let stream = ["--dataset", "notes", "--stream", "daily"];
    let with = |more: &[&'static str]| [&stream[..], more].concat();
    for (sent, there) in [(110, 0), (0, 110)] {
        let told = desk.publish(&[&stream[..], &[day_1, &day_2]].concat(), "").await?;
        ensure!(told.code == 0 && told.counts() == (sent, there, 0), "{:?}", told.documents);
    }
    let pipe = lines(201, 340);
    let told = desk.publish(&with(&["-"]), &pipe).await?;
    ensure!(told.code == 1 && told.aside.contains("--append"), "{}", told.aside);
    let told = desk.publish(&with(&["--resume", "-"]), &pipe).await?;
    ensure!(told.code == 1 && told.aside.contains("another record"), "{}", told.aside);
    let told = desk.publish(&with(&["--append", "-"]), &pipe).await?;
    ensure!(told.code == 0 && told.counts() == (140, 0, 0), "{:?}", told.documents);
    // The cluster compares: the same from the first record on, and more.
    let whole = [lines(1, 50), lines(101, 160), pipe, lines(401, 402)].concat();
    let told = desk.publish(&with(&["--resume", "-"]), &whole).await?;
    ensure!(told.code == 0 && told.counts() == (2, 250, 0), "{} {:?}", told.aside, told.documents);

    let read = ["records", "read", "--source", "src-1", "--stream"];
    let (code, out, aside) = desk.run(&[&read[..], &["daily"]].concat(), "").await?;
    ensure!(code == 0, "{aside}");
    let last = out.lines().last().context("a last line")?;
    let last: Value = serde_json::from_str(last)?;
    ensure!(last["count"] == 252 && last["position"].is_string(), "{last}");
    let (code, _, aside) = desk.run(&[&read[..], &["dialy"]].concat(), "").await?;
    ensure!(code == 1 && aside.contains("no stream dialy"), "{code} {aside}");
    Ok(())
}
