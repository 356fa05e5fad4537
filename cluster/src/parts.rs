//! The parts of a node: work that goes on as long as the node does. One that returns or panics ends
//! the node, whose half would hold up the others.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owner of the parts' tasks.
pub(crate) struct Parts {
    stop: CancellationToken,
    tasks: TaskTracker,
    /// The first part that ended although the node was to go on.
    ended: watch::Sender<Option<&'static str>>,
}

impl Parts {
    /// They end when `stop` is cancelled.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { stop, tasks: TaskTracker::new(), ended: watch::channel(None).0 }
    }

    /// Begins one.
    pub(crate) fn spawn(
        &self,
        part: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let (stop, ended) = (self.stop.clone(), self.ended.clone());
        self.tasks.spawn(async move {
            // What a part leaves half done when it panics is looked at by nobody: the node ends.
            let work = AssertUnwindSafe(work).catch_unwind();
            match stop.run_until_cancelled(work).await {
                None => return,
                // At a planned stop what a part waits for may end before the part is ended.
                Some(Ok(())) if stop.is_cancelled() => return,
                Some(Ok(())) => tracing::error!(part, "a part of the node ended"),
                // `dtm` ends in its panic hook before this, which tells text and place; who runs a node
                // without that hook is told here.
                Some(Err(_)) => tracing::error!(part, "a part of the node panicked"),
            }
            ended.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(part);
                is_first
            });
        });
    }

    /// Returns when a part ended although it was to go on, with its name. Cancel-safe.
    pub(crate) async fn ended(&self) -> &'static str {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(name) => name.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends all of them.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns when all have ended; to be told to [`Parts::stop`] before.
    pub(crate) async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn ended(parts: &Parts) -> Option<&'static str> {
        tokio::time::timeout(Duration::from_secs(10), parts.ended()).await.ok()
    }

    #[tokio::test]
    async fn a_part_that_panics_is_told_by_name() {
        let parts = Parts::new(CancellationToken::new());
        parts.spawn("endless", std::future::pending());
        parts.spawn("defective", async { panic!("a defect of {}", "this part") });
        assert_eq!(ended(&parts).await, Some("defective"));
        parts.spawn("brief", async {});
        assert_eq!(ended(&parts).await, Some("defective"), "the first");
        parts.stop();
        tokio::time::timeout(Duration::from_secs(10), parts.wait()).await.expect("all end");
    }

    #[tokio::test]
    async fn a_part_that_returns_is_told_and_one_that_is_stopped_is_not() {
        let parts = Parts::new(CancellationToken::new());
        parts.spawn("endless", std::future::pending());
        parts.stop();
        parts.wait().await;
        assert_eq!(parts.ended().now_or_never(), None);
        let stop = CancellationToken::new();
        let parts = Parts::new(stop.clone());
        parts.spawn("heard of the stop first", async move { stop.cancel() });
        parts.wait().await;
        assert_eq!(parts.ended().now_or_never(), None);
        let parts = Parts::new(CancellationToken::new());
        parts.spawn("brief", async {});
        assert_eq!(ended(&parts).await, Some("brief"));
    }
}
