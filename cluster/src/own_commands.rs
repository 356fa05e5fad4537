//! Commands of the node itself: what it does in its own name.

use bytes::Bytes;
use dtm_machine::seams::Proposer;
use dtm_types::GroupId;
use dtm_types::command::{Actor, ActorKind, Admin, Command, Outcome, command, outcome};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::lifecycle::ClusterNode;

impl ClusterNode {
    /// An administrative action of the node itself, in meta.
    pub(crate) async fn act(&self, admin: Admin) -> Result<(), Error> {
        let outcome = self.submit(GroupId::META, command::Op::Admin(admin)).await?;
        match outcome.result {
            Some(outcome::Result::Refusal(refusal)) => Err(Error::Refused(refusal.detail)),
            _ => Ok(()),
        }
    }

    /// Proposes one command of the node itself and waits for its outcome.
    pub(crate) async fn submit(&self, group: GroupId, op: command::Op) -> Result<Outcome, Error> {
        let id = Bytes::copy_from_slice(&self.config().node.node.0);
        let actor = Some(Actor { kind: ActorKind::Node.into(), id });
        let request_id = self.next_request_id();
        let command = Command { request_id, actor, op: Some(op) };
        let (sender, receiver) = oneshot::channel();
        let reply = Box::new(move |result| {
            sender.send(result).ok();
        });
        self.propose(group, command.encode_to_vec().into(), reply);
        let lost = |_| Error::Timeout(format!("a command of group {group}"));
        Ok(receiver.await.map_err(lost)??)
    }

    /// Unique as long as boot counters are: no randomness is needed.
    fn next_request_id(&self) -> Bytes {
        let mut hash = Sha256::new();
        hash.update(self.config().node.node.0);
        hash.update(self.config().boot_counter.to_le_bytes());
        hash.update(self.next_request().to_le_bytes());
        Bytes::copy_from_slice(&hash.finalize()[..16])
    }
}
