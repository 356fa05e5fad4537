//! Sessions that go over a limit or reach a node without quorum: what they are told, and that what
//! was not acked is neither lost nor doubled afterwards.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dtm_client::{Error, FrameBuilder, Record, Session, SessionEvent};
use dtm_types::ErrorCode;

use crate::bad_records::{open, open_stream};
use crate::cluster::{Cluster, NODES};
use crate::load::Load;
use crate::readback::judge;
use crate::sources::Source;

const MIB: usize = 1 << 20;
/// An open session is told within 10 s that no majority answers (`propose_for`).
const TOLD_WITHIN: Duration = Duration::from_secs(20);
/// A client that is told when to come back is not kept waiting for longer.
const COME_BACK_MAX: Duration = Duration::from_secs(5);
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// A node that is sent more than it grants keeps at most this, with what else it does meanwhile.
const MEMORY_GROWTH_MAX_KIB: u64 = 192 << 10;

// holds: LIVE-1
// fault: F25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_its_limit_is_told_name_and_value() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let source = cluster.add_source("src-1", &["notes"]).await?;
    let at = cluster.leader(source.group).await?;
    let cases = [
        ("one record", vec![8 * MIB + 1], "record_bytes_max", 8 * MIB),
        (
            "a frame of records",
            vec![MIB; 9].into_iter().chain([1]).collect(),
            "frame_bytes_max",
            9 * MIB,
        ),
        ("a frame far over it", vec![7 * MIB; 4], "frame_bytes_max", 9 * MIB),
    ];
    for (what, payloads, limit, value) in cases {
        let session = open(&cluster, &source, "notes", at).await?;
        send(&session, 1, &payloads).await?;
        let error = end_of(session).await.context(what)?;
        told(&error, ErrorCode::TooLarge, limit, value).context(what)?;
    }
    too_many_streams(&cluster, &source, at).await?;
    credits_ignored(&mut cluster, &source, at).await?;
    cluster.passed();
    Ok(())
}

async fn too_many_streams(cluster: &Cluster, source: &Source, at: usize) -> Result<()> {
    const STREAMS: usize = 64;
    let mut held = Vec::new();
    for n in 0..STREAMS {
        held.push(open_stream(cluster, source, &format!("s{n}"), "notes", at).await?);
    }
    let Err(error) = open_stream(cluster, source, "s64", "notes", at).await else {
        bail!("a 65th stream was let in");
    };
    told(&error, ErrorCode::TooManyStreams, "streams_open_max", STREAMS)?;
    // A stream of its own is taken over all the same, and takes no second place.
    let newer = open_stream(cluster, source, "s0", "notes", at).await.context("taken over")?;
    let older = std::mem::replace(&mut held[0], newer);
    let told = end_of(older).await?;
    ensure!(matches!(told, Error::Superseded { .. }), "the older session is told {told}");
    // The others go on, and a place that is given back is free again.
    let mut last = held.pop().context("64")?;
    send(&last, 1, &[10]).await?;
    ensure!(next(&mut last).await.is_ok(), "it is answered");
    last.close(false).await?;
    drop(last);
    crate::wait::until("a place", ENDS_WITHIN, async || {
        Ok(open_stream(cluster, source, "s64", "notes", at).await.map(drop)?)
    })
    .await
}

/// The followers are paused, so nothing is acked and no credit comes back.
async fn credits_ignored(cluster: &mut Cluster, source: &Source, at: usize) -> Result<()> {
    let session = open_stream(cluster, source, "greedy", "notes", at).await?;
    let others = cluster.pause_others(at)?;
    let before = cluster.nodes[at].resident_kib()?;
    let (window, frame) = (MIB, 256 << 10);
    for n in 0..400 {
        if send(&session, n + 1, &[frame]).await.is_err() {
            break;
        }
    }
    let error = end_of(session).await.context("credits ignored")?;
    let grown = cluster.nodes[at].resident_kib()?.saturating_sub(before);
    cluster.resume(&others)?;
    told(&error, ErrorCode::WindowExceeded, "stream_in_flight_bytes_max", window)?;
    ensure!(grown < MEMORY_GROWTH_MAX_KIB, "LIVE-1: memory grew by {grown} KiB");
    Ok(())
}

// Both followers of one node are paused: that node alone is no majority.
//
// holds: ING-1, ING-2, ING-3, ING-4
// fault: F16
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_without_quorum_acks_nothing_and_says_when_to_come_back() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let load = Load::usual(&cluster, 2).await?;
    load.moves(20).await?;
    let source = load.lines[0].plan.source.clone();
    let at = cluster.leader(source.group).await?;
    // A source of its own: what was not acked may be stored later or not.
    let lone = cluster.add_source("src-alone", &["notes"]).await?;
    let mut session = open_stream(&cluster, &lone, "alone", "notes", at).await?;
    let others = cluster.pause_others(at)?;
    // What was on its way is acked or not by now.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let acked: Vec<u64> = load.lines.iter().map(|line| line.acked()).collect();
    send(&session, 1, &[100]).await?;
    // Nor is anything acked on the session that was open: it ends, so that the client looks further.
    let alone = tokio::time::timeout(TOLD_WITHIN, never_acked(&mut session));
    let late = open_stream(&cluster, &source, "late", "notes", at);
    let (late, alone) = tokio::join!(late, alone);
    let Err(error) = late else { bail!("a session was opened without a majority") };
    come_back(&cluster, at, &error).context("a session that opens")?;
    let ended = alone.context("a session that was open goes on without a majority")?;
    come_back(&cluster, at, &ended?).context("a session that was open")?;
    for (line, acked) in load.lines.iter().zip(acked) {
        ensure!(line.acked() == acked, "ING-1: {} acked without a majority", line.name());
    }
    cluster.resume(&others)?;
    load.moves(20).await?;
    cluster.settled(NODES).await?;
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    cluster.roots_agree().await?;
    cluster.passed();
    Ok(())
}

/// The error that a session ends with that must not be acked.
async fn never_acked(session: &mut Session) -> Result<Error> {
    loop {
        match session.next_event().await {
            Ok(Some(SessionEvent::Ack(ack))) if ack.acked_through > 0 => {
                bail!("ING-1: {} acked without a majority", ack.acked_through)
            }
            Ok(Some(_)) => {}
            Ok(None) => bail!("it ended without a word"),
            Err(error) => return Ok(error),
        }
    }
}

/// UNAVAILABLE, where else to try and when to come back.
fn come_back(cluster: &Cluster, at: usize, error: &Error) -> Result<()> {
    let Error::Rejected { code, grpc, retry_after, leader, .. } = error else { bail!("{error}") };
    // Tonic's code through its number: this crate does not name tonic.
    ensure!(*grpc as i32 == ErrorCode::Unavailable.grpc_code(), "{error}");
    ensure!(code.is_some_and(ErrorCode::retryable), "{error}");
    let after = retry_after.with_context(|| format!("no retry-after: {error}"))?;
    ensure!(!after.is_zero() && after <= COME_BACK_MAX, "retry after {after:?}: {error}");
    let leader = leader.as_ref().with_context(|| format!("no leader hint: {error}"))?;
    let mut others = cluster.nodes.iter().enumerate().filter(|(other, _)| *other != at);
    ensure!(others.any(|(_, node)| node.grpc.to_string() == *leader), "{leader}: {error}");
    let text = error.to_string();
    ensure!(!text.contains("Node") && !text.contains("voters"), "the members are shown: {text}");
    Ok(())
}

pub(crate) fn told(error: &Error, wanted: ErrorCode, limit: &str, value: usize) -> Result<()> {
    let Error::Rejected { code, message, .. } = error else { bail!("{error}") };
    ensure!(*code == Some(wanted), "{error}");
    ensure!(message.contains(limit) && message.contains(&value.to_string()), "{error}");
    Ok(())
}

pub(crate) async fn send(session: &Session, first: u64, payloads: &[usize]) -> Result<()> {
    let mut frame = FrameBuilder::new(first);
    for bytes in payloads {
        frame.push(&Record { payload: vec![b' '; *bytes].into(), ..Record::default() });
    }
    Ok(session.send_frame(frame.finish().context("records")?).await?)
}

pub(crate) async fn next(session: &mut Session) -> Result<SessionEvent, Error> {
    let failed = |what| Err(Error::Protocol { address: String::new(), what });
    match tokio::time::timeout(ENDS_WITHIN, session.next_event()).await {
        Ok(event) => event.transpose().unwrap_or_else(|| failed("it ended without a word")),
        Err(_) => failed("no answer in time"),
    }
}

/// The error that a session ends with.
pub(crate) async fn end_of(mut session: Session) -> Result<Error> {
    for _ in 0..1_000 {
        if let Err(error) = next(&mut session).await {
            return Ok(error);
        }
    }
    bail!("it goes on")
}
