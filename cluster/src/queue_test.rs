use dtm_types::command::command::Op;
use dtm_types::command::{AppendBatch, Command, OpenSession, PutKey};
use dtm_types::format::{EntryBody, HeaderA};
use prost::Message;

use super::*;

const BYTES_MAX: usize = 80 << 10;
const OWN: usize = BYTES_MAX / OWN_PART;
const SHARED: usize = BYTES_MAX - Lane::COUNT * OWN;
const SEALED: usize = 1 << 10;

fn command(op: Op) -> Bytes {
    let command = Command { request_id: vec![2; 16].into(), op: Some(op), actor: None };
    command.encode_to_vec().into()
}

fn batch(priority: u32, sealed: usize) -> Bytes {
    let header = HeaderA { version: 1, priority, ..HeaderA::default() };
    let body = EntryBody {
        header_a: header.encode_to_vec().into(),
        sealed: vec![9; sealed].into(),
        ..EntryBody::default()
    };
    command(Op::AppendBatch(AppendBatch { body: Some(body), ..AppendBatch::default() }))
}

fn opening() -> Bytes {
    let open = OpenSession { source: "tinh-01".to_owned(), ..OpenSession::default() };
    command(Op::OpenSession(open))
}

struct Line(Arc<CommandQueue>);

impl Line {
    fn new() -> Self {
        let leader_wait = Duration::from_secs(5);
        Self(CommandQueue::new(GroupId(1), QueueConfig { bytes_max: BYTES_MAX, leader_wait }))
    }

    /// Whether the command was taken.
    fn push(&self, command: Bytes) -> bool {
        let refused = Arc::new(Mutex::new(None));
        let told = Arc::clone(&refused);
        self.0.push(command, Box::new(move |result| *told.lock() = result.err()), false);
        let refused = refused.lock().take();
        match refused {
            None => true,
            Some(ProposeError::Overloaded { .. }) => false,
            Some(other) => panic!("{other}"),
        }
    }

    /// Bytes that a lane takes until it refuses more.
    fn fill(&self, command: &Bytes) -> usize {
        let before = self.0.queued_bytes();
        while self.push(command.clone()) {}
        self.0.queued_bytes() - before
    }
}

fn about(bytes: usize, wanted: usize) -> bool {
    bytes.abs_diff(wanted) <= 2 * SEALED
}

#[tokio::test]
async fn no_lane_fills_the_room_of_another() {
    for first in [3, 2, 1] {
        let line = Line::new();
        assert!(about(line.fill(&batch(first, SEALED)), SHARED + OWN), "priority {first}");
        for other in [3, 2, 1].into_iter().filter(|other| *other != first) {
            assert!(about(line.fill(&batch(other, SEALED)), OWN), "{other} behind {first}");
        }
        let openings = line.fill(&opening());
        assert!(about(openings, OWN), "openings behind {first}: {openings}");
        assert!(line.0.queued_bytes() <= BYTES_MAX);
    }
}

#[tokio::test]
async fn answers_give_room_back_to_their_lane() {
    let line = Line::new();
    line.fill(&batch(3, SEALED));
    line.fill(&batch(2, SEALED));
    let taken = line.0.take(usize::MAX);
    assert!(!line.push(batch(2, SEALED)), "what is in flight still takes room");
    for (_, item) in taken {
        line.0.answer(item, Ok(Outcome::default()));
    }
    assert_eq!(line.0.queued_bytes(), 0);
    assert!(about(line.fill(&batch(2, SEALED)), SHARED + OWN));
}

#[tokio::test]
async fn a_lane_that_holds_nothing_takes_one_command_of_any_size() {
    let line = Line::new();
    line.fill(&batch(3, SEALED));
    assert!(line.push(batch(2, 2 * BYTES_MAX)));
    assert!(!line.push(batch(2, 1)));
    assert!(line.push(opening()));
}

// holds: LIVE-1
#[tokio::test]
async fn a_command_that_no_log_holds_is_refused_at_once() {
    let line = Line::new();
    let (sender, told) = tokio::sync::oneshot::channel();
    let reply = Box::new(move |result| drop(sender.send(result)));
    line.0.push(batch(2, bundle::COMMAND_BYTES_MAX), reply, false);
    let refused = told.await.expect("answered").expect_err("refused");
    let ProposeError::TooLarge { bytes_max, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*bytes_max, bundle::COMMAND_BYTES_MAX);
    assert!(!refused.retryable());
    assert!(line.push(batch(2, 1 << 20)), "its neighbours go on");
}

#[tokio::test]
async fn a_session_opens_ahead_of_the_batches_that_wait() {
    let line = Line::new();
    let key = command(Op::PutKey(PutKey::default()));
    let waiting = [batch(2, SEALED), batch(3, SEALED), opening(), batch(2, SEALED), key];
    waiting.iter().for_each(|command| assert!(line.push(command.clone())));
    let taken = line.0.take(usize::MAX);
    let order: Vec<u64> = taken.iter().map(|(number, _)| *number).collect();
    assert_eq!(order, [2, 4, 1, 0, 3]);
    // Unwritten they return to their places.
    line.0.put_back(taken);
    let again: Vec<u64> = line.0.take(usize::MAX).iter().map(|(number, _)| *number).collect();
    assert_eq!(again, [2, 4, 1, 0, 3]);
}
