//! Sources that mean harm, with an ordinary key: the cluster serves the others all along.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dtm_client::{EncodedFrame, Error, FrameBuilder, Record, Session, SessionEvent};
use dtm_types::{ErrorCode, StreamKey};
use prost::Message as _;

use crate::bad_records::{open, open_stream};
use crate::cluster::{Cluster, NODES};
use crate::load::Load;
use crate::readback::judge;
use crate::wait::until;

const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// 24,000 refusals take about 200 MiB if they are all held.
const MEMORY_GROWTH_MAX_KIB: u64 = 96 << 10;
/// Clients take 4 MiB unless told otherwise.
const REFUSED_MESSAGE_MAX: usize = 512 << 10;

// Every number that a stream may name, at its end: what would overflow in apply would end each node,
// at each start again.
//
// holds: LIVE-1, ING-1
// fault: F25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sequence_ends_a_node() -> Result<()> {
    let mut cluster = Cluster::beside().await?;
    let load = Load::usual(&cluster, 2).await?;
    let source = cluster.add_source("src-odd", &["notes"]).await?;
    let at = cluster.leader(source.group).await?;
    let max = StreamKey::SEQUENCE_MAX;
    for (from, to) in [(1, u64::MAX), (1, max + 1), (u64::MAX, u64::MAX), (0, 0)] {
        let session = open(&cluster, &source, "notes", at).await?;
        session.report_lost(from, to).await?;
        let error = end_of(session).await.with_context(|| format!("lost {from}..={to}"))?;
        told(&error, ErrorCode::InvalidArgument)?;
    }
    let session = open(&cluster, &source, "notes", at).await?;
    send(&session, max + 1).await?;
    told(&end_of(session).await.context("a frame past the end")?, ErrorCode::InvalidArgument)?;
    // The last range there is: the stream is full, its source goes on by another one.
    let mut session = open(&cluster, &source, "notes", at).await?;
    session.report_lost(1, max).await?;
    let acked = acked_by(&mut session).await?;
    ensure!(acked == max, "{acked}");
    drop(session);
    let session = open(&cluster, &source, "notes", at).await?;
    ensure!(session.opened().next_sequence == max + 1, "{:?}", session.opened());
    send(&session, max + 1).await?;
    told(&end_of(session).await?, ErrorCode::InvalidArgument)?;
    let mut other = open_stream(&cluster, &source, "other", "notes", at).await?;
    send(&other, 1).await?;
    ensure!(acked_by(&mut other).await? == 1, "another stream of it goes on");

    load.moves(20).await?;
    for node in 0..NODES {
        cluster.nodes[node].check()?;
        cluster.nodes[node].kill();
    }
    for node in 0..NODES {
        cluster.start_node(node)?;
    }
    load.moves(20).await?;
    cluster.settled(NODES).await?;
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    cluster.roots_agree().await?;
    cluster.passed();
    Ok(())
}

// holds: SEC-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_agreement_reaches_streams_that_are_open() -> Result<()> {
    let cluster = Cluster::beside().await?;
    let source = cluster.add_source("src-1", &["notes", "dossier_sync"]).await?;
    let beside = cluster.add_source("src-2", &["notes"]).await?;
    let at = cluster.leader(source.group).await?;
    let mut session = open(&cluster, &source, "notes", at).await?;
    let mut kept = open(&cluster, &beside, "notes", at).await?;
    send(&session, 1).await?;
    ensure!(acked_by(&mut session).await? == 1, "before");
    cluster.dtm(&["source", "add", "--update", "src-1", "--dataset", "dossier_sync"]).await?;
    let ended = end_of(session).await.context("an open stream goes on without an agreement")?;
    told(&ended, ErrorCode::Unavailable)?;
    until("the new agreement is known", ANSWER_WITHIN, async || {
        match open(&cluster, &source, "notes", at).await {
            Err(Error::Rejected { code: Some(ErrorCode::NotAgreed), .. }) => Ok(()),
            Err(other) => bail!("{other}"),
            Ok(_) => bail!("it may open"),
        }
    })
    .await?;
    send(&kept, 1).await?;
    ensure!(acked_by(&mut kept).await? == 1, "its neighbour goes on");
    cluster.passed();
    Ok(())
}

// A refusal is thousands of times the size of the two bytes that it is about.
//
// holds: LIVE-1
// fault: F25
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told_in_bounded_messages_and_memory() -> Result<()> {
    const STREAMS: usize = 8;
    const FRAMES: u64 = 3;
    const RECORDS: u64 = 1_000;
    // All at once: what slows malformed data down would hide what it takes in memory.
    let settings = [("DTM__LIMITS__REFUSED_PER_SECOND_MAX", 1_000_000)];
    let cluster = Cluster::beside_with(&settings).await?;
    let source = cluster.add_source("src-1", &["dossier_sync"]).await?;
    let at = cluster.leader(source.group).await?;
    let before = cluster.nodes[at].resident_kib()?;
    let mut sessions = Vec::new();
    for n in 0..STREAMS {
        let name = format!("s{n}");
        let session = open_stream(&cluster, &source, &name, "dossier_sync", at).await?;
        for frame in 0..FRAMES {
            session.send_frame(empty_objects(frame * RECORDS + 1, RECORDS)?).await?;
        }
        sessions.push(session);
    }
    // Nobody reads meanwhile.
    let mut most = 0;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(cluster.nodes[at].resident_kib()?.saturating_sub(before));
    }
    ensure!(most < MEMORY_GROWTH_MAX_KIB, "LIVE-1: memory grew by {most} KiB");
    for mut session in sessions {
        let (mut refused, mut acked) = (0, 0);
        while acked < FRAMES * RECORDS {
            match next(&mut session).await?.context("it ended")? {
                SessionEvent::Ack(ack) => acked = ack.acked_through,
                SessionEvent::Refused(told) => {
                    let bytes = told.encoded_len();
                    ensure!(bytes <= REFUSED_MESSAGE_MAX, "a message of {bytes} bytes");
                    refused += told.records.len() as u64;
                }
                _ => {}
            }
        }
        ensure!(refused == FRAMES * RECORDS, "{refused} refusals were told");
    }
    cluster.passed();
    Ok(())
}

fn empty_objects(first: u64, count: u64) -> Result<EncodedFrame> {
    let mut frame = FrameBuilder::new(first);
    for _ in 0..count {
        frame.push(&Record { payload: "{}".into(), ..Record::default() });
    }
    frame.finish().context("records")
}

async fn send(session: &Session, first: u64) -> Result<()> {
    let mut frame = FrameBuilder::new(first);
    let payload = "{\"code\":\"A-1\"}".to_owned();
    frame.push(&Record { payload: payload.into(), ..Record::default() });
    Ok(session.send_frame(frame.finish().context("a record")?).await?)
}

fn told(error: &Error, wanted: ErrorCode) -> Result<()> {
    let Error::Rejected { code, .. } = error else { bail!("{error}") };
    ensure!(*code == Some(wanted), "{error}");
    Ok(())
}

async fn next(session: &mut Session) -> Result<Option<SessionEvent>, Error> {
    let event = tokio::time::timeout(ANSWER_WITHIN, session.next_event()).await;
    event.unwrap_or_else(|_| {
        Err(Error::Protocol { address: String::new(), what: "no answer in time" })
    })
}

async fn acked_by(session: &mut Session) -> Result<u64> {
    loop {
        if let SessionEvent::Ack(ack) = next(session).await?.context("it ended")? {
            return Ok(ack.acked_through);
        }
    }
}

/// The error that a session ends with.
async fn end_of(mut session: Session) -> Result<Error> {
    loop {
        match next(&mut session).await {
            Ok(Some(SessionEvent::Ack(_))) => bail!("it was acked"),
            Ok(Some(_)) => {}
            Ok(None) => bail!("it ended without a word"),
            Err(error) => return Ok(error),
        }
    }
}
