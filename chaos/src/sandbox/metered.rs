//! A scenario on a runtime of its own whose counters are its own: tests run side by side in one
//! process, and a counter of all of them would show each the faults of the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    set_default_local_recorder,
};
use parking_lot::Mutex;

use crate::checker::Counts;

/// Counters of the threads that run one scenario. What the log's own threads count is not among them.
#[derive(Debug, Default)]
pub struct Meter {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
}

impl Meter {
    /// The counters now.
    pub fn counts(&self) -> Counts {
        let counters = self.counters.lock();
        counters.iter().map(|(name, n)| (name.clone(), n.load(Ordering::Relaxed))).collect()
    }
}

impl Recorder for Meter {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.counters.lock();
        let counter = counters.entry(key.name().to_owned()).or_default();
        Counter::from_arc(Arc::clone(counter))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Runs a scenario to its end.
///
/// # Panics
/// When the system gives no threads.
pub fn metered<T>(scenario: impl AsyncFnOnce(&Meter) -> T) -> T {
    // Threads outlive every guard that could be held for them; a scenario leaks some counters.
    let meter: &'static Meter = Box::leak(Box::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(|| std::mem::forget(set_default_local_recorder(meter)))
        .build()
        .expect("threads can be had");
    let _own = set_default_local_recorder(meter);
    runtime.block_on(scenario(meter))
}
