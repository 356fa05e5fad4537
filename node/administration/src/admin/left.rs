//! What this node held of a life that is over.

use bytes::Bytes;
use dtm_doors::status::{internal, told};
use dtm_identity::Operation;
use dtm_proto::admin as wire;
use dtm_types::ErrorCode;
use dtm_types::command::admin::Op;
use dtm_types::command::{LeftAction, SettleLeft};
use dtm_types::format::SequenceRange;
use dtm_types::text::Told;
use serde_json::json;
use tonic::{Request, Status};

use super::{AdminDoor, Asker};
use crate::left::{self, Left};

impl AdminDoor {
    pub(crate) async fn left_behind(
        &self,
        request: Request<wire::LeftBehindRequest>,
    ) -> Result<wire::LeftBehindResponse, Status> {
        self.0.allow(&request, Operation::LeftBehind, None).await?;
        let all = left::all(&self.0, false).await?;
        Ok(wire::LeftBehindResponse {
            node: self.0.row.name.clone(),
            site: self.0.row.site.clone(),
            replicas: all.iter().map(to_wire).collect(),
        })
    }

    /// What was sent again is removed file by file, where the life in force has all of it; the rest
    /// stays until it is given up.
    pub async fn settle_left(
        &self,
        request: Request<wire::SettleLeftRequest>,
    ) -> Result<wire::SettleLeftResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::SettleLeft, asked.context.as_ref()).await?;
        if asker.reason.trim().is_empty() {
            return Err(told(ErrorCode::InvalidArgument, &Told::new("refused.left.reason")));
        }
        let action = asked.action();
        let resends = match action {
            LeftAction::Unspecified => {
                return Err(told(ErrorCode::InvalidArgument, &Told::new("refused.left.action")));
            }
            LeftAction::Resent => true,
            LeftAction::Discarded => false,
        };
        let all = left::all(&self.0, resends).await?;
        let records: u64 = all.iter().map(Left::records).sum();
        let lacking: u64 = all.iter().map(Left::lacking_records).sum();
        let streams = all.iter().flat_map(|left| lacking_of(left, resends)).collect();
        let answer =
            wire::SettleLeftResponse { records, present: records - lacking, lacking: streams };
        let (gone, kept): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|left| !resends || left.is_there());
        for left in &kept {
            tracing::warn!(
                file = %left.path.display(),
                lacking = left.lacking_records(),
                unverified = left.unverified_records(),
                unread = left.summary.unread,
                changes = left.summary.commands.len(),
                "what was left behind is kept"
            );
        }
        if !gone.is_empty() {
            self.remove_left(asker, action, &gone).await?;
        }
        Ok(answer)
    }

    /// It is entered before anything is removed, so that no decision goes without a leaf.
    async fn remove_left(
        &self,
        asker: Asker,
        action: LeftAction,
        gone: &[Left],
    ) -> Result<(), Status> {
        let records: u64 = gone.iter().map(Left::records).sum();
        let lacking: u64 = gone.iter().map(Left::lacking_records).sum();
        let unverified: u64 = gone.iter().map(Left::unverified_records).sum();
        let paths: Vec<_> = gone.iter().map(|left| left.path.clone()).collect();
        let hashed = paths.clone();
        let digest = tokio::task::spawn_blocking(move || left::digest(&hashed)).await;
        let digest = digest.map_err(internal)?.map_err(internal)?;
        let settled = SettleLeft {
            node: Bytes::copy_from_slice(&self.0.node.0),
            incarnation: gone.iter().map(|left| left.head.incarnation.0).max().unwrap_or_default(),
            action: action.into(),
            entries: gone.iter().map(|left| left.summary.entries).sum(),
            records,
            present: records - lacking,
            digest: Bytes::copy_from_slice(&digest),
        };
        let detail = json!({"node": self.0.row.name, "records": records, "lacking": lacking,
            "unverified": unverified});
        self.act(asker, Op::SettleLeft(settled), None, detail).await?;
        let removed =
            tokio::task::spawn_blocking(move || paths.iter().try_for_each(std::fs::remove_file));
        removed.await.map_err(internal)?.map_err(internal)
    }
}

/// Streams with records that the life in force is not known to have. A file that is kept though it has
/// none of these is named in their place, with what of it could not be read.
fn lacking_of(left: &Left, resends: bool) -> Vec<wire::LeftStream> {
    let mut lacking: Vec<_> = streams_of(left).filter(|stream| stream.lacking > 0).collect();
    if resends && lacking.is_empty() && !left.is_there() {
        let name = left.path.file_name().unwrap_or_default();
        lacking.push(wire::LeftStream {
            stream: format!("left/{}", name.to_string_lossy()),
            lacking: left.summary.unread,
            ..wire::LeftStream::default()
        });
    }
    lacking
}

fn to_wire(left: &Left) -> wire::LeftReplica {
    let changes = left.summary.commands.iter().map(|change| wire::LeftChange {
        index: change.index,
        time_us: change.time_us,
        kind: change.kind.clone(),
    });
    wire::LeftReplica {
        group: left.head.group.0,
        incarnation: left.head.incarnation.0,
        agreed: left.head.agreed,
        applied: left.head.applied,
        entries: left.summary.entries,
        unread: left.summary.unread,
        streams: streams_of(left).collect(),
        changes: changes.collect(),
    }
}

fn streams_of(left: &Left) -> impl Iterator<Item = wire::LeftStream> + '_ {
    let of = left.summary.streams.iter().zip(&left.missing);
    of.map(|(((source, stream), left), missing)| wire::LeftStream {
        source: source.clone(),
        stream: stream.clone(),
        ranges: left.ranges.iter().map(|&(from, to)| SequenceRange { from, to }).collect(),
        records: left.records(),
        bytes: left.bytes,
        first_us: left.sealed_us.0,
        last_us: left.sealed_us.1,
        lacking: missing.lacking,
    })
}
