//! Ctrl-C, `kill` and a closed terminal end the demo in order.

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for the wish to end.
pub(crate) struct Signals([Signal; 3]);

impl Signals {
    /// From now on the three signals no longer end the process by themselves.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) fn new() -> Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [a, b, c] = kinds.map(signal);
        Ok(Self([a?, b?, c?]))
    }

    /// Returns at the first of them. Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        let [a, b, c] = &mut self.0;
        tokio::select! {
            _ = a.recv() => {}
            _ = b.recv() => {}
            _ = c.recv() => {}
        }
    }
}
