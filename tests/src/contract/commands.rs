//! A command that every group takes and that can be told from others: a count of refusals.

use bytes::Bytes;
use dtm_machine::seams::{ProposeError, Proposer};
use dtm_types::command::command::Op;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Actor, ActorKind, Command, CountRefusals, Done, Outcome, RefusalCount};
use dtm_types::{GroupId, bundle};
use prost::Message;
use tokio::sync::oneshot;

/// The command with this text.
pub fn command(text: &str) -> Bytes {
    let count = RefusalCount { prefix: text.to_owned(), code: "unauthenticated".into(), count: 1 };
    let actor = Some(Actor { kind: ActorKind::Node.into(), id: vec![1; 16].into() });
    let op = Some(Op::CountRefusals(CountRefusals { counts: vec![count] }));
    let request_id = Bytes::from(format!("{text:>16}").into_bytes());
    Command { request_id, actor, op }.encode_to_vec().into()
}

/// Texts of the commands in a bundle.
pub fn texts(bytes: &Bytes) -> Vec<String> {
    let commands = bundle::decode(bytes).expect("committed bundles decode").commands;
    let counts = commands.into_iter().filter_map(|command| match command.op {
        Some(Op::CountRefusals(counts)) => Some(counts.counts),
        _ => None,
    });
    counts.flatten().map(|count| count.prefix).collect()
}

/// Hands a command over; the answer comes through the receiver.
pub fn begin(
    proposer: &dyn Proposer,
    group: GroupId,
    command: Bytes,
) -> oneshot::Receiver<Result<Outcome, ProposeError>> {
    let (sender, receiver) = oneshot::channel();
    let reply = Box::new(move |outcome| {
        sender.send(outcome).expect("the suite waits for each answer");
    });
    proposer.propose(group, command, reply);
    receiver
}

/// The outcome of an accepted command.
pub fn done(outcome: Outcome) -> Done {
    match outcome.result {
        Some(Answer::Done(done)) => done,
        other => panic!("a count of refusals is always taken: {other:?}"),
    }
}
