//! One question to the leader of meta at a time, for everybody who needs its answer.
//!
//! A credential that does not hold here may have been issued a moment ago on another node, so the
//! leader is asked. Who calls is not known by then: what that costs must not follow how often it is
//! called.
//!
//! ```text
//!  calls   a  b c   d e f g
//!          │  └┴─┐  └┴┴┴┐
//!  rounds  1═════╧2═════╧3═══     each answers all who came before it began
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::Status;

/// Rounds begin at least this far apart: a call waits so much longer at most.
const PAUSE: Duration = Duration::from_millis(50);

/// The rounds of a node.
#[derive(Default)]
pub struct Confirmations {
    begun: AtomicU64,
    last: Mutex<Option<Round>>,
}

/// A round that has ended.
struct Round {
    number: u64,
    began: Instant,
    result: Result<(), Status>,
}

impl Confirmations {
    /// The result of a round that began after this call; who needs one and finds none on its way asks.
    /// Waits for two rounds at most. Cancel-safe: another caller asks instead.
    pub async fn confirm(
        &self,
        ask: impl Future<Output = Result<(), Status>>,
    ) -> Result<(), Status> {
        let came = self.begun.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        if let Some(round) = &*last {
            if round.number > came {
                return round.result.clone();
            }
            tokio::time::sleep_until(round.began + PAUSE).await;
        }
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let began = Instant::now();
        let result = ask.await;
        *last = Some(Round { number, began, result: result.clone() });
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::join_all;

    use super::*;

    const ROUND: Duration = Duration::from_millis(20);

    /// Asks, and tells the number of the round as an error's text where that is wanted.
    async fn ask(asked: &AtomicU64, fails: bool) -> Result<(), Status> {
        let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(ROUND).await;
        if fails { Err(Status::unavailable(number.to_string())) } else { Ok(()) }
    }

    // holds: LIVE-1
    #[tokio::test]
    async fn callers_that_come_together_cost_two_rounds() {
        for fails in [false, true] {
            let (rounds, asked) = (Confirmations::default(), AtomicU64::new(0));
            let calls = (0..1_000).map(|_| rounds.confirm(ask(&asked, fails)));
            let results = join_all(calls).await;
            assert_eq!(asked.load(Ordering::SeqCst), 2, "the first is on its way when others come");
            assert!(results.iter().all(|result| result.is_err() == fails));
        }
    }

    #[tokio::test]
    async fn a_round_that_began_before_the_call_is_no_answer_to_it() {
        let (rounds, asked) = (Confirmations::default(), AtomicU64::new(0));
        let late = async {
            tokio::time::sleep(ROUND / 2).await;
            rounds.confirm(ask(&asked, true)).await
        };
        let (first, second) = tokio::join!(rounds.confirm(ask(&asked, true)), late);
        assert_eq!(first.expect_err("fails").message(), "1");
        assert_eq!(second.expect_err("fails").message(), "2");
    }

    // holds: LIVE-1
    #[tokio::test]
    async fn callers_that_never_stop_cost_one_round_a_pause() {
        let shared = Arc::new((Confirmations::default(), AtomicU64::new(0)));
        let begun = Instant::now();
        let callers = (0..50).map(|_| async {
            let (rounds, asked) = &*shared;
            while begun.elapsed() < 10 * PAUSE {
                let ask = async {
                    asked.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                };
                rounds.confirm(ask).await.expect("answered");
            }
        });
        join_all(callers).await;
        let most = begun.elapsed().as_millis() / PAUSE.as_millis() + 2;
        let asked = u128::from(shared.1.load(Ordering::SeqCst));
        assert!((5..=most).contains(&asked), "{asked} rounds, {most} at most");
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_the_question_to_the_next() {
        let (rounds, asked) = (Confirmations::default(), AtomicU64::new(0));
        let leaves = tokio::time::timeout(ROUND / 4, rounds.confirm(ask(&asked, false)));
        let (left, stayed) = tokio::join!(leaves, rounds.confirm(ask(&asked, false)));
        assert!(left.is_err() && stayed.is_ok());
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
