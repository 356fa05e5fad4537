//! What every node gives back, held against what was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dtm_chaos::checker::{Checker, Verdict};
use dtm_client::{Endpoint, Reader};
use dtm_proto::records::{
    LookupRequest, QuarantineRequest, QuarantinedRecord, ReadRequest, StoredRecord,
};
use futures::future::try_join_all;
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::load::{Ids, Line, Load, digest};
use crate::sources::Source;
use crate::wait::is_long;

/// Longest time for one source of one node; a million records in the long form.
fn within() -> Duration {
    Duration::from_secs(if is_long() { 600 } else { 60 })
}

/// Reads all from every node by (source, stream, sequence), some also by message id, and the
/// quarantine; fails unless ING-1 to ING-4 hold and exactly the broken records were refused.
pub(crate) async fn judge(cluster: &Cluster, lines: &[Arc<Line>]) -> Result<Verdict> {
    let sources = sources_of(lines);
    let checker = read_back(cluster, lines, &sources, true).await?;
    for source in sources.values() {
        let own = lines.iter().filter(|l| l.plan.source.code == source.code);
        quarantine(cluster, source, own).await?;
    }
    let verdict = checker.verdict();
    println!("{verdict}");
    ensure!(verdict.holds(), "{verdict}");
    Ok(verdict)
}

/// Ends the load and [`judge`]s what every node gives back; the replicas' roots agree (RAFT-1).
pub(crate) async fn finish_and_judge(cluster: Cluster, load: Load) -> Result<()> {
    let lines = load.finish().await?;
    judge(&cluster, &lines).await?;
    cluster.roots_agree().await?;
    cluster.passed();
    Ok(())
}

/// The same by sequence while the load goes on: all that was acked up to now is on every node, and
/// nothing but what was sent.
pub(crate) async fn judge_running(cluster: &Cluster, lines: &[Arc<Line>]) -> Result<()> {
    let still: Vec<_> = lines.iter().map(|line| line.snapshot()).collect();
    let checker = read_back(cluster, &still, &sources_of(lines), false).await?;
    let verdict = checker.verdict();
    println!("{verdict}");
    ensure!(verdict.holds(), "{verdict}");
    Ok(())
}

fn sources_of(lines: &[Arc<Line>]) -> BTreeMap<String, Arc<Source>> {
    let sources = lines.iter().map(|line| &line.plan.source);
    sources.map(|source| (source.code.clone(), source.clone())).collect()
}

/// Reads every node, all at once; look-ups too where nothing is sent any more.
async fn read_back(
    cluster: &Cluster,
    lines: &[Arc<Line>],
    sources: &BTreeMap<String, Arc<Source>>,
    with_lookups: bool,
) -> Result<Checker> {
    let mut checker = Checker::new();
    for line in lines {
        tell(&mut checker, line)?;
    }
    let checker = Mutex::new(checker);
    let nodes = cluster.present().into_iter().map(async |at| {
        for source in sources.values() {
            let own = lines.iter().filter(|l| with_lookups && l.plan.source.code == source.code);
            let read = async {
                let endpoint = cluster.endpoint_at(source, &[at])?.with_shared_connections();
                read_source(cluster, at, source, endpoint.clone(), &checker).await?;
                for line in own {
                    look_up(endpoint.clone(), line).await?;
                }
                anyhow::Ok(())
            };
            let read = tokio::time::timeout(within(), read).await.map_err(anyhow::Error::from);
            read.flatten().with_context(|| format!("n{} {}", at + 1, source.code))?;
        }
        anyhow::Ok(())
    });
    try_join_all(nodes).await?;
    Ok(checker.into_inner())
}

fn tell(checker: &mut Checker, line: &Line) -> Result<()> {
    let stream = checker.stream(&line.plan.source.code, &line.plan.stream);
    for (at, (digest, valid)) in line.sent.lock().iter().enumerate() {
        let sequence = at as u64 + 1;
        checker.sent(stream, sequence, *digest)?;
        if !valid {
            checker.excused(stream, sequence)?;
        }
    }
    Ok(checker.acked(stream, line.acked())?)
}

async fn read_source(
    cluster: &Cluster,
    at: usize,
    source: &Source,
    endpoint: Endpoint,
    checker: &Mutex<Checker>,
) -> Result<()> {
    let node = checker.lock().node(&cluster.nodes[at].name);
    let tell = |record: StoredRecord| {
        let mut checker = checker.lock();
        let stream = checker.stream(&record.source, &record.stream);
        checker.observed(node, stream, record.sequence, digest(&record.payload));
    };
    records(endpoint, all_of(source), tell).await
}

/// Everything that a source sent, current.
pub(crate) fn all_of(source: &Source) -> ReadRequest {
    ReadRequest {
        source: source.code.clone(),
        current: true,
        purpose: "test".to_owned(),
        ..ReadRequest::default()
    }
}

/// Gives each record of a current view, in order.
pub(crate) async fn records(
    endpoint: Endpoint,
    request: ReadRequest,
    mut each: impl FnMut(StoredRecord),
) -> Result<()> {
    let mut answers = Reader::new(endpoint).read(request);
    while let Some(answer) = answers.next().await? {
        ensure!(answer.current, "the view is not current");
        answer.records.into_iter().for_each(&mut each);
    }
    Ok(())
}

/// The whole quarantine of a source, as the caller is shown it.
pub(crate) async fn quarantined(
    endpoint: Endpoint,
    source: &Source,
) -> Result<Vec<QuarantinedRecord>> {
    let request = QuarantineRequest { source: source.code.clone(), ..QuarantineRequest::default() };
    let mut pages = Reader::new(endpoint).quarantine(request);
    let mut kept = Vec::new();
    while let Some(page) = pages.next().await? {
        kept.extend(page.records);
    }
    Ok(kept)
}

/// The first and the last valid record of a stream, by message id.
async fn look_up(endpoint: Endpoint, line: &Line) -> Result<()> {
    if line.plan.ids == Ids::None {
        return Ok(());
    }
    let sent = line.sent.lock().clone();
    let valid = |(_, sent): &(usize, &(_, bool))| sent.1;
    let first = sent.iter().enumerate().find(valid);
    let last = sent.iter().enumerate().rfind(valid);
    let reader = Reader::new(endpoint);
    for (index, (wanted, _)) in [first, last].into_iter().flatten() {
        let sequence = index as u64 + 1;
        let message_id = line.plan.record(sequence).0.message_id;
        let request = LookupRequest {
            source: line.plan.source.code.clone(),
            dataset: line.plan.dataset.clone(),
            message_id: message_id.clone(),
            current: true,
            purpose: "test".to_owned(),
            ..LookupRequest::default()
        };
        let found = reader.lookup(request).await;
        let found = found.with_context(|| message_id.clone())?;
        let record = found.record.context("it is stored")?;
        ensure!(
            record.sequence == sequence && digest(&record.payload) == *wanted,
            "another record for {message_id}"
        );
    }
    Ok(())
}

/// Exactly the broken records of a source are in its quarantine, each with a reason.
async fn quarantine(
    cluster: &Cluster,
    source: &Source,
    lines: impl Iterator<Item = &Arc<Line>>,
) -> Result<()> {
    let mut wanted = BTreeSet::new();
    for line in lines {
        for (at, (_, valid)) in line.sent.lock().iter().enumerate() {
            if !valid {
                wanted.insert((line.plan.stream.clone(), at as u64 + 1));
            }
        }
    }
    let mut kept = BTreeSet::new();
    let request = QuarantineRequest { source: source.code.clone(), ..QuarantineRequest::default() };
    let mut pages = Reader::new(cluster.endpoint(source)?).quarantine(request);
    while let Some(page) = pages.next().await? {
        ensure!(page.beyond_quota == 0, "the quota is not reached");
        for record in page.records {
            ensure!(!record.messages_en.is_empty(), "{}: no reason", record.id);
            ensure!(
                kept.insert((record.stream, record.sequence)),
                "{}: it is there twice",
                record.id
            );
        }
    }
    // Some of each: there may be hundreds.
    let only = |a: &BTreeSet<(String, u64)>, b| a.difference(b).take(10).cloned().collect();
    let (more, less): (Vec<_>, Vec<_>) = (only(&kept, &wanted), only(&wanted, &kept));
    ensure!(
        kept == wanted,
        "{}: the quarantine holds {} of {}; too many are {more:?}, missing are {less:?}",
        source.code,
        kept.len(),
        wanted.len()
    );
    Ok(())
}
