//! Reads every source back from every node by itself and holds it against what was sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dtm_client::Reader;
use dtm_proto::records::ReadRequest;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::history::{Checker, Findings, digest, ranges};
use crate::load::{DATASET, Source};

/// Sources that are read at once.
const AT_ONCE: usize = 6;

/// What was found on all nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Records that were acked and that some node does not return.
    pub(crate) lost: u64,
    /// Which, on which node.
    pub(crate) lost_ranges: Vec<String>,
    /// Source and sequence of each.
    pub(crate) lost_records: BTreeSet<(String, u64)>,
    /// What is there and should not be: doubled, out of order, never sent.
    pub(crate) wrong: Vec<String>,
    /// Records that were held against what was sent, over all nodes.
    pub(crate) read: u64,
}

/// Reads all sources from all nodes of the cluster that hold records; what was acked when it began must be there.
///
/// # Errors
/// What a node said, or that it took longer than `within`.
pub(crate) async fn all(
    cluster: &Cluster,
    sources: &[Arc<Source>],
    within: Duration,
) -> Result<Found> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut reads = JoinSet::new();
    for at in cluster.doors() {
        for source in sources {
            let reader = Reader::new(source.endpoint(cluster, &[at])?);
            let (source, permits) = (source.clone(), permits.clone());
            let node = cluster.nodes[at].name.clone();
            reads.spawn(async move {
                let _permit = permits.acquire_owned().await?;
                let (findings, read) = one(&reader, &source)
                    .await
                    .with_context(|| format!("{} on {node}", source.code))?;
                anyhow::Ok((source.code.clone(), node, findings, read))
            });
        }
    }
    let gathered = async {
        let mut found = Vec::new();
        while let Some(read) = reads.join_next().await {
            found.push(read??);
        }
        found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        anyhow::Ok(found)
    };
    let late = || format!("reading back took longer than {} s", within.as_secs());
    let found = tokio::time::timeout(within, gathered).await.with_context(late)??;
    Ok(sum(&found))
}

fn sum(found: &[(String, String, Findings, u64)]) -> Found {
    let mut all = Found::default();
    for (source, node, findings, read) in found {
        all.read += read;
        let lost = findings.lost.iter().map(|sequence| (source.clone(), *sequence));
        all.lost_records.extend(lost);
        let on = |range: String| format!("{source}/{DATASET} {range} ({node})");
        all.lost_ranges.extend(ranges(&findings.lost).into_iter().map(on));
        for (what, sequences) in [
            ("stored twice (ING-2)", &findings.doubled),
            ("out of order (ING-3)", &findings.out_of_order),
            ("never sent so (ING-4)", &findings.strange),
        ] {
            let wrong = ranges(sequences).into_iter().map(|range| format!("{} {what}", on(range)));
            all.wrong.extend(wrong);
        }
    }
    all.lost = all.lost_records.len() as u64;
    all
}

async fn one(reader: &Reader, source: &Source) -> Result<(Findings, u64)> {
    let mut checker = Checker::new(&source.history.lock());
    let mut read = 0;
    let mut records = reader.read(ReadRequest {
        source: source.code.clone(),
        current: true,
        purpose: "drill".to_owned(),
        ..ReadRequest::default()
    });
    while let Some(answer) = records.next().await? {
        // Else a lag of this node would look like a loss.
        ensure!(answer.current, "the node answered with a view that is not current");
        let history = source.history.lock();
        for record in answer.records {
            ensure!(record.stream == DATASET, "a stream that nobody opened: {}", record.stream);
            checker.stored(&history, record.sequence, digest(&record.payload));
            read += 1;
        }
    }
    Ok((checker.finish(), read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_two_nodes_lack_is_one_loss_and_named_for_each() {
        let of = |node: &str, lost: &[u64], doubled: &[u64]| {
            let findings =
                Findings { lost: lost.to_vec(), doubled: doubled.to_vec(), ..Findings::default() };
            ("src-001".to_owned(), node.to_owned(), findings, 10)
        };
        let found = sum(&[of("n1", &[3, 4], &[]), of("n2", &[4, 5, 9], &[]), of("n3", &[], &[7])]);
        assert_eq!((found.lost, found.read), (4, 30));
        let named = ["src-001/drill 3-4 (n1)", "src-001/drill 4-5 (n2)", "src-001/drill 9 (n2)"];
        assert_eq!(found.lost_ranges, named);
        assert_eq!(found.wrong, ["src-001/drill 7 (n3) stored twice (ING-2)"]);
    }
}
