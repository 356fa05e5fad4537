//! One comparison of all rows of a group, by its leader.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};

use crate::rows::{Cut, KeyRange, Page, ROWS_FROM, RangeDigest};
use crate::verdict::{Difference, majority, narrow};

/// Differences that are kept with their keys; of the others only the number is.
const NAMED_MAX: usize = 16;
/// Beyond so many differing rows ranges are judged as a whole: whoever holds something else there is
/// known by then.
const NARROWED_MAX: u64 = 10_000;

/// The replicas of a group, each with its rows frozen at one applied index.
pub trait Replicas: Send + Sync {
    /// The next range of the asking replica's own rows; `None` where they do not read.
    fn cut(&self, from: Bytes) -> BoxFuture<'_, Option<Cut>>;

    /// Of a range on a replica, the asking one among them; `None` where it does not answer or does
    /// not hold that index any more.
    fn digest(&self, replica: u64, range: KeyRange) -> BoxFuture<'_, Option<RangeDigest>>;

    /// The first rows of a range on a replica; `None` as for a digest.
    fn list(&self, replica: u64, range: KeyRange) -> BoxFuture<'_, Option<Page>>;

    /// Waits until so many bytes more may be read.
    fn pace(&self, bytes: u64) -> BoxFuture<'_, ()>;
}

/// Who is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The replica that asks; it is compared like any other.
    pub own: u64,
    /// All voters of the group, whether they can be asked or not.
    pub voters: BTreeSet<u64>,
    /// Replicas whose rows are frozen.
    pub replicas: BTreeSet<u64>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows and their bytes of the replica that asked.
    pub rows: u64,
    /// See `rows`.
    pub bytes: u64,
    /// Replicas that answered to the end.
    pub compared: BTreeSet<u64>,
    /// Rows that are not the same everywhere (ranges, once there were too many).
    pub differing: u64,
    /// Of them those of which nobody knows what is right.
    pub undecided: u64,
    /// How many are wrong, by replica.
    pub odd: BTreeMap<u64, u64>,
    /// The first of them.
    pub named: Vec<Difference>,
}

impl Report {
    /// Replicas that answered to the end and hold nothing that is wrong.
    pub fn sound(&self) -> BTreeSet<u64> {
        let is_sound = |replica: &&u64| !self.odd.contains_key(replica);
        self.compared.iter().filter(is_sound).copied().collect()
    }

    fn enter(&mut self, difference: Difference) {
        self.differing += 1;
        self.undecided += u64::from(!difference.is_decided());
        for replica in &difference.odd {
            *self.odd.entry(*replica).or_default() += 1;
        }
        if self.named.len() < NAMED_MAX {
            self.named.push(difference);
        }
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to hold the others against.
    #[error("own rows do not read")]
    OwnRows,
    /// No majority of the voters answers.
    #[error("{answering} of {voters} voters hold their rows still: too few to know who is right")]
    TooFew {
        /// Voters that still answer.
        answering: usize,
        /// All of them.
        voters: usize,
    },
}

/// Compares every row of the replicas, range by range. A replica that ceases to answer is left out
/// from there on. Cancel-safe: nothing is changed anywhere.
///
/// # Errors
/// [`Error::TooFew`] once no majority of the voters is left.
pub async fn pass(replicas: &dyn Replicas, question: &Question) -> Result<Report, Error> {
    let compared = question.replicas.clone();
    let mut pass = Pass { replicas, question, report: Report { compared, ..Report::default() } };
    let mut from = Bytes::from_static(ROWS_FROM);
    loop {
        let cut = replicas.cut(from).await.ok_or(Error::OwnRows)?;
        pass.range(&cut).await?;
        pass.report.rows += cut.digest.rows;
        pass.report.bytes += cut.bytes;
        replicas.pace(cut.bytes).await;
        if cut.is_last {
            return Ok(pass.report);
        }
        from = cut.range.to;
    }
}

struct Pass<'a> {
    replicas: &'a dyn Replicas,
    question: &'a Question,
    report: Report,
}

impl Pass<'_> {
    async fn range(&mut self, cut: &Cut) -> Result<(), Error> {
        let (own, replicas) = (self.question.own, self.replicas);
        let others = self.report.compared.iter().copied().filter(|replica| *replica != own);
        let asked =
            others.map(async |id| Some((id, replicas.digest(id, cut.range.clone()).await?)));
        let mut digests: BTreeMap<u64, RangeDigest> =
            join_all(asked).await.into_iter().flatten().collect();
        digests.insert(own, cut.digest);
        self.keep(&digests)?;
        if digests.values().all(|digest| *digest == cut.digest) {
            return Ok(());
        }
        if self.report.differing < NARROWED_MAX {
            return self.narrow(cut.range.clone()).await;
        }
        let right = majority(&digests, &self.question.voters);
        let is_odd = |digest: &RangeDigest| right.is_some_and(|right| right != *digest);
        let odd = digests.iter().filter(|(_, digest)| is_odd(digest)).map(|(id, _)| *id);
        let key = cut.range.from.clone();
        self.report.enter(Difference { key, odd: odd.collect() });
        Ok(())
    }

    /// Which rows of a range differ, page by page.
    async fn narrow(&mut self, mut range: KeyRange) -> Result<(), Error> {
        let replicas = self.replicas;
        loop {
            let asked = self.report.compared.iter();
            let asked = asked.map(async |&id| Some((id, replicas.list(id, range.clone()).await?)));
            let pages: BTreeMap<u64, Page> = join_all(asked).await.into_iter().flatten().collect();
            self.keep(&pages)?;
            let narrowed = narrow(&pages, &self.question.voters);
            narrowed.differences.into_iter().for_each(|found| self.report.enter(found));
            let read = pages.values().flat_map(|page| &page.rows);
            let bytes = read.map(|row| row.key.len() as u64).max().unwrap_or_default();
            let rows = pages.values().map(|page| page.rows.len() as u64).max().unwrap_or_default();
            self.replicas.pace(bytes * rows).await;
            match narrowed.next {
                Some(next) if self.report.differing < NARROWED_MAX => range.from = next,
                _ => return Ok(()),
            }
        }
    }

    /// Goes on with those that answered.
    fn keep<T>(&mut self, answers: &BTreeMap<u64, T>) -> Result<(), Error> {
        self.report.compared.retain(|replica| answers.contains_key(replica));
        let voters = &self.question.voters;
        let answering = self.report.compared.intersection(voters).count();
        if 2 * answering > voters.len() {
            return Ok(());
        }
        Err(Error::TooFew { answering, voters: voters.len() })
    }
}
