//! The lines of this node to other sites: what they do, the word that the second channel waits for, and
//! their entries in the ledger.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_cluster::QuicSites;
use dtm_proto::admin as wire;
use dtm_sites::{Journal, LineState};
use dtm_types::command::EnterLine;
use dtm_types::command::admin::Op;
use dtm_types::{NodeId, command::NodeRow};
use serde_json::json;
use tokio::time::sleep;
use tonic::{Code, Status};

use super::audit::{Action, Actor, act};
use super::shared::Shared;

/// Pause before an entry that the ledger did not take is tried again: just then it may be out of reach.
const PAUSE: Duration = Duration::from_secs(5);

/// Lines to other sites.
#[derive(Clone)]
pub struct SiteLines {
    /// The lines.
    pub peers: Arc<QuicSites>,
    /// What of them the ledger does not have yet.
    pub journal: Arc<Journal>,
}

/// Enters what happens to the lines into the ledger of meta, in order. Runs until it is dropped; what the
/// ledger does not have by then is in the log of the node alone.
pub async fn enter_lines(shared: Arc<Shared>) {
    let Some(sites) = &shared.sites else { return std::future::pending().await };
    loop {
        let entry = sites.journal.next().await;
        // The tries are one action.
        let request_id = Bytes::copy_from_slice(&shared.entropy.id16());
        while let Err(status) = enter(&shared, &entry, &request_id).await {
            if matches!(status.code(), Code::Unimplemented | Code::InvalidArgument) {
                // A cluster that was not raised to version 2 enters nothing of it.
                tracing::warn!(message = status.message(), "a line is not entered in the ledger");
                break;
            }
            sleep(PAUSE).await;
        }
    }
}

async fn enter(shared: &Shared, entry: &EnterLine, request_id: &Bytes) -> Result<(), Status> {
    let action = Action {
        op: Op::EnterLine(entry.clone()),
        expected_version: None,
        reason: String::new(),
        request_id: request_id.clone(),
        detail: json!({ "line": entry.change().as_str_name() }),
    };
    act(shared, Actor::node(shared), action).await.map(|_| ())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn status_of((peer, state): (NodeId, LineState)) -> wire::LineStatus {
    let round_trip = state.round_trip.unwrap_or_default().as_micros();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    wire::LineStatus {
        peer: Bytes::copy_from_slice(&peer.0),
        channel: state.path.map(count),
        channels: count(state.paths),
        first_cut_ms: state.first_cut_for.map(millis),
        awaits: state.awaits,
        round_trip_us: u64::try_from(round_trip).unwrap_or(u64::MAX),
    }
}

impl Shared {
    /// What this node says of its lines.
    pub fn local_lines(&self) -> Vec<wire::LineStatus> {
        let lines = self.sites.as_ref().map(|sites| sites.peers.lines().states());
        lines.into_iter().flatten().map(status_of).collect()
    }

    /// The one confirmation, for all lines of this node; how many waited for it.
    pub fn confirm_lines(&self) -> u32 {
        let waited = self.sites.as_ref().map_or(0, |sites| sites.peers.lines().confirm_all());
        u32::try_from(waited).unwrap_or(u32::MAX)
    }
}

/// Lines with the names of their ends, as the nodes that answer see them.
pub fn with_names(nodes: &[wire::NodeStatus]) -> Vec<wire::SiteLine> {
    let row_of = |id: &Bytes| -> Option<&NodeRow> {
        nodes.iter().filter_map(|node| node.node.as_ref()).find(|row| row.node == *id)
    };
    let lines = nodes.iter().flat_map(|node| {
        let own = node.node.clone().unwrap_or_default();
        node.lines.iter().map(move |line| {
            let peer = row_of(&line.peer).cloned().unwrap_or_default();
            wire::SiteLine {
                node: own.name.clone(),
                site: own.site.clone(),
                peer: peer.name,
                peer_site: peer.site,
                status: Some(line.clone()),
            }
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_with_the_names_of_both_ends() {
        let id = |byte: u8| Bytes::from(vec![byte; 16]);
        let row = |byte: u8, name: &str, site: &str| NodeRow {
            node: id(byte),
            name: name.to_owned(),
            site: site.to_owned(),
            ..NodeRow::default()
        };
        let state = LineState {
            path: Some(1),
            paths: 2,
            first_cut_for: Some(Duration::from_millis(8_500)),
            awaits: false,
            round_trip: Some(Duration::from_micros(40_250)),
            lost_share: 0.0,
        };
        let line = status_of((NodeId([2; 16]), state));
        assert_eq!((line.channel, line.channels, line.first_cut_ms), (Some(1), 2, Some(8_500)));
        assert_eq!(line.round_trip_us, 40_250);
        let node = |row, lines| wire::NodeStatus { node: Some(row), lines, ..Default::default() };
        let nodes = [node(row(1, "n1", "a"), vec![line.clone()]), node(row(2, "n2", "b"), vec![])];
        let named = with_names(&nodes);
        let expected = wire::SiteLine {
            node: "n1".to_owned(),
            site: "a".to_owned(),
            peer: "n2".to_owned(),
            peer_site: "b".to_owned(),
            status: Some(line),
        };
        assert_eq!(named, [expected]);
    }
}
