//! Commands of a life that is over proposed again, as they were: the sealed bytes, and with them the
//! ledger's leaves, are those that the source was told of. Apply decides as ever, so that nothing is
//! stored twice; a stream that its source opened anew meanwhile is left to the source.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use dtm_cluster::LeftFile;
use dtm_machine::seams::{ProposeError, Proposer};
use dtm_types::command::command::Op;
use dtm_types::command::{AppendBatch, Bundle, Command, Outcome, outcome};
use dtm_types::format::HeaderA;
use dtm_types::{GroupId, bundle};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::{cursor, unread};
use crate::services::Shared;

/// Commands that were read and wait to be proposed.
const READ_AHEAD: usize = 64;
/// A proposal that meets no leader is made again.
const TRIES_MAX: usize = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

type Stream = (String, String);

/// Proposes what a file holds, command by command. What of it is there afterwards, the cursors say.
///
/// # Errors
/// `DataLoss` where the file is damaged; `Unavailable` where a group takes nothing: it may be repeated.
pub(crate) async fn resend(shared: &Arc<Shared>, path: PathBuf) -> Result<(), Status> {
    let group = LeftFile::open(&path).map_err(unread)?.head.group;
    if group.is_meta() {
        return Ok(());
    }
    let mut streams = untouched(shared, group, path.clone()).await?;
    let mut keys = BTreeSet::new();
    let mut commands = commands(path);
    while let Some(command) = commands.recv().await {
        let command = command.map_err(unread)?;
        let Some(stream) = stream_of(&command) else {
            if let Some(Op::PutKey(put)) = &command.op {
                let outcome = propose(shared, group, &command).await?;
                let own = put.key.as_ref().map(|key| key.key_id.clone());
                if let Some(outcome::Result::KeyHeld(held)) = outcome.result
                    && held.key.map(|key| key.key_id) != own
                {
                    // Another key of that source and month came first: under this one nothing is read.
                    keys.extend(own);
                }
            }
            continue;
        };
        if !streams.contains(&stream) {
            continue;
        }
        let is_sealed_for_nobody =
            header_of(&command).is_some_and(|header| keys.contains(&header.key_id));
        let is_taken = !is_sealed_for_nobody && {
            let outcome = propose(shared, group, &command).await?;
            !matches!(outcome.result, Some(outcome::Result::Refusal(_)))
        };
        if !is_taken {
            streams.remove(&stream);
        }
    }
    Ok(())
}

/// Streams that no session was opened on in the life in force: the next of these commands goes on where
/// the life that is over had come to.
async fn untouched(
    shared: &Arc<Shared>,
    group: GroupId,
    path: PathBuf,
) -> Result<BTreeSet<Stream>, Status> {
    // Of each stream: openings before its first batch, and the session of that one.
    let mut first: BTreeMap<Stream, (u64, Option<u64>)> = BTreeMap::new();
    let mut commands = commands(path);
    while let Some(command) = commands.recv().await {
        let command = command.map_err(unread)?;
        let Some(stream) = stream_of(&command) else { continue };
        let (opened, session) = first.entry(stream).or_default();
        match (&command.op, header_of(&command)) {
            (Some(Op::OpenSession(_)), _) if session.is_none() => *opened += 1,
            (_, Some(header)) if session.is_none() => *session = Some(header.session),
            _ => {}
        }
    }
    let mut streams = BTreeSet::new();
    for ((source, stream), (opened, session)) in first {
        let held = cursor(shared, group, (&source, &stream)).await?.session;
        if session == Some(held + opened) {
            streams.insert((source, stream));
        }
    }
    Ok(streams)
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
