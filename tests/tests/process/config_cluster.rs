//! What the cluster sets for all its nodes: taken while they run, refused where it is faulty, brought
//! back, and known to a node that was down or is new.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dtm_client::{Error, Session, SessionEvent};
use dtm_types::ErrorCode;
use serde_json::Value;

use crate::bad_frames::{end_of, next, send, told};
use crate::bad_records::open_stream;
use crate::cluster::{Cluster, NODES, WITHIN};
use crate::sources::Source;
use crate::wait::until;

/// Every node goes by a change within this.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
const RECORD: &str = "limits.record_bytes_max";
/// Taken at a node's next start.
const LATER: &str = "raft.clock_offset_max_ms";
const FIRST: usize = 2_048;
const SECOND: usize = 4_096;
const DEFAULT: usize = 8 << 20;

/// A cluster with a source whose streams may be opened at every node.
struct Settings {
    cluster: Cluster,
    source: Source,
    /// Streams that were opened: each has a name of its own.
    opened: usize,
}

impl Settings {
    async fn dtm(&self, arguments: &[&str]) -> Result<Value> {
        let all = [&["-o", "json", "--reason", "test", "--yes", "config"][..], arguments].concat();
        Ok(serde_json::from_str(&self.cluster.dtm(&all).await?)?)
    }

    /// What the cluster says of a node: the version it goes by, and what waits for its next start.
    async fn of_node(&self, at: usize) -> Result<(u64, Vec<String>)> {
        let shown = self.dtm(&["show", "--cluster"]).await?;
        let name = &self.cluster.nodes[at].name;
        let nodes = shown["nodes"].as_array().context("nodes")?;
        let node = nodes.iter().find(|node| node["node"] == **name).context("the node")?;
        ensure!(node["reachable"] == true && node["not_taken"] == Value::Array(vec![]), "{node}");
        let pending = node["pending"].as_array().context("pending")?.iter();
        let pending = pending.map(|key| key.as_str().unwrap_or_default().to_owned()).collect();
        Ok((node["version"].as_u64().context("version")?, pending))
    }

    /// A stream at this node.
    async fn open(&mut self, at: usize) -> Result<Session, Error> {
        self.opened += 1;
        open_stream(&self.cluster, &self.source, &format!("s{}", self.opened), "notes", at).await
    }

    /// Waits until each of these nodes holds records to this bound: it says so when a stream opens,
    /// takes what fits and refuses the next larger.
    async fn held_to(&mut self, nodes: &[usize], bytes: usize, within: Duration) -> Result<()> {
        let begun = Instant::now();
        for &at in nodes {
            let mut session = loop {
                let session = self.open(at).await?;
                let window = session.opened().window.context("a window")?;
                if window.record_bytes_max == bytes as u64 {
                    break session;
                }
                let told = window.record_bytes_max;
                ensure!(begun.elapsed() < within, "node {at} is at {told} after {within:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            };
            send(&session, 1, &[bytes.min(1 << 16) - 512]).await?;
            next(&mut session).await.context("what fits is answered")?;
            if bytes < DEFAULT {
                send(&session, 2, &[bytes + 1]).await?;
                told(&end_of(session).await?, ErrorCode::TooLarge, "record_bytes_max", bytes)?;
            }
        }
        println!("{bytes} bytes on {} nodes after {:.1?}", nodes.len(), begun.elapsed());
        Ok(())
    }

    /// What is set, without where it comes from on the node that answers.
    async fn set_values(&self) -> Result<Vec<(String, String)>> {
        let shown = self.dtm(&["show", "--cluster"]).await?;
        let values = shown["values"].as_array().context("values")?.iter();
        let set = values.filter(|value| value["origin"] == "cluster");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(set
            .map(|value| {
                let next = if value["pending"].is_null() { "value" } else { "pending" };
                (text(&value["key"]), text(&value[next]))
            })
            .collect())
    }

    /// Refused with the place and what is allowed; nothing is changed by it.
    async fn faulty_ones_are_refused(&mut self) -> Result<()> {
        let before = self.set_values().await?;
        let cases: [(&[&str], &str); 7] = [
            (
                &["limits.streams_open_max=9", "limits.record_bytes_max=12"],
                "limits.record_bytes_max: 12 is outside 1024 to 12582912 bytes",
            ),
            (&["limits.streams_open_max=many"], "limits.streams_open_max: many is not a whole"),
            (&["limits.frame_bytes_max=2048"], "cannot carry a record of 2048 bytes"),
            (&["raft.heartbeat_ms=400"], "less than three heartbeats"),
            (&["limits.record_byte_max=4096"], "did you mean limits.record_bytes_max"),
            (&["node.name=n9"], "each node's own"),
            (&["--unset", "limits.reads_open_max"], "not set by the cluster"),
        ];
        for (arguments, said) in cases {
            let all = [&["config", "set"][..], arguments].concat();
            self.cluster.dtm_fails(&all, said).await?;
            let vi = [&["--lang", "vi"][..], &all].concat();
            let refused = self.cluster.dtm(&vi).await.expect_err("refused").to_string();
            ensure!(!refused.contains(said), "in one language only: {refused}");
        }
        self.cluster
            .dtm_fails(&["config", "set", "--at", "7", "raft.heartbeat_ms=140"], "version 1")
            .await?;
        let (version, _) = self.of_node(0).await?;
        ensure!(version == 1 && self.set_values().await? == before, "something was changed");
        let history = self.dtm(&["history"]).await?;
        ensure!(history.as_array().is_some_and(|all| all.len() == 1), "{history}");
        Ok(())
    }

    /// Off while the second version is made, on again: it learns what is live, and the rest at the
    /// start after that.
    async fn who_was_down_gets_them(&mut self) -> Result<()> {
        const DOWN: usize = NODES - 1;
        self.cluster.nodes[DOWN].stop().await?;
        let (record, later) = (format!("{RECORD}={SECOND}"), format!("{LATER}=600"));
        let set = self.dtm(&["set", &record, &later]).await?;
        ensure!(set["version"] == 2, "{set}");
        self.held_to(&[0, 1], SECOND, TAKEN_WITHIN).await?;
        let (version, pending) = self.of_node(0).await?;
        ensure!(version == 2 && pending == [LATER], "{version} {pending:?}");
        self.cluster.start_node(DOWN)?;
        self.cluster.settled(NODES).await?;
        self.held_to(&[DOWN], SECOND, TAKEN_WITHIN).await?;
        ensure!(
            self.of_node(DOWN).await? == (2, vec![LATER.to_owned()]),
            "known too late to start by"
        );
        self.cluster.nodes[DOWN].stop().await?;
        self.cluster.start_node(DOWN)?;
        self.cluster.settled(NODES).await?;
        ensure!(self.of_node(DOWN).await? == (2, vec![]), "it started with them");
        Ok(())
    }

    /// It has them from its first start on, and becomes a full member: in the place of a node that
    /// is taken out, every group has it among its voters.
    async fn who_joins_has_them(&mut self) -> Result<()> {
        let at = self.cluster.add_node().await?;
        until("the new node answers", WITHIN, async || self.of_node(at).await.map(drop)).await?;
        ensure!(self.of_node(at).await? == (2, vec![]), "{:?}", self.of_node(at).await?);
        let file = self.cluster.nodes[at].folder.join("dtm.toml").display().to_string();
        let shown = self.dtm(&["show", "--config", &file]).await?;
        ensure!(shown[LATER] == 600 && shown["origin"][LATER] == "cluster", "{shown}");
        let removed = &mut self.cluster.nodes[1];
        let name = removed.name.clone();
        self.cluster.dtm(&["cluster", "remove", &name, "--yes", "--reason", "test"]).await?;
        self.cluster.nodes[1].lost = true;
        self.cluster.nodes[1].kill();
        until("groups without the removed node", WITHIN, async || {
            let status = self.cluster.status().await?;
            for group in &status.groups {
                let voters = group.replicas.iter().filter(|r| r.voter && r.health == "healthy");
                let nodes: Vec<_> = voters.map(|r| r.node.clone()).collect();
                let new = status.nodes.iter().filter_map(|n| n.node.as_ref());
                let new = new.into_iter().find(|row| row.name == self.cluster.nodes[at].name);
                let new = new.context("its row")?;
                ensure!(nodes.len() == NODES, "{}: {} voters", group.group, nodes.len());
                ensure!(nodes.contains(&new.node), "{}: without the new one", group.group);
            }
            Ok(())
        })
        .await?;
        self.held_to(&[at], SECOND, TAKEN_WITHIN).await
    }
}

// A limit is set, a faulty value refused, a second version made while a node is down, a node joins,
// and the first version is brought back.
//
// covers: F-5.6.3
// fault: F25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_checked_replicated_and_brought_back() -> Result<()> {
    let cluster = Cluster::start().await?;
    let source = cluster.register(crate::sources::source_row("src-1", &["notes"])).await?;
    let mut all = Settings { cluster, source, opened: 0 };
    all.held_to(&[0, 1, 2], DEFAULT, TAKEN_WITHIN).await?;
    let mut open = all.open(0).await?;

    let set = all.dtm(&["set", &format!("{RECORD}={FIRST}")]).await?;
    let begun = Instant::now();
    ensure!(set["version"] == 1 && set["changes"][0]["after"] == "2048", "{set}");
    all.held_to(&[0, 1, 2], FIRST, TAKEN_WITHIN).await?;
    // Who was there before is asked to open again, and ended where it does not.
    let advice = next(&mut open).await?;
    let SessionEvent::Reconnect(advice) = advice else { anyhow::bail!("{advice:?}") };
    ensure!(advice.reason == "limits-changed", "{advice:?}");
    let error = end_of(open).await?;
    ensure!(begun.elapsed() < TAKEN_WITHIN + Duration::from_secs(2), "{:?}", begun.elapsed());
    let Error::Rejected { code, .. } = &error else { anyhow::bail!("{error}") };
    ensure!(*code == Some(ErrorCode::Unavailable), "{error}");
    let first = all.set_values().await?;
    ensure!(first == [(RECORD.to_owned(), FIRST.to_string())], "{first:?}");

    all.faulty_ones_are_refused().await?;
    all.who_was_down_gets_them().await?;
    all.who_joins_has_them().await?;

    let back = all.dtm(&["rollback", "1"]).await?;
    ensure!(back["version"] == 3, "{back}");
    all.held_to(&[0, 2, 3], FIRST, TAKEN_WITHIN).await?;
    ensure!(all.set_values().await? == first, "{:?}", all.set_values().await?);
    let history = all.dtm(&["history"]).await?;
    let versions = history.as_array().context("a list")?.iter();
    let told: Vec<_> = versions.map(|v| (v["version"].as_u64(), v["restores"].as_u64())).collect();
    ensure!(told == [(Some(3), Some(1)), (Some(2), Some(0)), (Some(1), Some(0))], "{history}");
    ensure!(history[0]["operator"] == "admin", "{history}");
    all.cluster.roots_agree().await?;
    all.cluster.passed();
    Ok(())
}
