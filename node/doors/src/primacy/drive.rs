//! One operation on the register, driven over the network: asks, asks again, gives up in time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_cluster::{AcceptorPort, ClusterNode, PeerNode};
use dtm_register::{Answer, Outcome, Proposer, ProposerId, Question, Send, Step};
use dtm_types::NodeId;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::Primacy;

/// An acceptor answers within that.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// After a conflict: a moment of random length up to this.
const CONFLICT_PAUSE_MS_MAX: u64 = 400;
const RESEND_PAUSE: Duration = Duration::from_millis(300);

impl Primacy {
    /// A name that was never used for an operation.
    pub fn proposer_id(&self) -> ProposerId {
        let mut id = [0; 16];
        self.entropy.fill(&mut id);
        ProposerId(id)
    }

    fn pause(&self) -> Duration {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        Duration::from_millis(50 + u64::from_le_bytes(bytes) % CONFLICT_PAUSE_MS_MAX)
    }

    /// Asks one acceptor, this node's own without the network.
    pub async fn ask(
        self: &Arc<Self>,
        cluster: &ClusterNode,
        node: NodeId,
        question: &Question,
    ) -> Option<Answer> {
        let bytes = question.encode();
        let answer = if node == self.node {
            let own = Arc::clone(self);
            let answered = tokio::task::spawn_blocking(move || own.answer(own.node, &bytes)).await;
            Bytes::from(answered.ok()?.ok()?)
        } else {
            let peer = cluster.peer(node).unwrap_or(PeerNode { node, ..PeerNode::default() });
            cluster.ask_acceptor(&peer, Bytes::from(bytes), ANSWER_WITHIN).await.ok()?
        };
        Answer::decode(&answer).ok()
    }

    /// Carries an operation through, or gives it up after `within`.
    pub async fn drive(
        self: &Arc<Self>,
        cluster: &ClusterNode,
        mut proposer: Proposer,
        within: Duration,
    ) -> Outcome {
        let deadline = Instant::now() + within;
        let mut asked = FuturesUnordered::new();
        let ask = async |send: Send| {
            let answer = self.ask(cluster, send.to.node, &send.question).await;
            (send.to.node, answer)
        };
        asked.extend(proposer.again().into_iter().map(&ask));
        loop {
            let step = tokio::select! {
                Some((node, answer)) = asked.next() => match answer {
                    Some(answer) => proposer.on_answer(node, &answer),
                    None => Step::Ask(Vec::new()),
                },
                () = tokio::time::sleep(RESEND_PAUSE) => Step::Ask(proposer.resend()),
                () = tokio::time::sleep_until(deadline) => return proposer.give_up(),
            };
            match step {
                Step::Ask(sends) => asked.extend(sends.into_iter().map(&ask)),
                Step::Conflict => {
                    tokio::time::sleep(self.pause()).await;
                    asked.extend(proposer.again().into_iter().map(&ask));
                }
                Step::Done(outcome) => return *outcome,
            }
            if Instant::now() >= deadline {
                return proposer.give_up();
            }
        }
    }
}
