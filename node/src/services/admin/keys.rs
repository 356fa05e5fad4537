//! The cluster key and links to the page.

use bytes::Bytes;
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView};
use dtm_proto::admin as wire;
use dtm_types::command::admin::Op;
use dtm_types::command::command::Op as Command;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Outcome, RewrapKeys};
use dtm_types::{ErrorCode, GroupId, KeyId, RequestId};
use serde_json::json;
use tonic::{Request, Status};

use super::AdminDoor;
use crate::services::Actor;
use crate::services::audit::propose;
use crate::services::status::{internal, status};

/// Keys wrapped anew in one command.
const REWRAP_KEYS: usize = 256;

impl AdminDoor {
    /// A new cluster key for new data keys, and every data key wrapped under it. Sealed bytes stay.
    pub(super) async fn rotate_cluster_key(
        &self,
        request: Request<wire::RotateClusterKeyRequest>,
    ) -> Result<wire::RotateClusterKeyResponse, Status> {
        let asked = request.get_ref();
        let asker =
            self.asker(&request, Operation::RotateClusterKey, asked.context.as_ref()).await?;
        let cluster_key = self.0.distribute_cluster_key().await?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let mut row = reads::cluster(meta.state.as_ref()).map_err(internal)?.unwrap_or_default();
        row.cluster_key_id = Bytes::copy_from_slice(&cluster_key.0);
        let detail = json!({"cluster_key": cluster_key.to_string()});
        let actor = Actor::of(&asker.caller, asker.address.clone());
        self.act(asker, Op::PutCluster(row), None, detail).await?;
        let mut keys_rewrapped = 0;
        let groups = std::iter::once(GroupId::META).chain(self.0.cluster.ingest_groups());
        for group in groups {
            keys_rewrapped += self.rewrap(group, &actor).await?;
        }
        Ok(wire::RotateClusterKeyResponse {
            cluster_key_id: Bytes::copy_from_slice(&cluster_key.0),
            keys_rewrapped,
        })
    }

    async fn rewrap(&self, group: GroupId, actor: &Actor) -> Result<u64, Status> {
        let mut after: Option<KeyId> = None;
        let mut count = 0;
        loop {
            let range = reads::keys_range(after);
            let rows = self.0.rows(group, Freshness::Current, range).await?;
            let held = reads::keys_after(rows.as_ref(), after, REWRAP_KEYS).map_err(internal)?;
            let Some(last) = held.last() else {
                return Ok(count);
            };
            after = KeyId::from_slice(&last.key_id);
            let current = self.0.keyring.current();
            let mut keys = Vec::with_capacity(held.len());
            for row in held.iter().filter(|row| row.cluster_key_id != current.0.as_slice()) {
                keys.push(self.0.keyring.rewrap(group, row, group).map_err(internal)?);
            }
            if keys.is_empty() {
                continue;
            }
            let rewrapped = keys.len() as u64;
            let op = Command::RewrapKeys(RewrapKeys { keys });
            let id = RequestId(self.0.entropy.id16());
            done(group, propose(&self.0, group, id, actor, op).await?)?;
            count += rewrapped;
        }
    }

    pub(super) async fn console_link(
        &self,
        request: Request<wire::ConsoleLinkRequest>,
    ) -> Result<wire::ConsoleLinkResponse, Status> {
        let caller = self.0.allow_known(&request, Operation::ConsoleLink).await?;
        let (token, expires_us) = self.0.console.link(caller, self.0.clock.now_us());
        let url = format!("https://{}/?t={token}", self.0.row.https_address);
        Ok(wire::ConsoleLinkResponse { url, expires_us })
    }
}

/// Whether a group wraps these keys anew: it refuses all of them where one was changed meanwhile.
fn done(group: GroupId, outcome: Outcome) -> Result<(), Status> {
    match outcome.result {
        Some(Answer::Done(_)) => Ok(()),
        Some(Answer::Refusal(refusal)) => {
            let detail = format!("group {group} keeps its keys as they were: {}", refusal.detail);
            Err(status(ErrorCode::VersionConflict, detail))
        }
        other => Err(internal(format!("group {group} answered {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::command::{Done, Refusal};
    use tonic::Code;

    use super::*;

    /// The old cluster key must not look free to go.
    #[test]
    fn keys_that_a_group_refused_are_not_counted_as_rewrapped() {
        let outcome = |result| Outcome { result };
        let group = GroupId(3);
        done(group, outcome(Some(Answer::Done(Done::default())))).expect("wrapped anew");
        let refusal = Refusal { detail: "key 07 is not held".to_owned(), ..Refusal::default() };
        let refused = done(group, outcome(Some(Answer::Refusal(refusal)))).expect_err("refused");
        assert_eq!(i32::from(refused.code()), ErrorCode::VersionConflict.grpc_code());
        assert!(refused.message().contains("group 3"), "{refused:?}");
        assert!(refused.message().contains("key 07 is not held"), "{refused:?}");
        assert_eq!(done(group, outcome(None)).expect_err("no answer").code(), Code::Internal);
    }
}
