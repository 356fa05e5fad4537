//! Bounded waits on a state; what form of a test is wanted, and what could not run.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const EVERY: Duration = Duration::from_millis(50);
/// Longest time for one look.
const LOOK_WITHIN: Duration = Duration::from_secs(15);

/// Looks until it succeeds.
///
/// # Errors
/// What the last look said, after `within`.
pub(crate) async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        let seen = tokio::time::timeout(LOOK_WITHIN, look()).await;
        match seen.context("no answer").and_then(|seen| seen) {
            Ok(seen) => return Ok(seen),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("waited {within:?} for {what}"));
            }
            Err(_) => tokio::time::sleep(EVERY).await,
        }
    }
}

/// Says that a part of a test cannot run here, to whoever runs the tests: what is printed by the
/// usual macros is not shown of a test that passes.
///
/// # Errors
/// Under CI, where everything must run.
pub(crate) fn did_not_run(why: &str) -> Result<()> {
    ensure!(std::env::var_os("CI").is_none(), "{why}");
    writeln!(std::io::stderr(), "DID NOT RUN: {why}").context("stderr")
}

/// The long form of the tests was asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("DTM_LONG").is_some_and(|value| value == "1")
}
