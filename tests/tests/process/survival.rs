//! What a source was acknowledged outlives its site: it keeps it until the standby has it, and sends it
//! again to whoever took over. Or it asks for acks that wait for the standby.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use dtm_client::{Event, Publisher, PublisherConfig, Session, Spool, SpoolConfig};
use dtm_proto::ingest::Open;
use dtm_types::command::AckLevel;
use parking_lot::Mutex;

use crate::cluster::{Cluster, NODES, WITHIN};
use crate::load::{Line, Load, Plan, digest};
use crate::promotion::{PRIMARY, PROMOTE, PROMOTED_WITHIN, STANDBY, THIRD, three_places};
use crate::readback::judge;
use crate::sources::{Source, source_row};
use crate::wait::until;

const SOURCES: usize = 3;
const RECORDS: u64 = 300;
/// Longer than an ack at level site is waited for.
const ENDED_WITHIN: Duration = Duration::from_secs(40);
/// No ack comes while the standby stands still.
const QUIET: Duration = Duration::from_secs(4);

/// A source with a spool, and what happened to it.
struct Sender {
    line: Arc<Line>,
    spool: Spool,
    publisher: Publisher,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Sender {
    fn start(cluster: &Cluster, source: &Arc<Source>) -> Result<Self> {
        let plan = Plan { broken_every: u64::MAX, ..Plan::new(source, "spooled") };
        let spool = Spool::open(SpoolConfig::new(cluster.path(&format!("spool-{}", source.code))))?;
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let sink = Arc::clone(&events);
        let config = PublisherConfig::new(&source.code, &plan.stream, &plan.dataset);
        let mut config = config.on_event(move |event| sink.lock().push(event));
        config.backoff_max = Duration::from_millis(500);
        config.ack_timeout = Duration::from_secs(10);
        let publisher = Publisher::over_spool(cluster.endpoint(source)?, config, &spool);
        Ok(Self { line: Load::line(plan), spool, publisher, events })
    }

    /// Puts records into the spool.
    fn take(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            let mut sent = self.line.sent.lock();
            let (record, valid) = self.line.plan.record(sent.len() as u64 + 1);
            let kept = digest(&record.payload);
            let sequence = self.spool.append(&[record], Bytes::new())?;
            sent.push((kept, valid));
            ensure!(sequence == sent.len() as u64, "{sequence} is not the last");
            drop(sent);
            self.publisher.spooled();
        }
        Ok(())
    }

    /// Waits until all that was taken is acked.
    async fn acked(&self, within: Duration) -> Result<u64> {
        let taken = self.line.sent.lock().len() as u64;
        let acked = tokio::time::timeout(within, self.publisher.wait_acked(taken)).await;
        let acked = acked.with_context(|| format!("{}: {:?}", self.line.name(), self.told()))?;
        let through = acked?.acked_through;
        self.line.acked.store(through, std::sync::atomic::Ordering::Relaxed);
        Ok(through)
    }

    fn told(&self) -> Vec<String> {
        self.events.lock().iter().rev().take(5).map(|event| format!("{event:?}")).collect()
    }

    /// Records that the standby lacked and that were sent again; an error where any were lost.
    fn mended(&self) -> Result<u64> {
        let mut mended = 0;
        for event in self.events.lock().iter() {
            match event {
                Event::LossMended { from, to } => mended = mended.max(to + 1 - from),
                Event::LossDetected { .. } | Event::Conflict { .. } | Event::Refused(_) => {
                    anyhow::bail!("{}: {event:?}", self.line.name());
                }
                _ => {}
            }
        }
        Ok(mended)
    }
}

/// Three nodes at the primary, two at the standby, one at a third place.
async fn of_three_places() -> Result<(Cluster, [usize; 2], usize)> {
    let mut cluster = Cluster::beside().await?;
    let standby = [
        cluster.add_node_with(&[], Some(STANDBY)).await?,
        cluster.add_node_with(&[], Some(STANDBY)).await?,
    ];
    let third = cluster.add_node_with(&[], Some(THIRD)).await?;
    three_places(&cluster).await?;
    Ok((cluster, standby, third))
}

// The standby stands still while records are acknowledged; the primary is lost; who kept its spool has
// lost nothing.
//
// holds: ING-1, ING-2, ING-3, ING-4
// fault: F27
// target: P18
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_standby_that_was_behind() -> Result<()> {
    let (mut cluster, standby, third) = of_three_places().await?;
    let mut senders = Vec::new();
    for at in 1..=SOURCES {
        let source = cluster.add_source(&format!("src-{at}"), &["notes"]).await?;
        senders.push(Sender::start(&cluster, &source)?);
    }
    for sender in &mut senders {
        sender.take(RECORDS)?;
        sender.acked(WITHIN).await?;
    }
    until("a standby that is told to have everything", WITHIN, async || {
        for sender in &senders {
            let held = sender.publisher.snapshot();
            ensure!(held.site_copies && held.site_through == RECORDS, "{held:?}");
        }
        Ok(())
    })
    .await?;
    let idle: Vec<u64> =
        senders.iter().map(|s| s.publisher.snapshot().waits_for_site_bytes).collect();
    ensure!(idle.iter().all(|bytes| *bytes == 0), "released: {idle:?}");

    standby.iter().try_for_each(|at| cluster.nodes[*at].pause())?;
    for sender in &mut senders {
        sender.take(RECORDS)?;
        sender.acked(WITHIN).await?;
    }
    for sender in &senders {
        let held = sender.publisher.snapshot();
        ensure!(held.acked_through == 2 * RECORDS, "acked without the standby: {held:?}");
        ensure!(held.site_through < 2 * RECORDS && held.waits_for_site_bytes > 0, "{held:?}");
    }
    // What lies in the sockets of the standby goes with its processes: it would else be there.
    (0..NODES).chain(standby).for_each(|at| cluster.nodes[at].kill());
    let lost = Instant::now();
    standby.iter().try_for_each(|at| cluster.start_node(*at))?;
    until("a promotion", PROMOTED_WITHIN, async || {
        cluster.dtm(&[&PROMOTE[..], &["the primary is lost"]].concat()).await.map(|_| ())
    })
    .await?;
    (0..NODES).chain([third]).for_each(|at| cluster.nodes[at].lost = true);
    // The same source goes on by itself.
    for sender in &mut senders {
        sender.take(RECORDS)?;
        ensure!(sender.acked(PROMOTED_WITHIN).await? == 3 * RECORDS, "not all");
    }
    println!("{PRIMARY} lost, all acknowledged at {STANDBY} after {:.1?}", lost.elapsed());
    let mended: Vec<u64> = senders.iter().map(Sender::mended).collect::<Result<_>>()?;
    println!("sent again: {mended:?}");
    ensure!(mended.iter().any(|count| *count > 0), "the standby lacked nothing: nothing is shown");
    let lines: Vec<_> = senders.iter().map(|sender| Arc::clone(&sender.line)).collect();
    judge(&cluster, &lines).await?;
    cluster.passed();
    Ok(())
}

// holds: ING-1, ING-2, ING-3, ING-4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ack_at_level_site_waits_for_the_standby() -> Result<()> {
    let (mut cluster, standby, third) = of_three_places().await?;
    let mut row = source_row("safe", &["notes"]);
    row.agreements[0].ack_level = AckLevel::Site.into();
    let source = Arc::new(cluster.register(row).await?);
    let mut sender = Sender::start(&cluster, &source)?;
    sender.take(RECORDS)?;
    sender.acked(WITHIN).await?;
    let held = sender.publisher.snapshot();
    ensure!(held.site_through == held.acked_through, "acked before the standby had it: {held:?}");

    standby.iter().try_for_each(|at| cluster.nodes[*at].pause())?;
    sender.take(RECORDS)?;
    tokio::time::sleep(QUIET).await;
    let held = sender.publisher.snapshot();
    ensure!(held.acked_through < 2 * RECORDS, "acked without the standby: {held:?}");
    until("the word that the outcome is not known", ENDED_WITHIN, async || {
        let told = sender.told().concat();
        ensure!(told.contains("site_ack_within_ms"), "{told}");
        Ok(())
    })
    .await?;
    let held = sender.publisher.snapshot();
    ensure!(held.acked_through < 2 * RECORDS, "it never becomes less: {held:?}");
    // A place that acknowledges nothing says so at once, also to who cannot go elsewhere.
    let there = cluster.endpoint_at(&source, &[third])?;
    let (source_code, dataset) = (source.code.clone(), "notes".to_owned());
    let open = Open { source: source_code, stream: "beside".into(), dataset, ..Open::default() };
    let waits = (Duration::from_secs(2), Duration::from_secs(3));
    let at = cluster.nodes[third].grpc.to_string();
    let refused = Session::open_within(&there, &at, open, waits).await.err().context("opened")?;
    ensure!(refused.to_string().contains(&format!("site {PRIMARY} is the primary")), "{refused}");
    cluster.resume(&standby)?;
    sender.acked(WITHIN).await?;
    let held = sender.publisher.snapshot();
    ensure!(held.site_through == 2 * RECORDS, "{held:?}");
    sender.mended()?;
    judge(&cluster, &[Arc::clone(&sender.line)]).await?;

    // Without a standby it is refused, and told what to do.
    cluster.lay_out(&["single"]).await?;
    until("a refusal", WITHIN, async || {
        let config = PublisherConfig::new(&source.code, "later", "notes");
        let opening = Publisher::open(cluster.endpoint(&source)?, config);
        let opened = tokio::time::timeout(Duration::from_secs(5), opening).await?;
        let told = opened.err().context("it is opened")?.to_string();
        ensure!(told.contains("--ack-level majority"), "{told}");
        Ok(())
    })
    .await?;
    cluster.passed();
    Ok(())
}
