//! What the two bad sources of `isolation.rs` do: one sends malformed records as fast as it is let
//! and crashes its session now and then, one never reads what it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dtm_client::{FrameBuilder, Publisher, PublisherConfig, Record, Session};
use tokio::task::JoinSet;

use crate::bad_records::open_stream;
use crate::cluster::Cluster;
use crate::faulty::POISON;
use crate::sources::Source;

/// `limits.refused_per_second_max`: as fast as the malformed records of a source are let in on a
/// node, over however many streams.
pub(crate) const REFUSED_PER_SECOND_MAX: f64 = 1_000.0;
pub(crate) const ACKS_WITHIN: Duration = Duration::from_secs(60);
/// Streams of the malformed source. The first one crashes its session.
const STREAMS: usize = 4;
/// What each of them holds unacked: it is through with it soon after it stops.
const UNACKED_BYTES_MAX: usize = 64 << 10;
/// What is let in before the first refusals are counted, and not yet waited for at the end, as
/// seconds of the rate: all that is unacked, which is about a thousand records.
const AT_ONCE_S: f64 = 2.0;

/// One stream of the malformed source, with one publisher over the whole run.
struct Bad {
    publisher: Arc<Publisher>,
    sent: Arc<AtomicU32>,
    /// What it sends first in each disturbance crashes its session.
    is_poisonous: bool,
}

impl Bad {
    async fn open(cluster: &Cluster, source: &Source, at: usize) -> Result<Self> {
        let mut config = PublisherConfig::new(&source.code, format!("bad-{at}"), "notes");
        config.ids = dtm_client::IdPolicy::Sequence;
        config.unacked_bytes_max = UNACKED_BYTES_MAX;
        let publisher = Publisher::open(cluster.endpoint(source)?, config).await?;
        Ok(Self { publisher: Arc::new(publisher), sent: Arc::default(), is_poisonous: at == 0 })
    }

    /// Sends until it is told to stop.
    fn start(&self, stop: Arc<AtomicBool>) -> impl Future<Output = Result<()>> + use<> {
        let (publisher, sent) = (self.publisher.clone(), self.sent.clone());
        let payload = format!("{{\"code\":\"a b\",\"note\":7,\"other\":\"{}\"", "x".repeat(200));
        let record = |payload: String| Record { payload: payload.into(), ..Record::default() };
        let usual = record(payload);
        let poison = format!("{POISON}-{}", sent.load(Ordering::Relaxed));
        let mut next = if self.is_poisonous { record(poison) } else { usual.clone() };
        async move {
            while !stop.load(Ordering::Relaxed) {
                publisher.send(&next).await?;
                sent.fetch_add(1, Ordering::Relaxed);
                next = usual.clone();
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    }

    /// Waits until all that was sent is acked; how often a session was opened.
    async fn settled(&self) -> Result<u64> {
        let flushed = tokio::time::timeout(ACKS_WITHIN, self.publisher.flush()).await;
        flushed.context("the malformed source does not come back")??;
        let seen = self.publisher.snapshot();
        let sent = u64::from(self.sent.load(Ordering::Relaxed));
        ensure!(seen.acked_through == sent, "{sent} sent: {seen:?}");
        Ok(seen.sessions)
    }

    /// A good record of it is taken as anybody's.
    async fn is_served(&self) -> Result<()> {
        let before = self.publisher.snapshot();
        let payload = "{\"code\":\"A-1\",\"note\":\"x\"}";
        let record = Record { payload: payload.as_bytes().into(), ..Record::default() };
        let sequence = self.publisher.send(&record).await?;
        let acked = tokio::time::timeout(ACKS_WITHIN, self.publisher.wait_acked(sequence)).await;
        acked.context("a good record of the malformed source")??;
        ensure!(self.publisher.snapshot().refused == before.refused, "a good record is refused");
        Ok(())
    }
}

/// The malformed source.
pub(crate) struct Malformed(Vec<Bad>);

impl Malformed {
    pub(crate) async fn open(cluster: &Cluster, source: &Source) -> Result<Self> {
        let mut streams = Vec::new();
        for at in 0..STREAMS {
            streams.push(Bad::open(cluster, source, at).await?);
        }
        Ok(Self(streams))
    }

    /// Waits until all that was sent is acked; how often sessions were opened and how many records
    /// were sent.
    async fn settled(&self) -> Result<(u64, u32)> {
        let (mut sessions, mut sent) = (0, 0);
        for stream in &self.0 {
            sessions += stream.settled().await?;
            sent += stream.sent.load(Ordering::Relaxed);
        }
        Ok((sessions, sent))
    }

    /// A good record is taken as anybody's, on each of its streams.
    pub(crate) async fn is_served(&self) -> Result<()> {
        for stream in &self.0 {
            stream.is_served().await?;
        }
        Ok(())
    }
}

/// The malformed and the hanging source while they do it.
pub(crate) struct Disturbance<'a> {
    malformed: &'a Malformed,
    /// Sessions that it had opened and records that it had sent before.
    before: (u64, u32),
    from: Instant,
    stop: Arc<AtomicBool>,
    sending: JoinSet<Result<()>>,
    hanging: JoinSet<Result<()>>,
}

impl<'a> Disturbance<'a> {
    pub(crate) async fn start(
        cluster: &Cluster,
        malformed: &'a Malformed,
        hanging: &Source,
    ) -> Result<Disturbance<'a>> {
        let (before, from) = (malformed.settled().await?, Instant::now());
        let stop = Arc::new(AtomicBool::new(false));
        let mut sending = JoinSet::new();
        for stream in &malformed.0 {
            sending.spawn(stream.start(stop.clone()));
        }
        let at = cluster.leader(hanging.group).await?;
        let session = open_stream(cluster, hanging, "deaf", "notes", at).await?;
        let mut hanging = JoinSet::new();
        hanging.spawn(hang(session));
        Ok(Self { malformed, before, from, stop, sending, hanging })
    }

    /// Both stop, the hanging one for good; how many malformed records were sent. They were as many
    /// as are let in, and no more by being sent on several streams. A session crashed, and came back
    /// by itself.
    pub(crate) async fn end(mut self) -> Result<u32> {
        self.hanging.shutdown().await;
        let disturbed_s = self.from.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.sending.join_next().await {
            ended??;
        }
        let (sessions, sent) = self.malformed.settled().await?;
        let all_s = self.from.elapsed().as_secs_f64();
        ensure!(sessions > self.before.0, "no session crashed: {sessions}");
        let sent = sent - self.before.1;
        let (least, most) = (disturbed_s * 0.7, all_s * 1.1 + AT_ONCE_S);
        let (least, most) = (least * REFUSED_PER_SECOND_MAX, most * REFUSED_PER_SECOND_MAX);
        ensure!(
            (least..=most).contains(&f64::from(sent)),
            "{sent} malformed records in {disturbed_s:.1} s, acked after {all_s:.1} s"
        );
        Ok(sent)
    }
}

/// Sends and never reads, whatever it is told.
async fn hang(session: Session) -> Result<()> {
    let mut frame = FrameBuilder::new(session.opened().next_sequence);
    loop {
        // Valid and broken in turn: there are refusals to tell, and nobody who reads them.
        let text = ["{\"code\":\"A-1\",\"note\":\"x\"}", "{\"code\":\"a b\"}"];
        for text in text.iter().cycle().take(20) {
            frame.push(&Record { payload: text.as_bytes().into(), ..Record::default() });
        }
        if session.send_frame(frame.finish().context("records")?).await.is_err() {
            // Told off. It does not read that either, and holds on to its connection.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
