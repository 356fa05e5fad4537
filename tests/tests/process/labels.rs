//! Security status and priority of a message, and what the system does by them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dtm_client::{FrameBuilder, Publisher, PublisherConfig, Record};
use dtm_proto::records::{QuarantinedRecord, ReadRequest, StoredRecord};
use tokio::task::JoinSet;

use crate::agreed::read_at;
use crate::bad_records::{open, refused_until};
use crate::cluster::Cluster;
use crate::readback::{all_of, quarantined, records};
use crate::secrecy::CANARY;
use crate::sources::{Source, source_row};

const LOW: u32 = 1;
const NORMAL: u32 = 2;
const HIGH: u32 = 3;

/// Streams that send as fast as they are acknowledged.
const FLOODS: usize = 16;
const PROBED: [&str; 3] = ["probe-high", "probe-normal", "probe-shared"];
/// Records of each probe, one after the other.
const PROBES: u64 = 20;
/// The delay of high priority against that of normal one under the same load, at most: 1 where
/// priority does nothing, 0.4 to 0.6 measured.
const SHARE_MAX: f64 = 0.85;
const WITHIN: Duration = Duration::from_secs(60);

// How the row is read (each security status leads to its own handling: storage, masking, rights), as
// far as intake goes. Storage: batches of their own, whose header, which seal and leaf cover, names
// the status. Masking and rights: what the quarantine keeps of a refused record, and who sees it, by
// its status. Records that were taken are for their source alone, whatever their status: rights that
// differ by it come with sharing, which there is not yet.
//
// The rest of the row, beside this: the lanes and their shares (dtm-cluster lane.rs).
//
// covers: A1-3.3
// holds: SEC-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_has_labels_and_is_treated_by_its_security_status() -> Result<()> {
    let cluster = Cluster::start().await?;
    // What this source agreed on where a message says nothing.
    let mut row = source_row("src-1", &["notes"]);
    for agreement in &mut row.agreements {
        (agreement.security_status, agreement.priority) = (1, LOW);
    }
    let source = cluster.register(row).await?;
    let labels = [(0, 0), (1, LOW), (2, NORMAL), (3, HIGH), (4, NORMAL), (2, 9), (0, HIGH), (3, 0)];
    let mut frame = FrameBuilder::new(1);
    for (n, (status, priority)) in labels.into_iter().enumerate() {
        frame.push(&labelled(format!("{{\"code\":\"A-{n}\",\"note\":\"n\"}}"), status, priority));
    }
    // One broken record of each status.
    let first_broken = labels.len() as u64 + 1;
    for status in 1..=3 {
        let payload = format!("{{\"code\":\"B-{status}\",\"note\":\"n\",\"more\":\"{CANARY}\"}}");
        frame.push(&labelled(payload, status, NORMAL));
    }
    let last = u64::from(frame.count());
    let mut session = open(&cluster, &source, "notes", 0).await?;
    session.send_frame(frame.finish().context("records")?).await?;
    let refused = refused_until(&mut session, last).await?;
    let said: Vec<_> = refused.iter().map(|r| (r.sequence, &*r.violations[0].pointer)).collect();
    let broken = |n: u64| (first_broken + n, "/more");
    let wanted = [(5, "/security_status"), (6, "/priority"), broken(0), broken(1), broken(2)];
    ensure!(said == wanted, "{said:?}");
    // What has no label has the agreed one.
    let all = read_at(&cluster, &source, 0).await?;
    batches_of_their_own(&all)?;
    let stored: Vec<_> = all.iter().map(|r| (r.sequence, r.security_status, r.priority)).collect();
    let wanted =
        [(1, 1, LOW), (2, 1, LOW), (3, 2, NORMAL), (4, 3, HIGH), (7, 1, HIGH), (8, 3, LOW)];
    ensure!(stored == wanted, "{stored:?}");

    // Public: kept, and operators see what was found. Internal: kept for its source. Restricted:
    // not kept.
    let own = quarantined(cluster.endpoint(&source)?, &source).await?;
    let operator = quarantined(cluster.operator_endpoint(&[0])?, &source).await?;
    for status in 1..=3_u32 {
        let of = |all: &[QuarantinedRecord]| -> Result<QuarantinedRecord> {
            let sequence = first_broken + u64::from(status) - 1;
            all.iter().find(|r| r.sequence == sequence).cloned().context("in quarantine")
        };
        let (own, operator) = (of(&own)?, of(&operator)?);
        let has = |record: &QuarantinedRecord| format!("{record:?}").contains(CANARY);
        let place = |record: &QuarantinedRecord| record.violations[0].pointer == "/more";
        ensure!(own.security_status == status && place(&own) && place(&operator), "{own:?}");
        ensure!(own.payload.is_empty() == (status == 3), "kept: {own:?}");
        ensure!(has(&own) == (status < 3), "its source: {own:?}");
        ensure!(has(&operator) == (status == 1), "an operator: {operator:?}");
        ensure!(operator.payload.is_empty(), "an operator reads no payload: {operator:?}");
    }
    urgent(&cluster).await?;
    cluster.passed();
    Ok(())
}

/// What has other labels than its neighbour lies in another batch, which is another leaf at another
/// place of the log; what came with the same ones lies in the same.
fn batches_of_their_own(stored: &[StoredRecord]) -> Result<()> {
    let mut batches = BTreeMap::new();
    for record in stored {
        let labels = (record.security_status, record.priority);
        let batch = batches.entry((record.offset, record.leaf_index)).or_insert(labels);
        ensure!(*batch == labels, "{labels:?} lies in a batch of {batch:?}");
    }
    let leaves: BTreeSet<_> = batches.keys().map(|(_, leaf)| leaf).collect();
    // The first two have the same labels, no others that follow each other have.
    ensure!(leaves.len() == stored.len() - 1, "{batches:?}");
    ensure!(stored[0].leaf_index == stored[1].leaf_index, "{batches:?}");
    Ok(())
}

fn labelled(payload: String, security_status: u32, priority: u32) -> Record {
    Record { payload: payload.into(), security_status, priority, ..Record::default() }
}

/// High priority overtakes normal one under load, normal one goes on under high one, and the order
/// inside a stream of many priorities stays.
///
/// holds: ING-1, ING-3
async fn urgent(cluster: &Cluster) -> Result<()> {
    let source = cluster.add_source("src-2", &["notes"]).await?;
    let stop = Arc::new(AtomicBool::new(false));
    // All are open before there is load: an open waits like what has normal priority.
    let names = |kind: &str| (0..FLOODS).map(|n| format!("{kind}-{n}")).collect::<Vec<_>>();
    let [mut calm, mut busy] = [Vec::new(), Vec::new()];
    for name in names("normal") {
        calm.push((publisher(cluster, &source, &name).await?, name, vec![NORMAL]));
    }
    for name in names("high") {
        busy.push((publisher(cluster, &source, &name).await?, name, vec![HIGH]));
    }
    let mixed = publisher(cluster, &source, "mixed").await?;
    busy.push((mixed, "mixed".to_owned(), vec![NORMAL, HIGH, LOW]));
    let probes = [
        publisher(cluster, &source, PROBED[0]).await?,
        publisher(cluster, &source, PROBED[1]).await?,
        publisher(cluster, &source, PROBED[2]).await?,
    ];
    let mut floods = Floods::default();
    floods.start(calm, &stop);
    let (high, normal) =
        tokio::join!(probe(&probes[0], PROBED[0], HIGH), probe(&probes[1], PROBED[1], NORMAL));
    let (high, normal) = (high?, normal?);
    println!("ack delay under load: high {high:?}, normal {normal:?}");
    ensure!(high.as_secs_f64() < normal.as_secs_f64() * SHARE_MAX, "{high:?} and {normal:?}");
    // As many of high priority: normal ones still have their share.
    floods.start(busy, &stop);
    let shared = probe(&probes[2], PROBED[2], NORMAL).await?;
    println!("ack delay of normal under high: {shared:?}");
    stop.store(true, Ordering::Release);
    let mut sent = floods.finish().await?;
    sent.extend(PROBED.map(|name| (name.to_owned(), PROBES)));
    // Everything that was acknowledged is there, in order.
    let mut stored = Vec::new();
    let request = ReadRequest { digests_only: true, ..all_of(&source) };
    let tell = |record: StoredRecord| stored.push((record.stream, record.sequence));
    records(cluster.endpoint_at(&source, &[0])?, request, tell).await?;
    let mut through = BTreeMap::new();
    for (stream, sequence) in stored {
        let last = through.entry(stream.clone()).or_insert(0_u64);
        ensure!(sequence == *last + 1, "{stream} {sequence} after {last}");
        *last = sequence;
    }
    ensure!(through == sent, "stored {through:?}, acknowledged {sent:?}");
    Ok(())
}

/// The median delay of acknowledgements of a stream that sends one record at a time.
async fn probe(publisher: &Publisher, name: &str, priority: u32) -> Result<Duration> {
    let mut delays = Vec::new();
    for n in 0..PROBES {
        let payload = format!("{{\"code\":\"{}-{n}\",\"note\":\"probe\"}}", name.to_uppercase());
        let started = Instant::now();
        let sequence = publisher.send(labelled(payload, 2, priority)).await?;
        let acked = tokio::time::timeout(WITHIN, publisher.wait_acked(sequence)).await;
        acked.with_context(|| format!("{name}: no ack in time"))??;
        delays.push(started.elapsed());
    }
    delays.sort_unstable();
    Ok(delays[delays.len() / 2])
}

async fn publisher(cluster: &Cluster, source: &Source, name: &str) -> Result<Publisher> {
    let config = PublisherConfig::new(&source.code, name, "notes");
    Publisher::open(cluster.endpoint(source)?, config).await.with_context(|| name.to_owned())
}

/// Streams that send until they are told to stop.
#[derive(Default)]
struct Floods(JoinSet<Result<(String, u64)>>);

impl Floods {
    /// Streams with their names, and the priorities of their records in turn.
    fn start(&mut self, streams: Vec<(Publisher, String, Vec<u32>)>, stop: &Arc<AtomicBool>) {
        for (publisher, name, priorities) in streams {
            let stop = stop.clone();
            self.0.spawn(async move {
                let (mut random, mut sent) = (1, 0_u64);
                while !stop.load(Ordering::Acquire) {
                    let payload = incompressible(&name, sent, &mut random);
                    let priority = priorities[sent as usize % priorities.len()];
                    sent = publisher.send(labelled(payload, 2, priority)).await?;
                }
                let acked = tokio::time::timeout(WITHIN, publisher.flush()).await;
                let acked = acked.with_context(|| format!("{name}: no ack in time"))??;
                ensure!(acked.acked_through == sent && sent > 0, "{name}: {sent} were sent");
                Ok((name, sent))
            });
        }
    }

    async fn finish(mut self) -> Result<BTreeMap<String, u64>> {
        let mut sent = BTreeMap::new();
        while let Some(ended) = self.0.join_next().await {
            sent.extend([ended??]);
        }
        Ok(sent)
    }
}

/// A record of nearly 4 KB that does not become shorter.
fn incompressible(name: &str, n: u64, random: &mut u64) -> String {
    const DIGITS: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
    let mut note = String::with_capacity(3_900);
    while note.len() < 3_900 {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n | 1);
        note.extend((0..6).map(|at| char::from(DIGITS[(*random >> (28 + 6 * at)) as usize & 63])));
    }
    format!("{{\"code\":\"{}-{n}\",\"note\":\"{note}\"}}", name.to_uppercase())
}
