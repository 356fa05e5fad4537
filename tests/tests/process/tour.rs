//! README's tour, line by line, as somebody types it who has just built the tree. Other than there
//! are only the folder, the ports and where the binary lies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::cluster::{WITHIN, binary, free_ports, turn};
use crate::wait::until;

const HEAD: &str = "## A tour in ten lines";
/// In README: folder, address, folder of the binary.
const FOLDER: &str = "/tmp/dtm";
const ADDRESS: &str = "localhost:9443";
const BINARIES: &str = "$PWD/target/release";
/// Of the table; its eleventh row is refused.
const ROWS: usize = 20;
const REFUSED: &str = "CT-0011";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tour_of_the_readme_runs_line_by_line() -> Result<()> {
    let _turn = turn().await?;
    let desk = Desk::new()?;
    let [first, second] = desk.terminals()?;
    let [path, init, serve] = &first[..] else { anyhow::bail!("{first:?}") };
    ensure!(path == &second[0] && path.starts_with("export PATH="), "{path}");
    desk.does(init, &["tour"]).await?;
    let log = desk.home.path().join("node.log");
    let mut node = desk.stays(&format!("{serve} >'{}' 2>&1", log.display()))?;

    let mut lines = second.into_iter().skip(1);
    let mut next = |start: &str| -> Result<String> {
        let line = lines.next().with_context(|| format!("no line {start}"))?;
        ensure!(line.starts_with(start), "{start} was to be next: {line}");
        Ok(line)
    };
    let status = next("dtm context list && dtm cluster status")?;
    until("the node serves", WITHIN, async || desk.does(&status, &["tour", "n1", "1/1"]).await)
        .await?;
    desk.does(&next("dtm dataset publish")?, &["public_works"]).await?;
    desk.does(&next("dtm source add tour")?, &["tour"]).await?;
    desk.does(&next("dtm source key issue tour")?, &["tour.key"]).await?;
    desk.does(&next("dtm context add tour-source")?, &["tour-source"]).await?;
    let publish = next("dtm --context tour-source publish")?;
    desk.ends(&publish, 1, &["/completed_on", "2026-02-30"]).await?;
    let read = next("dtm --context tour-source records read")?;
    let stored = records(&desk.does(&read, &[]).await?)?;
    ensure!(stored == desk.table(|code| code != REFUSED)?, "{stored:?}");
    let mut tail = desk.stays(&next("dtm --context tour-source records tail")?)?;
    let mut tailed = tail.lines(ROWS - 1).await?;
    ensure!(records(&tailed)? == stored, "{tailed}");
    let list = next("dtm --context tour-source quarantine list")?;
    let listed = desk.does(&list, &["/completed_on"]).await?;
    let id = listed.lines().find(|line| line.contains("public_works")).context("a row")?;
    let id = id.split_whitespace().next().context("an id")?;
    let show = next("dtm --context tour-source quarantine show ID --lang en")?;
    let shown = desk.does(&show.replace(" ID ", &format!(" {id} ")), &["2026-02-30"]).await?;
    ensure!(shown.contains("/completed_on: expected a real date"), "{shown}");
    ensure!(lines.next().is_none(), "README has more lines than this test");

    desk.around(&stored, &tailed).await?;
    // What README says below its lines: corrected and sent again, it comes to whoever tails; the
    // table published again stores nothing twice.
    let corrected = desk.corrected(REFUSED)?;
    let resend = format!("dtm --context tour-source quarantine resend {id} --file '{corrected}'");
    desk.does(&resend, &[]).await?;
    tailed.push_str(&tail.lines(1).await?);
    desk.ends(&publish, 1, &["/completed_on"]).await?;
    let all = records(&desk.does(&read, &[]).await?)?;
    ensure!(all.len() == ROWS && records(&tailed)? == all, "{all:?}");
    tail.interrupt().await?;
    node.interrupt().await
}

/// A record, by member; each value as it stands in a table.
type Row = BTreeMap<String, String>;

/// What `records read` prints for people.
fn records(printed: &str) -> Result<Vec<Row>> {
    let row = |line: &str| -> Result<Row> {
        let from = line.find('{').with_context(|| format!("no record: {line}"))?;
        let record: BTreeMap<String, Value> = serde_json::from_str(&line[from..])?;
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Ok(record.into_iter().map(|(name, value)| (name, text(value))).collect())
    };
    printed.lines().map(row).collect()
}

/// The tree, and a user who has nothing yet.
struct Desk {
    home: TempDir,
    tree: PathBuf,
    ports: Vec<SocketAddr>,
    /// Folder of the binary.
    binaries: PathBuf,
}

impl Desk {
    fn new() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("dtm-tour-").tempdir()?;
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tree")?.to_owned();
        let binaries = binary()?.parent().context("its folder")?.to_owned();
        Ok(Self { home, tree, ports: free_ports(3)?, binaries })
    }

    /// The lines of README's tour: of the first terminal, and of the second.
    fn terminals(&self) -> Result<[Vec<String>; 2]> {
        let text = std::fs::read_to_string(self.tree.join("README.md"))?;
        let (_, tour) = text.split_once(HEAD).context("the tour")?;
        let (tour, _) = tour.split_once("\n## ").context("what follows it")?;
        let blocks = tour.split("```").skip(1).step_by(2);
        let lines = |block: &str| block.trim().lines().map(|line| self.own(line)).collect();
        let blocks: Vec<Vec<String>> = blocks.map(lines).collect();
        blocks.try_into().map_err(|blocks| anyhow::anyhow!("not two terminals: {blocks:?}"))
    }

    /// A line with this desk's folder and ports.
    fn own(&self, line: &str) -> String {
        let [https, grpc, peers] = self.ports[..] else { unreachable!("three were asked for") };
        let ports = format!("cluster init --https {https} --grpc {grpc} --peers {peers}");
        line.replace(FOLDER, &self.home.path().join("dtm").display().to_string())
            .replace(ADDRESS, &format!("localhost:{}", grpc.port()))
            .replace("cluster init", &ports)
            .replace(BINARIES, &self.binaries.display().to_string())
    }

    fn shell(&self, line: &str) -> Command {
        let mut shell = Command::new("sh");
        // What the line `export PATH=…` of a terminal does, for each line.
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.binaries.display());
        shell.arg("-c").arg(line).current_dir(&self.tree).stdin(Stdio::null());
        shell.env_clear().env("HOME", self.home.path()).env("PATH", path).kill_on_drop(true);
        shell
    }

    /// A line that succeeds; what it prints. All `words` stand there or beside it.
    async fn does(&self, line: &str, words: &[&str]) -> Result<String> {
        self.ends(line, 0, words).await
    }

    async fn ends(&self, line: &str, code: i32, words: &[&str]) -> Result<String> {
        let output = tokio::time::timeout(WITHIN, self.shell(line).output()).await;
        let Output { status, stdout, stderr } = output.with_context(|| line.to_owned())??;
        let (out, aside) = (String::from_utf8(stdout)?, String::from_utf8(stderr)?);
        ensure!(status.code() == Some(code), "{line}\n{status}\n{out}{aside}");
        for word in words {
            ensure!(out.contains(word) || aside.contains(word), "{line}\nno {word}\n{out}{aside}");
        }
        Ok(out)
    }

    /// A line that goes on until Ctrl-C.
    fn stays(&self, line: &str) -> Result<Running> {
        // Without a shell between.
        let mut command = self.shell(&format!("exec {line}"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let printed = BufReader::new(child.stdout.take().context("stdout")?).lines();
        Ok(Running { child, printed })
    }

    /// Rows of the table that the tour publishes.
    fn table(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Row>> {
        let text = std::fs::read_to_string(self.tree.join("ops/demo/tour/public_works.csv"))?;
        let mut lines = text.lines();
        let names: Vec<_> = lines.next().context("a header")?.split(',').collect();
        let row = |line: &str| -> Row {
            let cells = names.iter().zip(line.split(',')).filter(|(_, cell)| !cell.is_empty());
            cells.map(|(name, cell)| (name.to_string(), cell.to_owned())).collect()
        };
        let rows: Vec<Row> = lines.map(row).collect();
        ensure!(rows.len() == ROWS, "{} rows", rows.len());
        Ok(rows.into_iter().filter(|row| wanted(&row["work_code"])).collect())
    }

    /// A row of the table as a JSON object, with a day that there is; its file.
    fn corrected(&self, code: &str) -> Result<String> {
        let row = self.table(|found| found == code)?.pop().context("the row")?;
        let value = |name: &str, cell: &str| match name {
            "completed_on" => "2026-02-28".into(),
            "cost_vnd" => cell.parse::<u64>().map_or(Value::Null, Value::from),
            _ => cell.into(),
        };
        let record: BTreeMap<_, _> = row.iter().map(|(n, cell)| (n, value(n, cell))).collect();
        let file = self.home.path().join("corrected.json");
        std::fs::write(&file, serde_json::to_string(&record)?)?;
        Ok(file.display().to_string())
    }

    /// What else there is to see of all this.
    async fn around(&self, stored: &[Row], printed: &str) -> Result<()> {
        self.does("dtm dataset list", &["public_works", "dossier_sync"]).await?;
        let shown = self.does("dtm dataset show public_works", &[]).await?;
        let file = self.tree.join("ops/demo/tour/public_works.toml");
        ensure!(shown.trim() == std::fs::read_to_string(file)?.trim(), "{shown}");
        self.does("dtm operator list", &["admin"]).await?;
        // An operator administers and never reads payloads.
        let withheld = self.does("dtm records read --source tour --current", &[]).await?;
        ensure!(withheld.lines().count() == ROWS - 1 && !withheld.contains("CT-"), "{withheld}");

        let stream = printed.strip_prefix("tour/").and_then(|line| line.split_once(' '));
        let (stream, _) = stream.context("a stream")?;
        let lookup = format!("dtm --context tour-source records lookup --stream '{stream}'");
        let found = records(&self.does(&format!("{lookup} --sequence 3"), &[]).await?)?;
        ensure!(found == stored[2..3], "{found:?}");
        self.ends(&format!("{lookup} --sequence 11"), 1, &["/completed_on"]).await?;
        self.ends(&format!("{lookup} --sequence 99"), 1, &[]).await?;
        Ok(())
    }
}

/// A command in its terminal.
struct Running {
    child: Child,
    printed: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// The next lines that it prints.
    async fn lines(&mut self, count: usize) -> Result<String> {
        let mut lines = String::new();
        for _ in 0..count {
            let line = tokio::time::timeout(WITHIN, self.printed.next_line()).await;
            lines.push_str(
                &line.with_context(|| format!("no line after\n{lines}"))??.context("end")?,
            );
            lines.push('\n');
        }
        Ok(lines)
    }

    /// Ctrl-C, which ends it well.
    async fn interrupt(&mut self) -> Result<()> {
        let pid = self.child.id().context("it ended by itself")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGINT)?;
        let ended = async {
            // What it prints still.
            while self.printed.next_line().await?.is_some() {}
            anyhow::Ok(self.child.wait().await?)
        };
        let status = tokio::time::timeout(WITHIN, ended).await.context("it goes on")??;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}
