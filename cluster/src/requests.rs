//! What the log says of single requests on their way: forwarded, in a bundle, committed and applied
//! (docs/running.md tells how to follow one). Level debug, target [`REQUEST_LOG`].
//!
//! Nothing is decoded or formatted here unless somebody listens: callers on the hot path ask
//! [`are_logged`] first, which is one atomic read.

use bytes::Bytes;
use dtm_machine::Committed;
use dtm_types::command::command::Op;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Command, Outcome};
use dtm_types::format::HeaderA;
use dtm_types::{GroupId, REQUEST_LOG, RequestId, bundle, operation};
use prost::Message;

/// Whether somebody listens.
pub(crate) fn are_logged() -> bool {
    tracing::enabled!(target: REQUEST_LOG, tracing::Level::DEBUG)
}

/// A command of this node is sent to the node that leads its group.
pub(crate) fn forwarded(group: GroupId, command: &Bytes) {
    let subject = Subject::decoded(command);
    tracing::debug!(
        target: REQUEST_LOG,
        request_id = %subject.request_id,
        operation = subject.operation,
        group = group.0,
        source = subject.source,
        stream = subject.stream,
        session = subject.session,
        "request forwarded to the leader"
    );
}

/// A command is in a bundle that the leader, this node, hands to Raft.
pub(crate) fn bundled(group: GroupId, command: &Bytes, commands: usize, bytes: usize) {
    let subject = Subject::decoded(command);
    tracing::debug!(
        target: REQUEST_LOG,
        request_id = %subject.request_id,
        operation = subject.operation,
        group = group.0,
        source = subject.source,
        stream = subject.stream,
        session = subject.session,
        bundle_commands = commands,
        bundle_bytes = bytes,
        "request proposed in a bundle"
    );
}

/// Entries are committed, and their rows are written here. After a restart what the rows lack is
/// applied, and told, once more.
pub(crate) fn applied(group: GroupId, entries: &[Committed], outcomes: &[Vec<Outcome>]) {
    for (entry, outcomes) in entries.iter().zip(outcomes) {
        let decoded = entry.bundle.as_ref().map(|bytes| bundle::decode_up_to(bytes[0], bytes));
        let Some(Ok(bundle)) = decoded else { continue };
        for (ordinal, (command, outcome)) in bundle.commands.iter().zip(outcomes).enumerate() {
            let subject = Subject::of(command);
            let (result, leaf) = told(outcome);
            tracing::debug!(
                target: REQUEST_LOG,
                request_id = %subject.request_id,
                operation = subject.operation,
                group = group.0,
                index = entry.index,
                ordinal,
                source = subject.source,
                stream = subject.stream,
                session = subject.session,
                first = subject.first,
                last = subject.last,
                outcome = result,
                leaf,
                "request committed and applied"
            );
        }
    }
}

/// What a command is about; nothing of its content.
#[derive(Debug, Default, PartialEq, Eq)]
struct Subject {
    request_id: RequestId,
    operation: &'static str,
    source: Option<String>,
    stream: Option<String>,
    session: Option<u64>,
    first: Option<u64>,
    last: Option<u64>,
}

impl Subject {
    /// Of bytes that were checked when the command was taken.
    fn decoded(command: &Bytes) -> Self {
        Command::decode(command.clone()).map(|command| Self::of(&command)).unwrap_or_default()
    }

    fn of(command: &Command) -> Self {
        let op = command.op.as_ref();
        let named = |source: &str, stream: &str, session| Self {
            source: Some(source.to_owned()),
            stream: Some(stream.to_owned()),
            session,
            ..Self::default()
        };
        let about = match op {
            Some(Op::AppendBatch(append)) => {
                let header = append.body.as_ref().map(|body| body.header_a.clone());
                let header = HeaderA::decode(header.unwrap_or_default()).unwrap_or_default();
                Self {
                    first: Some(header.first_sequence),
                    last: Some(header.last_sequence),
                    ..named(&header.source, &header.stream, Some(header.session))
                }
            }
            Some(Op::OpenSession(open)) => named(&open.source, &open.stream, None),
            Some(Op::CloseSession(close)) => {
                named(&close.source, &close.stream, Some(close.session))
            }
            Some(Op::DeclareLost(lost)) => Self {
                first: Some(lost.from_sequence),
                last: Some(lost.to_sequence),
                ..named(&lost.source, &lost.stream, Some(lost.session))
            },
            _ => Self::default(),
        };
        let request_id = RequestId::from_slice(&command.request_id).unwrap_or_default();
        Self { request_id, operation: operation(op), ..about }
    }
}

/// An outcome in one word, and its leaf where it has one.
fn told(outcome: &Outcome) -> (&'static str, Option<u64>) {
    match &outcome.result {
        Some(Answer::Appended(appended)) if appended.already => ("already", None),
        Some(Answer::Appended(appended)) => ("stored", Some(appended.leaf_index)),
        Some(Answer::SessionOpened(opened)) => ("opened", Some(opened.leaf_index)),
        Some(Answer::Done(done)) => ("done", Some(done.leaf_index)),
        Some(Answer::KeyHeld(_)) => ("key_held", None),
        Some(Answer::Refusal(refusal)) => (refusal.kind().as_str_name(), None),
        None => ("none", None),
    }
}
