//! One comparison of a group, by its leader: an index, a pass, what it says in words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_machine::seams::{StateError, StateRead};
use dtm_proto::cluster as wire;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use wire::compare_rows_request::Ask;
use wire::compare_rows_response::Answer;

use crate::aim::{Aim, Kept};
use crate::kept::RowsCompared;
use crate::pass::{self, Question, Replicas, Report};
use crate::rows::{Cut, KeyRange, Page, RANGE_BYTES, RangeDigest, cut};
use crate::wire as messages;

/// Indexes that are tried at which all replicas are to freeze their rows.
const AIMS_MAX: u32 = 16;

/// How the leader of a group reaches its replicas.
pub trait Way: Send + Sync {
    /// Its own replica.
    fn own(&self) -> u64;

    /// Through which index it has applied the log.
    fn applied(&self) -> u64;

    /// Freezes its own rows at an index, once it is there.
    fn freeze(&self, index: u64) -> BoxFuture<'_, Kept>;

    /// Its own rows as they were at an index, where they are kept.
    fn rows(&self, index: u64) -> Option<Arc<dyn StateRead>>;

    /// Asks another replica something about its rows at an index; `None` where it does not answer.
    fn ask(&self, replica: u64, index: u64, ask: Ask) -> BoxFuture<'_, Option<Answer>>;

    /// Waits until so many bytes more may be read.
    fn pace(&self, bytes: u64) -> BoxFuture<'_, ()>;
}

/// Why a group was not compared this time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is in its first moments.
    #[error("nothing is applied yet")]
    Empty,
    /// They pass each index before they are asked, or do not get there.
    #[error("at no index all replicas that answer could freeze their rows")]
    NoIndex,
    /// See there.
    #[error(transparent)]
    Pass(#[from] pass::Error),
}

/// What a comparison found, and at which index.
#[derive(Clone, Debug)]
pub struct Found {
    /// Applied index.
    pub index: u64,
    /// What differs.
    pub report: Report,
    /// The first rows that differ, in words, as the report names them.
    pub named: Vec<String>,
}

impl Found {
    /// For those who look at the group, which has so many members.
    pub fn told(&self, members: usize) -> RowsCompared {
        let report = &self.report;
        RowsCompared {
            index: self.index,
            age: Duration::ZERO,
            rows: report.rows,
            replicas: report.compared.len(),
            absent: members.saturating_sub(report.compared.len()),
            differing: report.differing,
            undecided: report.undecided,
            named: self.named.clone(),
        }
    }
}

/// Compares the rows of a group's members at one index. Who does not answer or is too far behind is
/// left out. Nothing is changed anywhere.
///
/// # Errors
/// [`Error`]: nothing is known then.
pub async fn compare(
    way: &dyn Way,
    members: &BTreeSet<u64>,
    voters: &BTreeSet<u64>,
) -> Result<Found, Error> {
    let mut asking = Asking { way, index: 0, rows: None };
    let replicas = asking.freeze(members).await?;
    let question = Question { own: way.own(), voters: voters.clone(), replicas };
    let report = pass::pass(&asking, &question).await?;
    let named = report.named.iter().map(|found| asking.name(&found.key)).collect();
    Ok(Found { index: asking.index, report, named })
}

struct Asking<'a> {
    way: &'a dyn Way,
    index: u64,
    /// Own rows at that index, once they are frozen.
    rows: Option<Arc<dyn StateRead>>,
}

impl Asking<'_> {
    /// Finds an index at which they all freeze their rows; those that did.
    async fn freeze(&mut self, members: &BTreeSet<u64>) -> Result<BTreeSet<u64>, Error> {
        let (way, own, mut aim) = (self.way, self.way.own(), Aim::default());
        for _ in 0..AIMS_MAX {
            let index = aim.index(way.applied());
            if index == 0 {
                return Err(Error::Empty);
            }
            let asked = members.iter().filter(|id| **id != own).map(async |&id| {
                let answer = way.ask(id, index, Ask::Freeze(wire::FreezeRows {})).await?;
                Some((id, messages::kept_from(answer)?))
            });
            let (kept, others) = futures::future::join(way.freeze(index), join_all(asked)).await;
            let others: BTreeMap<u64, Kept> = others.into_iter().flatten().collect();
            if !aim.told(kept, &others.values().copied().collect::<Vec<_>>()) {
                continue;
            }
            (self.index, self.rows) = (index, way.rows(index));
            let are_kept = others.into_iter().filter(|(_, kept)| *kept == Kept::Kept);
            return Ok(are_kept.map(|(id, _)| id).chain([own]).collect());
        }
        Err(Error::NoIndex)
    }

    fn name(&self, key: &Bytes) -> String {
        let value = self.rows.as_ref().and_then(|rows| rows.get(key).ok().flatten());
        crate::name(key, value.as_deref())
    }
}

impl Replicas for Asking<'_> {
    fn cut(&self, from: Bytes) -> BoxFuture<'_, Option<Cut>> {
        let cutting = async move {
            let rows = self.rows.clone()?;
            messages::read(move || -> Result<Cut, StateError> { cut(&*rows, &from, RANGE_BYTES) })
                .await
        };
        cutting.boxed()
    }

    fn digest(&self, replica: u64, range: KeyRange) -> BoxFuture<'_, Option<RangeDigest>> {
        let asking = async move {
            if replica == self.way.own() {
                return messages::digest_of(self.rows.clone()?, range).await;
            }
            let ask = Ask::Digest(messages::range_to_wire(range));
            messages::digest_from(self.way.ask(replica, self.index, ask).await?)
        };
        asking.boxed()
    }

    fn list(&self, replica: u64, range: KeyRange) -> BoxFuture<'_, Option<Page>> {
        let asking = async move {
            if replica == self.way.own() {
                return messages::list_of(self.rows.clone()?, range).await;
            }
            let ask = Ask::List(messages::range_to_wire(range));
            messages::page_from(self.way.ask(replica, self.index, ask).await?)
        };
        asking.boxed()
    }

    fn pace(&self, bytes: u64) -> BoxFuture<'_, ()> {
        self.way.pace(bytes)
    }
}
