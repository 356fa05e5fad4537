//! The seam between the load generator and what is measured. An arm is a [`Driver`] (its cluster
//! and its settings) that hands out one [`Source`] a sending system (one connection each).
//!
//! Promises an arm makes: an acknowledgement is reported only when the arm's own mode says the
//! record is safe; a source's records are handed over in order; `read_back` reads from the named
//! node's own copy wherever the system can do that, and says so in its settings where it cannot.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Error;
use crate::record::Records;
use crate::verify::Check;

/// What a fresh cluster has to be ready for.
#[derive(Debug, Clone)]
pub struct Setup {
    /// An empty folder on the disk that is measured; the arm puts everything below it.
    pub folder: PathBuf,
    /// Sources numbered from 0 that will connect.
    pub sources: u32,
    /// The records of the run.
    pub records: Arc<Records>,
    /// Most records of a source in flight.
    pub window: u32,
}

/// Consecutive records of one source, one behind the other in `bytes`.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Sequence of the first record.
    pub first: u64,
    /// All records.
    pub bytes: &'a [u8],
    /// Bytes of each.
    pub record_bytes: usize,
}

impl<'a> Window<'a> {
    /// Each record with its sequence.
    pub fn records(&self) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        (self.first..).zip(self.bytes.chunks_exact(self.record_bytes))
    }
}

/// How an arm's copies are checked after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBack {
    /// All records of the node went through the check.
    Done,
    /// The arm stores nothing (a ceiling): its acknowledgements are counted only.
    NotStored,
}

/// One arm of a comparison.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Name of the arm with its options, as the command line spells it.
    fn arm(&self) -> String;

    /// Settings worth keeping with a result (versions, sync mode, streams …).
    fn settings(&self) -> serde_json::Value;

    /// Starts a fresh cluster and makes it ready for `setup`; bounded.
    ///
    /// # Errors
    /// When a program is missing or the cluster is not ready in time.
    async fn setup(&mut self, setup: &Setup) -> Result<(), Error>;

    /// The processes of the cluster; their descendants are counted with them.
    fn pids(&self) -> Vec<u32>;

    /// Nodes whose copies are read back.
    fn nodes(&self) -> usize {
        3
    }

    /// Room that must be free in a source's window before it is filled again (1 = at once). An
    /// arm that sends frames asks for a whole frame.
    fn refill(&self, _window: u32) -> u32 {
        1
    }

    /// Opens the connection of one source, or opens it again.
    ///
    /// # Errors
    /// When the connection is not made.
    async fn connect(&self, source: u32) -> Result<Box<dyn Source>, Error>;

    /// Whether several nodes may be read back at the same time.
    fn reads_side_by_side(&self) -> bool {
        true
    }

    /// Passes every stored record of `node` through `check`, each source's in the order in which
    /// that node keeps them.
    ///
    /// # Errors
    /// When the node cannot be read.
    async fn read_back(&self, node: usize, check: &mut Check) -> Result<ReadBack, Error>;

    /// Counters of the arm's own (for example `log_syncs`, `commit_rounds`); a run keeps the
    /// differences over the measured time.
    ///
    /// # Errors
    /// When they cannot be read.
    async fn counters(&self) -> Result<BTreeMap<String, f64>, Error> {
        Ok(BTreeMap::new())
    }

    /// Kills (SIGKILL) the node that leads most; returns which.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on an arm without this drill.
    async fn kill_busiest(&mut self) -> Result<usize, Error> {
        Err(Error::Unsupported { arm: self.arm(), what: "a kill of the busiest node" })
    }

    /// Starts a killed node again; returns when it takes part.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on an arm without this drill.
    async fn restart(&mut self, _node: usize) -> Result<(), Error> {
        Err(Error::Unsupported { arm: self.arm(), what: "a restart" })
    }

    /// Ends all processes of the arm. The folder stays for the caller.
    async fn stop(&mut self);
}

/// One sending system with a connection of its own. Used by one task.
#[async_trait]
pub trait Source: Send {
    /// Hands records to the connection. Returns when they are written or queued within the
    /// window; not when they are acknowledged.
    ///
    /// # Errors
    /// When the connection is lost.
    async fn send(&mut self, window: Window<'_>) -> Result<(), Error>;

    /// Waits until at least one more record is acknowledged and appends the sequences to
    /// `acked`, in any order. Cancel-safe: dropping the future loses no acknowledgement.
    ///
    /// # Errors
    /// When a record is refused or the connection is lost.
    async fn acked(&mut self, acked: &mut Vec<u64>) -> Result<(), Error>;
}
