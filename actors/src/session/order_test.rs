//! What a client sends keeps its order: resends, new records, and declarations of loss.

use std::sync::Arc;

use dtm_machine::MemoryGroups;
use dtm_machine::seams::{Proposer, Reply};
use dtm_proto::ingest;
use dtm_proto::ingest::publish_response::Response;
use dtm_types::GroupId;
use dtm_types::command::Command;
use dtm_types::command::command::Op;
use dtm_types::format::HeaderA;
use parking_lot::Mutex;
use prost::Message;

use super::fixture::{groups, next, node, open, send, sends};
use crate::outbox::Outbox;
use crate::treatment::Full;

/// What was kept back, in order.
type Kept = Vec<(GroupId, bytes::Bytes, Reply)>;

/// Keeps batches back while it is shut; notes the sequences of all that were proposed.
struct Gate {
    groups: MemoryGroups,
    kept: Mutex<Option<Kept>>,
    batches: Mutex<Vec<(u64, u64)>>,
}

impl Gate {
    fn shut(&self) {
        *self.kept.lock() = Some(Vec::new());
    }

    fn open(&self) {
        for (group, command, reply) in self.kept.lock().take().expect("it was shut") {
            self.groups.propose(group, command, reply);
        }
    }
}

impl Proposer for Gate {
    fn propose(&self, group: GroupId, command: bytes::Bytes, reply: Reply) {
        let decoded = Command::decode(command.clone()).expect("a command");
        if let Some(Op::AppendBatch(append)) = decoded.op {
            let header = append.body.expect("a body").header_a;
            let header = HeaderA::decode(header).expect("a header");
            self.batches.lock().push((header.first_sequence, header.last_sequence));
            if let Some(kept) = self.kept.lock().as_mut() {
                return kept.push((group, command, reply));
            }
        }
        self.groups.propose(group, command, reply);
    }
}

async fn gated() -> (Arc<Gate>, crate::sources::SourcesHandle) {
    let (groups, clock) = groups();
    let gate = Arc::new(Gate { groups, kept: Mutex::default(), batches: Mutex::default() });
    let sources = node(Arc::clone(&gate) as _, clock, Arc::new(Full)).await;
    (gate, sources)
}

const ONE: &str = r#"{"n":1}"#;

async fn acked_through(answers: &mut Outbox, through: u64) {
    loop {
        match next(answers).await {
            Ok(Response::Ack(ack)) if ack.acked_through == through => return,
            Ok(Response::Ack(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

// holds: ING-2, ING-3
#[tokio::test]
async fn resent_records_and_new_ones_never_share_a_batch() {
    let (gate, sources) = gated().await;
    let (session, mut answers) = open(&sources, "main").await;
    for sequence in 1..=10 {
        sends(&session, &mut answers, sequence).await;
    }
    gate.shut();
    gate.batches.lock().clear();
    // As many as may fly, then a frame that merges into the batch that stays open.
    for first in [1, 3, 5, 7, 9, 11] {
        send(&session, first, &[ONE, ONE]).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    gate.open();
    acked_through(&mut answers, 12).await;
    let batches = gate.batches.lock().clone();
    assert!(batches.contains(&(11, 12)), "{batches:?}");
    assert!(batches.iter().all(|(first, last)| *last <= 10 || *first > 10), "{batches:?}");
}

// holds: ING-3
#[tokio::test]
async fn a_declaration_of_loss_keeps_its_place() {
    let (gate, sources) = gated().await;
    let (session, mut answers) = open(&sources, "main").await;
    sends(&session, &mut answers, 1).await;
    gate.shut();
    send(&session, 2, &[ONE]).await;
    let lost = ingest::Lost { from_sequence: 3, to_sequence: 9 };
    session.lost(lost).await.expect("taken");
    send(&session, 10, &[ONE, ONE]).await;
    session.close(false).expect("taken");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    gate.open();
    acked_through(&mut answers, 11).await;
    let Ok(Response::Closed(closed)) = next(&mut answers).await else { panic!("not closed") };
    assert_eq!(closed.acked_through, 11);
}

#[tokio::test]
async fn a_loss_that_no_stream_can_have_is_refused() {
    let (_gate, sources) = gated().await;
    let (session, _answers) = open(&sources, "main").await;
    for (from_sequence, to_sequence) in [(0, 0), (0, 5), (5, 4)] {
        let error = session.lost(ingest::Lost { from_sequence, to_sequence }).await;
        assert_eq!(error.expect_err("refused").code(), dtm_types::ErrorCode::InvalidArgument);
    }
}
