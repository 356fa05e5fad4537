//! `dtm availability probe` beside a cluster, and its account: over a rolling upgrade, node by node
//! under load (a release that knows the version before, held at it, beside one that is not), and over
//! what is an interruption.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use dtm_proto::admin::UpgradeClusterRequest;
use serde_json::Value;
use tokio::process::Child;

use crate::cluster::{Cluster, NODES};
use crate::load::Load;
use crate::readback::judge;
use crate::sources::Source;
use crate::wait::{is_long, until};

/// A minute that is over is written by the next round.
const MINUTE_SEEN_WITHIN: Duration = Duration::from_secs(90);
/// Holds a node at the protocol of the release before.
const HOLD: &str = "DTM__NODE__PROTOCOL_VERSION_MAX";
const ALIVE: u64 = 20;
const RAISED_WITHIN: Duration = Duration::from_secs(60);

/// A probe, as a process of its own.
struct Probe {
    child: Child,
    source: std::sync::Arc<Source>,
    data: PathBuf,
    told: PathBuf,
}

impl Probe {
    /// At every node of the cluster, from now on.
    async fn start(cluster: &Cluster) -> Result<Self> {
        let source = cluster.add_source("probe", &["notes"]).await?;
        let (data, told) = (cluster.path("seen"), cluster.path("told"));
        let (record, program) = (cluster.path("record.json"), cluster.path("notify.sh"));
        std::fs::write(&record, "{\"code\":\"PROBE-1\",\"note\":\"{id}\"}")?;
        std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> {}\n", told.display()))?;
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let mut command = cluster.source_command(&source)?;
        command.args(["availability", "probe", "--dataset", "notes", "--every", "5"]);
        command.arg("--data").arg(&data).arg("--record").arg(&record);
        command.arg("--notify").arg(&program);
        for node in &cluster.nodes {
            command.arg("--page").arg(format!("https://{}:{}/", node.host, node.ports[0].port()));
        }
        let output = std::fs::File::create(cluster.path("probe.out"))?;
        command.stdout(output.try_clone()?).stderr(output);
        Ok(Self { child: command.spawn().context("the probe")?, source, data, told })
    }

    /// The account of the year.
    async fn account(&self, cluster: &Cluster) -> Result<Value> {
        let mut command = cluster.source_command(&self.source)?;
        command.args(["--output", "json", "availability", "report", "--data"]).arg(&self.data);
        let output = command.output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text).with_context(|| {
            format!("no account: {text} {}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// Waits until minutes were seen in which this figure of the account is more than before.
    async fn until_more(&self, cluster: &Cluster, figure: &str) -> Result<()> {
        let before = of(&self.account(cluster).await?, figure)?;
        until(figure, MINUTE_SEEN_WITHIN, async || {
            let account = self.account(cluster).await?;
            ensure!(of(&account, figure)? > before, "{account}");
            Ok(())
        })
        .await
    }

    /// Notes maintenance from now on, for ten minutes.
    async fn plans(&self, cluster: &Cluster, what: &str) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 60 * 60;
        let at = |seconds: u64| -> Result<String> {
            let time = dtm_ctl::time(i64::try_from(seconds * 1_000_000)?);
            Ok(time.get(.."2026-11-22T22:00".len()).context("a time")?.to_owned())
        };
        let mut command = cluster.source_command(&self.source)?;
        command.args(["availability", "maintenance", "--what", what, "--data"]).arg(&self.data);
        command.args(["--from", &at(now)?, "--to", &at(now + 600)?]);
        let output = command.output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Has the board written, and checks that it says what the account says.
    async fn stands_on_the_board(&self, cluster: &Cluster) -> Result<()> {
        let out = cluster.path("board");
        let mut command = cluster.source_command(&self.source)?;
        command.args(["availability", "board", "--once", "--title", "DTM thử nghiệm", "--data"]);
        command.arg(&self.data).arg("--out").arg(&out);
        command.arg("--drills").arg(cluster.path("drills"));
        let output = command.output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let board: Value = serde_json::from_slice(&std::fs::read(out.join("board.json"))?)?;
        ensure!(board["now"] == "interrupted", "{board}");
        let one = &board["year"]["interruptions"][0];
        let from = one["from"].as_str().context("an interruption")?;
        for (file, word) in [("index.html", "GIÁN ĐOẠN"), ("en.html", "INTERRUPTED")] {
            let page = std::fs::read_to_string(out.join(file))?;
            for part in ["<h1>DTM thử nghiệm</h1>", word, from, "site-loss"] {
                ensure!(page.contains(part), "{file} lacks {part}: {page}");
            }
        }
        Ok(())
    }

    /// What the program was told.
    fn told(&self) -> String {
        std::fs::read_to_string(&self.told).unwrap_or_default()
    }

    /// Ends it as its keeper does.
    async fn stop(mut self) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id().context("it runs")?)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await??;
        ensure!(ended.success(), "{ended}");
        Ok(())
    }
}

/// A figure of an account.
fn of(account: &Value, figure: &str) -> Result<i64> {
    account[figure].as_i64().with_context(|| format!("{figure} of {account}"))
}

/// A node that was just killed shows in the minutes of its page, and nothing else does.
async fn is_seen_as_partial(cluster: &Cluster, probe: &Probe) -> Result<()> {
    let page = format!("{}:{}", cluster.nodes[0].host, cluster.nodes[0].ports[0].port());
    let failed = |account: &Value| account["failed_minutes"]["entry_page"][&page].as_i64();
    let before = failed(&probe.account(cluster).await?);
    until("a partial failure", MINUTE_SEEN_WITHIN, async || {
        let account = probe.account(cluster).await?;
        ensure!(failed(&account) > before, "{account}");
        Ok(())
    })
    .await?;
    let account = probe.account(cluster).await?;
    ensure!(of(&account, "interrupted")? == 0, "one of three nodes is away: {account}");
    ensure!(probe.told().is_empty(), "{}", probe.told());
    Ok(())
}

/// One node away is a partial failure (the long form waits for it); all are an interruption, told and recorded within a minute.
async fn sees_what_is_away(cluster: &mut Cluster, probe: &Probe) -> Result<()> {
    cluster.nodes[0].kill();
    // A whole minute of the probe's.
    if is_long() {
        is_seen_as_partial(cluster, probe).await?;
    }
    probe.plans(cluster, "the end of everything").await?;
    let begun = Instant::now();
    cluster.nodes.iter_mut().skip(1).for_each(crate::node::Node::kill);
    until("a recorded interruption", Duration::from_secs(60), async || {
        let account = probe.account(cluster).await?;
        ensure!(of(&account, "interrupted")? > 0, "{account}");
        ensure!(probe.told().starts_with("interrupted "), "{:?}", probe.told());
        Ok(())
    })
    .await?;
    println!("an interruption is recorded after {:.1?}", begun.elapsed());
    let account = probe.account(cluster).await?;
    ensure!(account["interruptions"][0]["planned"][0] == "the end of everything", "{account}");
    // With all of the cluster away.
    probe.stands_on_the_board(cluster).await?;
    cluster.go_on().await?;
    for at in 0..cluster.nodes.len() {
        cluster.start_node(at)?;
    }
    cluster.settled(cluster.nodes.len()).await?;
    cluster.rest();
    until("the end of it", Duration::from_secs(60), async || {
        ensure!(probe.told().contains("restored "), "{:?}", probe.told());
        Ok(())
    })
    .await
}

/// Waits until all groups are at a version, and so many nodes stand against a higher one.
async fn are_at(cluster: &Cluster, version: u32, held: usize) -> Result<()> {
    until("the version of all groups", RAISED_WITHIN, async || {
        let request = UpgradeClusterRequest { check: true, ..Default::default() };
        let admin = cluster.admin()?;
        let answer = admin.call(|mut client| {
            let request = request.clone();
            async move { client.upgrade_cluster(request).await }
        });
        let plan = answer.await?;
        let found: Vec<_> = plan.groups.iter().map(|group| group.version).collect();
        ensure!(!found.is_empty() && found.iter().all(|at| *at == version), "{found:?}");
        ensure!(plan.obstacles.len() == held, "not {held} nodes: {:?}", plan.obstacles);
        Ok(())
    })
    .await
}

// A probe watches from outside: none of it is an interruption. Then nodes go away for good.
//
// covers: AV-2, AV-12
// holds: ING-1, ING-2, ING-3, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_fails_no_ack() -> Result<()> {
    let mut cluster = Cluster::beside_with(&[(HOLD, 1)]).await?;
    are_at(&cluster, 1, 0).await?;
    let load = Load::usual(&cluster, 8).await?;
    load.moves(ALIVE).await?;
    let probe = Probe::start(&cluster).await?;
    for at in 0..NODES {
        cluster.nodes[at].stop().await?;
        cluster.nodes[at].environment.retain(|(name, _)| name != HOLD);
        cluster.start_node(at)?;
        cluster.settled(NODES).await?;
        load.moves(ALIVE).await?;
        // The nodes that are still held stand against it, each by its name.
        let held = NODES - 1 - at;
        are_at(&cluster, 1, held).await?;
        let raised = cluster.dtm(&["cluster", "upgrade", "finalize"]).await;
        ensure!(raised.is_ok() == (held == 0), "with {held} held: {raised:?}");
    }
    are_at(&cluster, 2, 0).await?;
    load.moves(ALIVE).await?;
    // What only the new version has.
    cluster.dtm(&["config", "set", "limits.streams_open_max=65"]).await?;
    let failed: u64 = load.lines.iter().map(|line| line.troubles.load(Ordering::Relaxed)).sum();
    let why = load.lines.iter().find_map(|line| line.reasons.lock().front().cloned());
    ensure!(
        failed == 0,
        "{failed} connections were cut or refused, such as: {}",
        why.context("?")?
    );
    // From here on it mostly waits for whole minutes.
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    cluster.rest();
    probe.until_more(&cluster, "seen").await?;
    let account = probe.account(&cluster).await?;
    ensure!(of(&account, "interrupted")? == 0, "{account}");
    ensure!(probe.told().is_empty(), "{}", probe.told());

    sees_what_is_away(&mut cluster, &probe).await?;
    probe.stop().await?;
    judge(&cluster, &lines).await?;
    cluster.passed();
    Ok(())
}
