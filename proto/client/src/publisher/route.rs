//! Where the next attempt goes: the leader where a node names it, each seed in turn, and any node
//! where the leader cannot be reached.
//!
//! At most one redirect a seed, so that two nodes with stale views cannot make it go back and forth.

use std::sync::Arc;
use std::time::Duration;

/// Limits of the first attempts: a dead or paused node costs no more. They double with each turn
/// over the seeds, for slow networks and busy nodes.
const CONNECT_FIRST: Duration = Duration::from_secs(1);
/// A node waits up to a second for a leader before it answers.
const ANSWER_FIRST: Duration = Duration::from_secs(2);
const DOUBLINGS_MAX: u32 = 6;

pub(crate) struct Route {
    seeds: Vec<String>,
    /// Which seed comes next.
    turn: usize,
    address: String,
    may_redirect: bool,
    /// `address` is a leader that a seed named.
    is_redirected: bool,
    /// A leader that could not be reached: not tried again in this row of attempts.
    unreachable: Option<String>,
    /// Where the last session was: the others come first.
    avoided: Option<Arc<str>>,
    failures: usize,
}

impl Route {
    pub(crate) fn new(seeds: &[String], seed: u64) -> Self {
        Self {
            seeds: seeds.to_vec(),
            turn: (seed % seeds.len() as u64) as usize,
            address: String::new(),
            may_redirect: true,
            is_redirected: false,
            unreachable: None,
            avoided: None,
            failures: 0,
        }
    }

    /// A new row of attempts; the advised address comes first and is taken at its word.
    pub(crate) fn begin(&mut self, advised: Option<String>) {
        self.failures = 0;
        self.unreachable = None;
        match advised {
            Some(address) => {
                (self.address, self.may_redirect, self.is_redirected) = (address, false, true);
            }
            None => self.next_seed(),
        }
    }

    /// The session there has ended: the next row starts elsewhere.
    pub(crate) fn avoid(&mut self, address: &Arc<str>) {
        self.avoided = Some(Arc::clone(address));
    }

    /// Where the attempt goes.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether the node may name the leader instead of opening.
    pub(crate) fn may_redirect(&self) -> bool {
        self.may_redirect
    }

    /// Limits of this attempt for connection and answer.
    pub(crate) fn limits(&self, connect_max: Duration) -> (Duration, Duration) {
        let turns = u32::try_from(self.failures / self.seeds.len()).unwrap_or(u32::MAX);
        let factor = 1 << turns.min(DOUBLINGS_MAX);
        let connect = (CONNECT_FIRST * factor).min(connect_max);
        (connect, (ANSWER_FIRST * factor).min(connect_max * 2))
    }

    /// Whether the address has its turn among the seeds.
    pub(crate) fn is_seed(&self, address: &str) -> bool {
        self.seeds.iter().any(|seed| seed == address)
    }

    /// A node named the leader. True when another attempt should follow at once.
    pub(crate) fn redirect(&mut self, leader: &str) -> bool {
        if !self.may_redirect || leader.is_empty() || leader == self.address {
            return false;
        }
        self.may_redirect = false;
        if self.unreachable.as_deref() != Some(leader) {
            leader.clone_into(&mut self.address);
            self.is_redirected = true;
        }
        true
    }

    /// The attempt failed: on to the next seed. True while there are seeds that were not tried
    /// since the last pause.
    pub(crate) fn failed(&mut self) -> bool {
        self.failures += 1;
        if self.is_redirected {
            self.unreachable = Some(std::mem::take(&mut self.address));
        }
        self.next_seed();
        !self.failures.is_multiple_of(self.seeds.len())
    }

    fn next_seed(&mut self) {
        let avoided = self.avoided.take();
        if avoided.is_some_and(|avoided| *avoided == self.seeds[self.turn]) {
            self.turn = (self.turn + 1) % self.seeds.len();
        }
        self.seeds[self.turn].clone_into(&mut self.address);
        self.turn = (self.turn + 1) % self.seeds.len();
        (self.may_redirect, self.is_redirected) = (true, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route::new(&["a:1".to_owned(), "b:1".to_owned(), "c:1".to_owned()], 0)
    }

    #[test]
    fn a_leader_that_cannot_be_reached_is_named_in_vain() {
        let mut route = route();
        route.begin(None);
        assert!(route.redirect("x:1"));
        assert_eq!((route.address(), route.may_redirect()), ("x:1", false));
        assert!(!route.redirect("y:1"), "one redirect");
        assert!(route.failed());
        assert_eq!((route.address(), route.may_redirect()), ("b:1", true));
        assert!(route.redirect("x:1"), "again, and now to be served here");
        assert_eq!((route.address(), route.may_redirect()), ("b:1", false));
    }

    #[test]
    fn every_seed_is_tried_before_a_pause_and_the_last_node_comes_last() {
        let mut route = route();
        route.avoid(&"a:1".into());
        route.begin(None);
        assert_eq!(route.address(), "b:1");
        assert_eq!(route.limits(Duration::from_secs(5)).0, CONNECT_FIRST);
        assert!(route.failed());
        assert_eq!(route.address(), "c:1");
        assert!(route.failed());
        assert_eq!(route.address(), "a:1");
        assert!(!route.failed());
        assert_eq!(route.limits(Duration::from_secs(5)).0, CONNECT_FIRST * 2);
        assert_eq!(route.limits(Duration::from_millis(200)).1, Duration::from_millis(400));
    }

    #[test]
    fn advice_is_taken_at_its_word() {
        let mut route = route();
        route.begin(Some("z:1".to_owned()));
        assert_eq!((route.address(), route.may_redirect()), ("z:1", false));
        assert!(route.failed());
        assert_eq!((route.address(), route.may_redirect()), ("a:1", true));
    }
}
