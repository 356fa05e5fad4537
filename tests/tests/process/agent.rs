//! `dtm agent` as a process: killed while it takes and while it sends, with and without a cluster.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dtm_proto::records::StoredRecord;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;

use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::{Ids, Line, Load, Plan};
use crate::readback::{all_of, judge, records};
use crate::sources::Source;
use crate::wait::{is_long, until};

/// Lines of a file: many blocks of the spool.
const FILE_LINES: u64 = 6_000;
const LOOK: Duration = Duration::from_millis(2);

// The agent is killed in the middle of taking, after a seeded number of blocks, while nodes come
// and go; for a while there is no cluster at all, and it goes on taking.
//
// holds: ING-1, ING-2, ING-3, ING-4
// fault: F1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_of_a_folder_stores_each_line_once() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let mut inbox = Inbox::new(&cluster, &source)?;
    let mut agent = Agent::start(&cluster, &source, &inbox.folder)?;
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let kills = if is_long() { 30 } else { 3 };
    let mut down = None;
    for round in 0..kills {
        inbox.add(FILE_LINES)?;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let blocks = 1 + (seed >> 33) % 9;
        agent.kill_after(blocks).await.with_context(|| format!("round {round}"))?;
        if let Some(at) = down.take() {
            cluster.start_node(at)?;
            cluster.settled(NODES).await?;
        } else {
            let at = cluster.leader(source.group).await?;
            cluster.nodes[at].kill();
            down = Some(at);
        }
        agent = Agent::start(&cluster, &source, &inbox.folder)?;
    }

    // No cluster: taken is taken all the same, also by an agent that starts now.
    cluster.nodes.iter_mut().for_each(crate::node::Node::kill);
    inbox.add(FILE_LINES)?;
    agent.kill_after(5).await.context("no cluster")?;
    agent = Agent::start(&cluster, &source, &inbox.folder)?;
    inbox.add(FILE_LINES)?;
    agent.takes(inbox.lines).await?;
    ensure!(inbox.done()? < inbox.files, "nothing is done without a cluster");
    for at in 0..NODES {
        cluster.start_node(at)?;
    }
    until("every file done", WITHIN, async || {
        let done = inbox.done()?;
        ensure!(done == inbox.files, "{done} of {} files: {}", inbox.files, agent.tail());
        Ok(())
    })
    .await?;
    agent.stop().await?;
    cluster.settled(NODES).await?;
    let line = inbox.line(&cluster, &source).await?;
    judge(&cluster, &[line]).await?;
    cluster.roots_agree().await?;
    cluster.passed();
    Ok(())
}

// The writer of the pipe knows what was taken by the reports, and gives a new agent the lines after
// that. A line whose report was cut off comes twice; its message id tells.
//
// holds: ING-1, ING-2, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_of_a_pipe_stores_each_line_once() -> Result<()> {
    const LINES: u64 = 400;
    let cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let plan = Plan { ids: Ids::Code, ..Plan::new(&source, "pipe") };
    // Only valid ones: a refused record leaves no fingerprint.
    let wanted: Vec<u64> = (1..).filter(|at| plan.record(*at).1).take(LINES as usize).collect();
    let mut agent = Agent::start(&cluster, &source, Path::new("-"))?;
    let (mut taken, mut deaths, mut is_new) = (0, 0, true);
    // Sequence of a line less its place here; known from the first report of each life.
    let mut offset = 0;
    while taken < wanted.len() {
        // The first line of a life goes alone, then a few a write.
        let few = if is_new { 1 } else { 10 };
        let lines = &wanted[taken..wanted.len().min(taken + few)];
        let reported = agent.taken();
        agent.write(&text_of(&plan, lines)).await?;
        if is_new {
            agent.takes(reported + 1).await?;
            offset = agent.taken() - taken as u64 - 1;
            (taken, is_new) = (taken + 1, false);
        } else if deaths < 10 && taken % 40 < few {
            tokio::time::sleep(Duration::from_millis(deaths % 4)).await;
            agent.kill().await?;
            taken = usize::try_from(agent.taken() - offset)?;
            agent = Agent::start(&cluster, &source, Path::new("-"))?;
            (deaths, is_new) = (deaths + 1, true);
        } else {
            taken += lines.len();
            agent.takes(taken as u64 + offset).await?;
        }
    }
    ensure!(deaths > 1, "it was killed {deaths} times");
    agent.close().await?;
    for at in 0..NODES {
        let stored = payloads(&cluster, &source, at).await?;
        let set: BTreeSet<_> = stored.iter().cloned().collect();
        let all: BTreeSet<_> =
            wanted.iter().map(|at| plan.record(*at).0.payload.to_vec()).collect();
        ensure!(set == all, "n{}: {} of {}", at + 1, set.len(), all.len());
        ensure!(stored.len() == set.len(), "ING-2: n{}: {} lines", at + 1, stored.len());
    }
    cluster.passed();
    Ok(())
}

fn text_of(plan: &Plan, lines: &[u64]) -> Vec<u8> {
    let mut text = Vec::new();
    for at in lines {
        text.extend_from_slice(&plan.record(*at).0.payload);
        text.push(b'\n');
    }
    text
}

/// The folder that an agent watches, and what was put there.
struct Inbox {
    folder: PathBuf,
    files: usize,
    lines: u64,
    plan: Plan,
    written: std::sync::Arc<Line>,
}

impl Inbox {
    fn new(cluster: &Cluster, source: &std::sync::Arc<Source>) -> Result<Self> {
        let folder = cluster.path("inbox");
        std::fs::create_dir(&folder)?;
        let plan = Plan { ids: Ids::Code, ..Plan::new(source, "agent") };
        Ok(Self { folder, files: 0, lines: 0, written: Load::line(plan.clone()), plan })
    }

    /// One more file, whole at once.
    fn add(&mut self, lines: u64) -> Result<()> {
        let name = self.folder.join(format!("{:04}.jsonl", self.files));
        let part = name.with_extension("tmp");
        std::fs::write(&part, self.written.hand_out(lines))?;
        std::fs::rename(&part, &name)?;
        self.files += 1;
        self.lines += lines;
        Ok(())
    }

    fn done(&self) -> Result<usize> {
        let mut done = 0;
        for entry in std::fs::read_dir(&self.folder)? {
            done += usize::from(entry?.path().extension().is_some_and(|end| end == "done"));
        }
        Ok(done)
    }

    /// What was written, under the name of the stream that the agent chose.
    async fn line(self, cluster: &Cluster, source: &Source) -> Result<std::sync::Arc<Line>> {
        let mut streams = BTreeSet::new();
        let tell = |record: StoredRecord| {
            streams.insert(record.stream);
        };
        records(cluster.endpoint(source)?, all_of(source), tell).await?;
        ensure!(streams.len() == 1, "{streams:?}");
        let stream = streams.pop_first().context("a record")?;
        ensure!(stream.starts_with("agent."), "{stream}");
        let line = Load::line(Plan { stream, ..self.plan });
        *line.sent.lock() = self.written.sent.lock().clone();
        line.acked.store(self.lines, Ordering::Relaxed);
        Ok(line)
    }
}

async fn payloads(cluster: &Cluster, source: &Source, at: usize) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let tell = |record: StoredRecord| found.push(record.payload.to_vec());
    records(cluster.endpoint_at(source, &[at])?, all_of(source), tell).await?;
    Ok(found)
}

/// The process. Its reports go to a file, all lives to the same one.
pub(crate) struct Agent {
    child: Child,
    told: PathBuf,
}

impl Agent {
    pub(crate) fn start(cluster: &Cluster, source: &Source, input: &Path) -> Result<Self> {
        let told = cluster.path("agent.log");
        let mut log = File::options().create(true).append(true).open(&told)?;
        // A life that was killed may have left the first part of a line.
        std::io::Write::write_all(&mut log, b"\n")?;
        let mut command = cluster.source_command(source)?;
        command.arg("agent").arg(input).args([
            "--dataset",
            "notes",
            "--id-member",
            "code",
            "--settle",
            "1",
        ]);
        command.arg("--spool").arg(cluster.path("spool"));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        Ok(Self { child: command.spawn().context("dtm agent")?, told })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<i32> {
        i32::try_from(self.child.id().context("it does not run")?).context("pid")
    }

    /// How far it said that it took.
    fn taken(&self) -> u64 {
        let text = std::fs::read_to_string(&self.told).unwrap_or_default();
        let reports = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        reports
            .filter(|report: &serde_json::Value| report["taken"].is_string())
            .filter_map(|report| report["through"].as_u64())
            .max()
            .unwrap_or_default()
    }

    async fn takes(&mut self, wanted: u64) -> Result<()> {
        until("the agent takes", WITHIN, async || {
            let taken = self.taken();
            ensure!(taken >= wanted, "{taken} of {wanted}: {}", self.tail());
            Ok(())
        })
        .await
    }

    /// SIGKILL after so many more blocks.
    async fn kill_after(mut self, blocks: u64) -> Result<()> {
        const BLOCK: u64 = 512;
        let wanted = self.taken() + blocks * BLOCK;
        let end = std::time::Instant::now() + WITHIN;
        while self.taken() < wanted {
            ensure!(std::time::Instant::now() < end, "it does not take: {}", self.tail());
            ensure!(self.child.try_wait()?.is_none(), "it ended: {}", self.tail());
            tokio::time::sleep(LOOK).await;
        }
        self.kill().await
    }

    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("SIGKILL")
    }

    async fn write(&mut self, text: &[u8]) -> Result<()> {
        let pipe = self.child.stdin.as_mut().context("a pipe")?;
        let written = async {
            pipe.write_all(text).await?;
            pipe.flush().await
        };
        Ok(tokio::time::timeout(WITHIN, written).await.context("it does not read its pipe")??)
    }

    /// The end of its input: it waits for the acks and ends.
    async fn close(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = tokio::time::timeout(WITHIN, self.child.wait()).await??;
        ensure!(status.success(), "{status}: {}", self.tail());
        Ok(())
    }

    /// SIGTERM.
    async fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id().context("it runs")?)?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let status = tokio::time::timeout(WITHIN, self.child.wait()).await??;
        ensure!(status.success(), "{status}: {}", self.tail());
        Ok(())
    }

    fn tail(&self) -> String {
        crate::node::tail(&self.told)
    }
}
