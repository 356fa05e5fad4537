//! Questions and answers between nodes: from and to the messages of `dtm.cluster.v1`, and what a
//! replica answers that has its rows frozen.

use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{StateError, StateRead};
use dtm_proto::cluster as wire;
use wire::compare_rows_response::Answer;

use crate::aim::Kept;
use crate::rows::{self, KeyRange, Page, RANGE_BYTES, ROWS_FROM, RangeDigest, RowHash};

/// Rows of one page.
const PAGE_ROWS: usize = 1_024;
/// A replica reads so many times what the leader has in a range, and no more.
const READ_TIMES: u64 = 2;

/// Digest of a range of frozen rows; `None` where they do not read, which is told in the log. The
/// blocking work goes beside the runtime.
pub(crate) async fn digest_of(rows: Arc<dyn StateRead>, range: KeyRange) -> Option<RangeDigest> {
    let bytes_max = READ_TIMES * RANGE_BYTES as u64;
    read(move || rows::digest(&*rows, &range, bytes_max)).await
}

/// First page of a range of frozen rows, as [`digest_of`].
pub(crate) async fn list_of(rows: Arc<dyn StateRead>, range: KeyRange) -> Option<Page> {
    read(move || rows::list(&*rows, &range, PAGE_ROWS)).await
}

pub(crate) async fn read<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(found)) => Some(found),
        Ok(Err(error)) => {
            tracing::warn!(%error, "rows could not be read to compare them");
            None
        }
        Err(error) => {
            tracing::error!(%error, "reading rows to compare them panicked");
            None
        }
    }
}

/// Answers for a digest of a peer's range.
pub async fn answer_digest(rows: Arc<dyn StateRead>, range: wire::KeyRange) -> Option<Answer> {
    let found = digest_of(rows, range_from_wire(range)).await?;
    let hash = Bytes::copy_from_slice(&found.hash);
    Some(Answer::Digest(wire::RangeDigest { rows: found.rows, hash }))
}

/// Answers with the first page of a peer's range.
pub async fn answer_list(rows: Arc<dyn StateRead>, range: wire::KeyRange) -> Option<Answer> {
    let page = list_of(rows, range_from_wire(range)).await?;
    let to_wire = |row: RowHash| {
        let hash = Bytes::copy_from_slice(&row.hash);
        wire::RowHash { key: row.key, hash }
    };
    let rows = page.rows.into_iter().map(to_wire).collect();
    Some(Answer::List(wire::RowHashes { rows, whole: page.is_whole }))
}

/// Answers what became of freezing.
pub fn answer_kept(kept: Kept) -> Answer {
    let state = match kept {
        Kept::Kept => wire::FrozenRowsState::Kept,
        Kept::Passed => wire::FrozenRowsState::Passed,
        Kept::Behind => wire::FrozenRowsState::Behind,
    };
    Answer::Frozen(wire::FrozenRows { state: state.into() })
}

/// `None` where it is another answer.
pub(crate) fn kept_from(answer: Answer) -> Option<Kept> {
    let Answer::Frozen(frozen) = answer else { return None };
    match frozen.state() {
        wire::FrozenRowsState::Kept => Some(Kept::Kept),
        wire::FrozenRowsState::Passed => Some(Kept::Passed),
        wire::FrozenRowsState::Behind => Some(Kept::Behind),
        wire::FrozenRowsState::Unspecified => None,
    }
}

/// `None` where it is another answer, or none.
pub(crate) fn digest_from(answer: Answer) -> Option<RangeDigest> {
    let Answer::Digest(digest) = answer else { return None };
    Some(RangeDigest { rows: digest.rows, hash: digest.hash[..].try_into().ok()? })
}

/// `None` where it is another answer, or none.
pub(crate) fn page_from(answer: Answer) -> Option<Page> {
    let Answer::List(page) = answer else { return None };
    let from_wire =
        |row: wire::RowHash| Some(RowHash { hash: row.hash[..].try_into().ok()?, key: row.key });
    let rows: Vec<RowHash> = page.rows.into_iter().map(from_wire).collect::<Option<_>>()?;
    // A page that is not all of the range goes on from its last row.
    let is_one = (page.whole || !rows.is_empty()) && rows.is_sorted_by(|a, b| a.key < b.key);
    is_one.then_some(Page { rows, is_whole: page.whole })
}

pub(crate) fn range_to_wire(range: KeyRange) -> wire::KeyRange {
    wire::KeyRange { from: range.from, to: range.to }
}

fn range_from_wire(range: wire::KeyRange) -> KeyRange {
    // What a replica writes for itself is nobody else's.
    let from = range.from.max(Bytes::from_static(ROWS_FROM));
    KeyRange { from, to: range.to }
}

#[cfg(test)]
mod tests {
    use dtm_machine::seams::{MemoryStateStore, StateBatch, StateStore};
    use dtm_types::GroupId;

    use super::*;

    #[tokio::test]
    async fn what_is_told_over_the_wire_is_what_is_here() {
        let store = MemoryStateStore::new(GroupId(1));
        let mut batch = StateBatch::default();
        batch.put([0x10, 1], b"one");
        batch.put([0x00, 2], b"its own note");
        store.write(&batch).expect("memory");
        let rows = || store.freeze();
        let range = KeyRange { from: Bytes::new(), to: rows::ROWS_TO.into() };
        let own = KeyRange { from: ROWS_FROM.into(), ..range.clone() };
        let asked = || range_to_wire(range.clone());
        let digest = answer_digest(rows(), asked()).await.and_then(digest_from);
        assert_eq!(digest, digest_of(rows(), own.clone()).await);
        assert_eq!(digest.map(|digest| digest.rows), Some(1), "the note is nobody else's");
        let page = answer_list(rows(), asked()).await.and_then(page_from);
        assert_eq!(page, list_of(rows(), own).await);
        for kept in [Kept::Kept, Kept::Passed, Kept::Behind] {
            assert_eq!(kept_from(answer_kept(kept)), Some(kept));
        }
        let endless = Answer::List(wire::RowHashes::default());
        assert_eq!(page_from(endless), None, "a part of nothing has no end");
        assert_eq!(digest_from(Answer::Digest(wire::RangeDigest::default())), None);
    }
}
