//! Answers that end when the right they are given under is gone.

use futures::{Stream, StreamExt};
use tonic::Status;

use crate::rights::Entered;

/// The answers as long as the right holds, then the status that says why not. What was read and not
/// yet taken is dropped, and with it the work behind.
pub(crate) fn guarded<T, A>(
    answers: A,
    right: Entered,
) -> impl Stream<Item = Result<T, Status>> + Send
where
    T: Send,
    A: Stream<Item = Result<T, Status>> + Send + Unpin,
{
    futures::stream::unfold(Some((answers, right)), |open| async move {
        let (mut answers, mut right): (A, Entered) = open?;
        tokio::select! {
            biased;
            cut = right.cut() => Some((Err(cut.status()), None)),
            answer = answers.next() => Some((answer?, Some((answers, right)))),
        }
    })
}
