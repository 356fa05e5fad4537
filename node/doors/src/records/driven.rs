//! Work that gives answers, carried on only while its caller takes them: no task of its own, and no
//! answer ready before the one before it is taken.

use std::future::{Future, poll_fn};
use std::task::Poll;

use futures::Stream;
use tokio::sync::mpsc;
use tonic::Status;

/// Where the work gives its answers.
pub(crate) struct Giver<T>(mpsc::Sender<Result<T, Status>>);

impl<T> Giver<T> {
    /// Gives an answer. Goes on when the next one is asked for.
    pub(crate) async fn give(&self, answer: Result<T, Status>) {
        // Fails where nobody asks any more: then nothing goes on either.
        if self.0.send(answer).await.is_err() {
            return;
        }
        let mut is_given = false;
        // No waker: whoever takes the answer polls the work again for the next.
        poll_fn(|_| {
            if std::mem::replace(&mut is_given, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// The answers of `work`, as they are asked for; an error of it is the last.
pub(crate) fn driven<T, W>(
    work: impl FnOnce(Giver<T>) -> W,
) -> impl Stream<Item = Result<T, Status>>
where
    W: Future<Output = Result<(), Status>>,
{
    let (sender, mut given) = mpsc::channel(1);
    let last = Giver(sender.clone());
    let work = work(Giver(sender));
    let mut work = Box::pin(async move {
        if let Err(error) = work.await {
            last.give(Err(error)).await;
        }
    });
    let mut is_done = false;
    futures::stream::poll_fn(move |context| {
        if !is_done && work.as_mut().poll(context).is_ready() {
            is_done = true;
            given.close();
        }
        given.poll_recv(context)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_as_its_answers_are_taken() {
        let begun = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&begun);
        let mut answers = driven(|giver| async move {
            for n in 0..5 {
                counted.fetch_add(1, Ordering::Relaxed);
                giver.give(Ok(n)).await;
            }
            Err(Status::aborted("the end"))
        });
        for n in 0..5 {
            assert_eq!(answers.next().await.expect("goes on").expect("an answer"), n);
            assert_eq!(begun.load(Ordering::Relaxed), n + 1, "no answer before it is asked for");
        }
        assert!(answers.next().await.expect("the error").is_err());
        assert!(answers.next().await.is_none());
    }
}
