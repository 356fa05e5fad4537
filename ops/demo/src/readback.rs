//! Reads everything back from one node, source by source with the source's own key, and holds it
//! against what was sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dtm_client::Reader;
use dtm_proto::records::ReadRequest;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::history::{Checker, Findings, StreamHistory};
use crate::register::Registered;
use crate::say::Say;
use crate::sending::digest;

/// Sources that are read at once.
const AT_ONCE: usize = 4;
/// Longest time for one node.
const WITHIN: Duration = Duration::from_secs(300);

/// Histories of the streams of one source, by name of the stream.
pub(crate) type Histories = HashMap<&'static str, Arc<Mutex<StreamHistory>>>;

/// Reads all sources from node `at`.
///
/// # Errors
/// What the node said, or that it took longer than five minutes.
pub(crate) async fn node(
    cluster: &Cluster,
    say: Say,
    at: usize,
    sources: &[(Registered, Arc<Histories>)],
) -> Result<Findings> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut reads = JoinSet::new();
    for (source, histories) in sources {
        let reader = Reader::new(source.at(cluster, at)?);
        let (code, histories, permits) =
            (source.plan.code.clone(), histories.clone(), permits.clone());
        reads.spawn(async move {
            let _permit = permits.acquire_owned().await?;
            one(&reader, &code, &histories).await.context(code)
        });
    }
    let name = cluster.nodes[at].name.clone();
    let all = async {
        let mut findings = Findings::default();
        while let Some(read) = reads.join_next().await {
            findings.add(&read??);
        }
        Ok(findings)
    };
    let late = || say.text("too_long", &[("what", &name)]);
    tokio::time::timeout(WITHIN, all).await.with_context(late)?
}

async fn one(reader: &Reader, code: &str, histories: &Histories) -> Result<Findings> {
    // The count is over: nothing is sent or acked while this runs.
    let frozen: HashMap<&'static str, StreamHistory> =
        histories.iter().map(|(stream, history)| (*stream, history.lock().clone())).collect();
    let mut checker = Checker::new(&frozen);
    let mut records = reader.read(ReadRequest {
        source: code.to_owned(),
        current: true,
        purpose: "demo".to_owned(),
        ..ReadRequest::default()
    });
    while let Some(answer) = records.next().await? {
        // Else a lag of this node would look like a loss.
        ensure!(answer.current, "the node answered with a view that is not current");
        for record in answer.records {
            checker.stored(&record.stream, record.sequence, digest(&record.payload));
        }
    }
    Ok(checker.finish())
}
