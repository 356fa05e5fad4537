//! Commands of a life that is over proposed again, as they were: the sealed bytes, and with them the
//! ledger's leaves, are those that the source was told of. Apply decides as ever, so that nothing is
//! stored twice; a stream that its source opened anew meanwhile is left to the source. It may be
//! repeated, also from another node's file of the same life: it goes on behind the open that holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use dtm_cluster::{LeftFile, LeftStream};
use dtm_doors::Shared;
use dtm_machine::seams::{ProposeError, Proposer};
use dtm_types::command::command::Op;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{AppendBatch, Bundle, Command, Outcome};
use dtm_types::format::{Cursor, HeaderA, WrappedKey};
use dtm_types::{GroupId, bundle};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::{Left, Sent, Stream, cursor, unread};

/// Commands that were read and wait to be proposed.
const READ_AHEAD: usize = 64;
/// A proposal that meets no leader is made again.
const TRIES_MAX: usize = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Proposes what a file holds, command by command; returns what the group took, or said it holds.
///
/// # Errors
/// `DataLoss` where the file is damaged; `Unavailable` where a group takes nothing: it may be repeated.
pub(crate) async fn resend(shared: &Arc<Shared>, left: &Left) -> Result<Sent, Status> {
    let group = left.head.group;
    let mut courses = courses(shared, left).await?;
    if courses.is_empty() {
        return Ok(Sent::new());
    }
    let sources: BTreeSet<String> = courses.keys().map(|(source, _)| source.clone()).collect();
    let mut keys = BTreeSet::new();
    let mut commands = commands(left.path.clone());
    while let Some(command) = commands.recv().await {
        let command = command.map_err(unread)?;
        if let Some(key) = key_of(&command) {
            if sources.contains(&key.source)
                && is_beaten(key, &propose(shared, group, &command).await?)
            {
                // Another key of that source and month came first: under this one nothing is read.
                keys.insert(key.key_id.clone());
            }
            continue;
        }
        let Some(stream) = stream_of(&command) else { continue };
        let Some(course) = courses.get_mut(&stream) else { continue };
        let header = header_of(&command);
        if !course.takes(&command, header.as_ref()) {
            continue;
        }
        if header.as_ref().is_some_and(|header| keys.contains(&header.key_id)) {
            course.is_over = true;
            continue;
        }
        let outcome = propose(shared, group, &command).await?;
        course.follow(header.as_ref(), &outcome);
    }
    Ok(courses.into_iter().map(|(stream, course)| (stream, course.sent)).collect())
}

/// Streams that are not their sources' again.
async fn courses(shared: &Arc<Shared>, left: &Left) -> Result<BTreeMap<Stream, Course>, Status> {
    let (group, mut courses) = (left.head.group, BTreeMap::new());
    for (stream, of) in &left.summary.streams {
        let (source, name) = stream;
        if !left.here.contains(source) {
            tracing::warn!(%group, %source, stream = %name,
                "the source is not placed in this group any more: nothing of it is sent again");
            continue;
        }
        let cursor = cursor(shared, group, stream).await?;
        match Course::of(of, &cursor) {
            Some(course) => {
                courses.insert(stream.clone(), course);
            }
            None => tracing::warn!(%group, %source, stream = %name,
                "the source opened it anew: nothing of it is sent again"),
        }
    }
    Ok(courses)
}

/// How a stream goes on in the life in force.
#[derive(Debug)]
struct Course {
    /// The open that holds, where it is one of the file: what lies before it was proposed before.
    after: Option<Bytes>,
    /// Its session now.
    session: u64,
    /// Its cursor when this began.
    through: u64,
    /// A command was not taken: the next ones have nothing to go on from.
    is_over: bool,
    /// Sequences that the group took, or said it holds.
    sent: Vec<(u64, u64)>,
}

impl Course {
    /// Where nobody opened the stream in the life in force, or the last to do so was this file or
    /// another node's of the same life; `None` where its source did.
    fn of(left: &LeftStream, cursor: &Cursor) -> Option<Self> {
        let opened_by = Some(&cursor.opened_by).filter(|request| !request.is_empty());
        let after = opened_by.filter(|request| left.opens.contains(request)).cloned();
        let is_ours = after.is_some() || cursor.session == left.before;
        let (session, through) = (cursor.session, cursor.through);
        is_ours.then_some(Self { after, session, through, is_over: false, sent: Vec::new() })
    }

    /// Whether a command is proposed. Not what was, what the cursor is past (it is compared), and
    /// what came too late in its own life already.
    fn takes(&mut self, command: &Command, header: Option<&HeaderA>) -> bool {
        let is_open = matches!(command.op, Some(Op::OpenSession(_)));
        if is_open && self.after.as_ref() == Some(&command.request_id) {
            self.after = None;
        }
        if self.is_over || self.after.is_some() {
            return false;
        }
        match (&command.op, header) {
            (_, Some(header)) => {
                header.session >= self.session && header.last_sequence > self.through
            }
            (Some(Op::DeclareLost(lost)), _) => {
                lost.session >= self.session && lost.to_sequence > self.through
            }
            (Some(Op::CloseSession(close)), _) => close.session >= self.session,
            _ => is_open,
        }
    }

    fn follow(&mut self, header: Option<&HeaderA>, outcome: &Outcome) {
        match (&outcome.result, header) {
            (Some(Answer::SessionOpened(opened)), _) => {
                // Its source opened it meanwhile.
                self.is_over = opened.session > self.session + 1;
                self.session = opened.session;
            }
            (Some(Answer::Appended(appended)), Some(header)) if appended.unverified == 0 => {
                self.note(header.first_sequence, header.last_sequence);
            }
            (Some(Answer::Refusal(_)) | None, _) => self.is_over = true,
            _ => {}
        }
    }

    /// What is stored is so in the order of its sequences; the same ones again are noted already.
    fn note(&mut self, from: u64, to: u64) {
        match self.sent.last_mut() {
            Some(last) if last.1 + 1 == from => last.1 = to,
            Some(last) if from <= last.1 => {}
            _ => self.sent.push((from, to)),
        }
    }
}

fn key_of(command: &Command) -> Option<&WrappedKey> {
    match &command.op {
        Some(Op::PutKey(put)) => put.key.as_ref(),
        _ => None,
    }
}

/// Whether another key holds in its place.
fn is_beaten(key: &WrappedKey, outcome: &Outcome) -> bool {
    let Some(Answer::KeyHeld(held)) = &outcome.result else { return false };
    held.key.as_ref().is_none_or(|held| held.key_id != key.key_id)
}

/// Whose stream a command changes.
fn stream_of(command: &Command) -> Option<Stream> {
    match command.op.as_ref()? {
        Op::OpenSession(open) => Some((open.source.clone(), open.stream.clone())),
        Op::CloseSession(close) => Some((close.source.clone(), close.stream.clone())),
        Op::DeclareLost(lost) => Some((lost.source.clone(), lost.stream.clone())),
        Op::AppendBatch(_) => header_of(command).map(|header| (header.source, header.stream)),
        _ => None,
    }
}

fn header_of(command: &Command) -> Option<HeaderA> {
    let Some(Op::AppendBatch(AppendBatch { body: Some(body), .. })) = &command.op else {
        return None;
    };
    HeaderA::decode(body.header_a.clone()).ok()
}

/// All commands of a file, read ahead of who takes them.
fn commands(path: PathBuf) -> mpsc::Receiver<std::io::Result<Command>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        let read = || -> std::io::Result<()> {
            for entry in LeftFile::open(&path)? {
                // Of Raft itself, or of a version that is not known.
                let Ok(Bundle { commands, .. }) = bundle::decode(&entry?.payload) else { continue };
                for command in commands {
                    if sender.blocking_send(Ok(command)).is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        if let Err(error) = read() {
            sender.blocking_send(Err(error)).ok();
        }
    });
    receiver
}

async fn propose(
    shared: &Arc<Shared>,
    group: GroupId,
    command: &Command,
) -> Result<Outcome, Status> {
    let bytes = Bytes::from(command.encode_to_vec());
    let mut last = String::new();
    for _ in 0..TRIES_MAX {
        let (reply, outcome) = oneshot::channel();
        let reply = Box::new(move |result: Result<Outcome, ProposeError>| {
            reply.send(result).ok();
        });
        shared.cluster.propose(group, bytes.clone(), reply);
        match outcome.await {
            Ok(Ok(outcome)) => return Ok(outcome),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => "no answer".clone_into(&mut last),
        }
        // Proposed twice it is stored once.
        tokio::time::sleep(PAUSE).await;
    }
    Err(Status::unavailable(format!("group {group}: {last}")))
}

#[cfg(test)]
mod tests {
    use dtm_types::command::{
        Appended, CloseSession, DeclareLost, OpenSession, Refusal, SessionOpened,
    };

    use super::*;

    const SOURCES: &[u8] = b"another";

    fn command(request: &'static [u8], op: Op) -> Command {
        Command { request_id: Bytes::from_static(request), op: Some(op), ..Command::default() }
    }

    fn open(request: &'static [u8]) -> Command {
        command(request, Op::OpenSession(OpenSession::default()))
    }

    fn header(session: u64, first_sequence: u64, last_sequence: u64) -> HeaderA {
        HeaderA { session, first_sequence, last_sequence, ..HeaderA::default() }
    }

    fn append() -> Command {
        command(b"batch", Op::AppendBatch(AppendBatch::default()))
    }

    fn opened(session: u64) -> Outcome {
        let opened = SessionOpened { session, ..SessionOpened::default() };
        Outcome { result: Some(Answer::SessionOpened(opened)) }
    }

    fn appended(unverified: u64) -> Outcome {
        let appended = Appended { unverified, ..Appended::default() };
        Outcome { result: Some(Answer::Appended(appended)) }
    }

    fn cursor(session: u64, through: u64, opened_by: &'static [u8]) -> Cursor {
        let opened_by = Bytes::from_static(opened_by);
        Cursor { session, through, opened_by, ..Cursor::default() }
    }

    /// Sessions 5 and 6 of a stream whose session 4 is older than the file.
    fn left() -> LeftStream {
        let opens = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        LeftStream { opens, before: 4, ..LeftStream::default() }
    }

    #[test]
    fn it_may_be_repeated_until_the_source_opens_the_stream_anew() {
        let begun = |cursor: &Cursor| Course::of(&left(), cursor).map(|course| course.after);
        assert_eq!(begun(&cursor(4, 9, b"before")), Some(None), "nobody opened it");
        assert_eq!(begun(&cursor(5, 12, b"one")), Some(Some(Bytes::from_static(b"one"))));
        assert_eq!(begun(&cursor(6, 15, b"two")), Some(Some(Bytes::from_static(b"two"))));
        for session in 5..8 {
            assert_eq!(begun(&cursor(session, 15, SOURCES)), None, "{session}");
            assert_eq!(begun(&cursor(session, 15, b"")), None, "{session}");
        }
    }

    #[test]
    fn a_repetition_goes_on_behind_the_open_that_holds() {
        let mut course = Course::of(&left(), &cursor(6, 15, b"two")).expect("ours");
        assert!(!course.takes(&open(b"one"), None), "it would fence the second one");
        assert!(!course.takes(&append(), Some(&header(5, 10, 12))));
        assert!(course.takes(&open(b"two"), None));
        course.follow(None, &opened(6));
        assert!(!course.takes(&append(), Some(&header(6, 13, 15))), "the cursor is past it");
        let lost = DeclareLost { session: 6, to_sequence: 15, ..DeclareLost::default() };
        assert!(!course.takes(&command(b"lost", Op::DeclareLost(lost)), None));
        assert!(!course.takes(&append(), Some(&header(5, 16, 18))), "it came too late");
        let close = CloseSession { session: 6, ..CloseSession::default() };
        assert!(course.takes(&command(b"close", Op::CloseSession(close)), None));
        assert!(course.takes(&append(), Some(&header(6, 16, 18))));
        course.follow(Some(&header(6, 16, 18)), &appended(0));
        course.follow(Some(&header(6, 19, 20)), &appended(0));
        course.follow(Some(&header(6, 16, 18)), &appended(0));
        course.follow(Some(&header(6, 21, 22)), &appended(1));
        assert_eq!((course.sent.as_slice(), course.is_over), (&[(16, 20)][..], false));
    }

    #[test]
    fn a_refusal_or_a_foreign_open_ends_a_stream() {
        let begun = || Course::of(&left(), &cursor(4, 9, b"")).expect("untouched");
        let mut course = begun();
        assert!(course.takes(&open(b"one"), None));
        course.follow(None, &opened(5));
        assert!(course.takes(&open(b"one"), None));
        course.follow(None, &opened(5));
        assert!(!course.is_over, "a request opens one session");
        course.follow(None, &opened(7));
        assert!(course.is_over);
        let mut course = begun();
        course.follow(None, &Outcome { result: Some(Answer::Refusal(Refusal::default())) });
        assert!(!course.takes(&open(b"one"), None));
    }
}
