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
        let Some(bytes) = &entry.bundle else { continue };
        let Some(&version) = bytes.first() else { continue };
        let Ok(bundle) = bundle::decode_up_to(version, bytes) else { continue };
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

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Write};
    use std::sync::Arc;

    use dtm_types::command::{AppendBatch, Appended, OpenSession, Refusal, RefusalKind};
    use dtm_types::format::EntryBody;
    use parking_lot::Mutex;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use super::*;

    const GROUP: GroupId = GroupId(3);

    /// Keeps events of this level and above, a line each.
    struct Listener(Level, Arc<Mutex<Vec<String>>>);

    impl Subscriber for Listener {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= self.0
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut line = Line(event.metadata().target().to_owned());
            event.record(&mut line);
            self.1.lock().push(line.0);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, " {field}={value:?}").expect("a string grows");
        }
    }

    /// What is logged meanwhile.
    fn logged(level: Level, run: impl FnOnce()) -> Vec<String> {
        let lines = Arc::default();
        let listener = Listener(level, Arc::clone(&lines));
        tracing::subscriber::with_default(listener, run);
        std::mem::take(&mut *lines.lock())
    }

    fn batch() -> Command {
        let header = HeaderA {
            source: "tinh-01".to_owned(),
            stream: "main".to_owned(),
            session: 7,
            first_sequence: 301,
            last_sequence: 340,
            ..HeaderA::default()
        };
        let body = EntryBody {
            header_a: header.encode_to_vec().into(),
            sealed: b"SealedBytes".to_vec().into(),
            ..EntryBody::default()
        };
        let append = AppendBatch { body: Some(body), ..AppendBatch::default() };
        let request_id = vec![0xab; 16].into();
        Command { request_id, op: Some(Op::AppendBatch(append)), actor: None }
    }

    fn open() -> Command {
        let open = OpenSession {
            source: "tinh-01".to_owned(),
            stream: "main".to_owned(),
            ..OpenSession::default()
        };
        let request_id = vec![0xcd; 16].into();
        Command { request_id, op: Some(Op::OpenSession(open)), actor: None }
    }

    fn tell() {
        let (batch, open) = (batch().encode_to_vec().into(), open().encode_to_vec().into());
        if !are_logged() {
            return;
        }
        forwarded(GROUP, &batch);
        bundled(GROUP, &open, 2, 900);
        let mut builder = bundle::Builder::new(1, &[7; 16], 64);
        [&batch, &open].into_iter().for_each(|command: &Bytes| builder.push(command));
        let entries = [
            Committed { index: 41, bundle: None },
            Committed { index: 42, bundle: Some(builder.finish()) },
        ];
        let stored = Appended { acked_through: 340, leaf_index: 90, ..Appended::default() };
        let late = Refusal { kind: RefusalKind::Superseded.into(), ..Refusal::default() };
        let outcomes = [Answer::Appended(stored), Answer::Refusal(late)]
            .map(|result| Outcome { result: Some(result) });
        applied(GROUP, &entries, &[Vec::new(), outcomes.to_vec()]);
    }

    #[test]
    fn a_request_has_one_id_on_every_line_and_none_of_its_content() {
        let lines = logged(Level::DEBUG, tell);
        let [forwarded, bundled, stored, refused] = &lines[..] else { panic!("{lines:#?}") };
        let batch = "request_id=abababab-abab-abab-abab-abababababab operation=\"append_batch\"";
        let of_batch = "source=\"tinh-01\" stream=\"main\" session=7";
        for line in [forwarded, stored] {
            assert!(line.contains(REQUEST_LOG) && line.contains(batch), "{line}");
            assert!(line.contains("group=3") && line.contains(of_batch), "{line}");
        }
        let entry = "index=42 ordinal=0";
        let outcome = "first=301 last=340 outcome=\"stored\" leaf=90";
        assert!(stored.contains(entry) && stored.contains(outcome), "{stored}");
        let open = "request_id=cdcdcdcd-cdcd-cdcd-cdcd-cdcdcdcdcdcd operation=\"open_session\"";
        assert!(bundled.contains(open) && bundled.contains("bundle_bytes=900"), "{bundled}");
        assert!(refused.contains(open) && refused.contains("ordinal=1"), "{refused}");
        assert!(refused.contains("outcome=\"REFUSAL_KIND_SUPERSEDED\""), "{refused}");
        assert!(!lines.concat().contains("Sealed"), "{lines:#?}");
    }

    #[test]
    fn nothing_is_told_unless_somebody_listens() {
        assert!(logged(Level::INFO, tell).is_empty());
        assert!(!are_logged());
    }
}
