//! The cluster key and links to the page.

use bytes::Bytes;
use dtm_doors::audit::Actor;
use dtm_doors::audit::propose;
use dtm_doors::status::{internal, status};
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView};
use dtm_proto::admin as wire;
use dtm_types::command::admin::Op;
use dtm_types::command::command::Op as Command;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{ClusterRow, Outcome, RewrapKeys, RotateClusterKey};
use dtm_types::{ErrorCode, GroupId, KeyId, RequestId};
use serde_json::json;
use tonic::{Request, Status};

use super::{AdminDoor, Asker};

/// Keys wrapped anew in one command.
const REWRAP_KEYS: usize = 256;

impl AdminDoor {
    /// A new cluster key for new data keys, and every data key wrapped under it. Sealed bytes stay.
    ///
    /// Its two entries come before what they say: before any other node is handed the key, and before
    /// any node wraps under it.
    pub async fn rotate_cluster_key(
        &self,
        request: Request<wire::RotateClusterKeyRequest>,
    ) -> Result<wire::RotateClusterKeyResponse, Status> {
        let asked = request.get_ref();
        let asker =
            self.asker(&request, Operation::RotateClusterKey, asked.context.as_ref()).await?;
        let actor = Actor::of(&asker.caller, asker.address.clone());
        let cluster_key = match self.begin_rotation(&asker).await? {
            Begun::Pending(key) => {
                self.0.hand_out_cluster_key(key).await?;
                self.enter_rotation(&asker, key, true).await?;
                key
            }
            Begun::Before(key) => key,
        };
        self.0.use_cluster_key(cluster_key).await?;
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

    /// Makes a key and enters that a rotation to it begins.
    async fn begin_rotation(&self, asker: &Asker) -> Result<Begun, Status> {
        let made = self.0.keyring.generate(self.0.clock.now_us()).map_err(internal)?;
        self.enter_rotation(asker, made, false).await?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let row = reads::cluster(meta.state.as_ref()).map_err(internal)?.unwrap_or_default();
        begun(&row).ok_or_else(|| internal("meta names no cluster key"))
    }

    /// Enters a step. The first one is the caller's request, the second one follows from it.
    async fn enter_rotation(&self, asker: &Asker, key: KeyId, current: bool) -> Result<(), Status> {
        let mut asker = asker.clone();
        if current {
            asker.request_id = Bytes::new();
        }
        let key_id = Bytes::copy_from_slice(&key.0);
        let detail = json!({"cluster_key": key.to_string(), "current": current});
        let op = Op::RotateClusterKey(RotateClusterKey { key_id, current });
        self.act(asker, op, None, detail).await.map(|_| ())
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

    pub(crate) async fn console_link(
        &self,
        request: Request<wire::ConsoleLinkRequest>,
    ) -> Result<wire::ConsoleLinkResponse, Status> {
        let caller = self.0.allow_known(&request, Operation::ConsoleLink).await?;
        let (token, expires_us) = self.0.console.link(caller, self.0.clock.now_us());
        let url = format!("https://{}/?t={token}", self.0.row.https_address);
        Ok(wire::ConsoleLinkResponse { url, expires_us })
    }
}

/// Where a rotation stands once its beginning is entered.
#[derive(Debug, PartialEq, Eq)]
enum Begun {
    /// This key is to be handed out.
    Pending(KeyId),
    /// The same request was carried out before: this key is the current one.
    Before(KeyId),
}

/// A request that comes again goes on with the key that it began with, not with the one that was made
/// for it now.
fn begun(row: &ClusterRow) -> Option<Begun> {
    let pending = KeyId::from_slice(&row.pending_cluster_key_id).map(Begun::Pending);
    pending.or_else(|| KeyId::from_slice(&row.cluster_key_id).map(Begun::Before))
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

    #[test]
    fn a_rotation_goes_on_with_the_key_that_meta_names() {
        let row = |current: u8, pending: &[u8]| ClusterRow {
            cluster_key_id: vec![current; 16].into(),
            pending_cluster_key_id: pending.to_vec().into(),
            ..ClusterRow::default()
        };
        assert_eq!(begun(&row(1, &[2; 16])), Some(Begun::Pending(KeyId([2; 16]))));
        assert_eq!(begun(&row(1, &[])), Some(Begun::Before(KeyId([1; 16]))));
        assert_eq!(begun(&ClusterRow::default()), None);
    }

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
