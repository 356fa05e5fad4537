//! What a fault of a whole site came to: who still acked, since when others do, what is lost.
//!
//! ```text
//!  acks of the site ──┬──────▶ fault            first ack of another node, for what came after it
//!       oldest ack that is lost │◀── RPO ──▶│◀──────── first ack ───────▶│
//!  a site that must stop:       │◀── last ack ──▶│  silence until it is healed
//! ```
//! Pure but for the load that it looks at.

use std::time::{Duration, Instant};

use crate::history::Ack;
use crate::load::Load;
use crate::readback::Found;

/// A silence of this length, while records wait, is one: a cluster that acks has shorter gaps.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

/// The first fault of a whole site.
#[derive(Clone, Debug)]
pub(crate) struct SiteFault {
    /// Right before it was made.
    pub(crate) at: Instant,
    /// The site's nodes.
    pub(crate) nodes: Vec<usize>,
    /// Its processes ended: else the site is only cut off.
    pub(crate) is_loss: bool,
    /// What each source had sent by then.
    sent: Vec<u64>,
    /// Since when the same nodes live in the next life of the cluster: every node was lost, and a
    /// backup was restored. None: other nodes go on.
    pub(crate) reborn: Option<Instant>,
    /// When it was taken back.
    pub(crate) healed: Option<Instant>,
    /// The last ack before nobody acked any more, where that was waited for.
    pub(crate) last_ack: Option<Instant>,
}

/// What is measured of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SiteMeasures {
    pub(crate) rpo: Option<Duration>,
    pub(crate) first_ack: Option<Duration>,
    pub(crate) last_ack: Option<Duration>,
}

impl SiteFault {
    /// One that is made now, under this load.
    pub(crate) fn new(nodes: Vec<usize>, is_loss: bool, load: Option<&Load>) -> Self {
        let sent = load.map(Load::sent).unwrap_or_default();
        let at = crate::clock::now();
        Self { at, nodes, is_loss, sent, reborn: None, healed: None, last_ack: None }
    }

    /// What came of it.
    ///
    /// # Errors
    /// A record that is lost though another node acked it, or an ack while nobody could ack: no
    /// loss of a site explains that.
    pub(crate) fn measures(&self, load: &Load, found: &Found) -> Result<SiteMeasures, String> {
        let acks = load.acks_after(self.at);
        if let Some(late) = self.broken_silence(&acks) {
            return Err(format!("an ack came {:.1} s after the fault", secs(late - self.at)));
        }
        let lost = found.lost_records.iter().filter_map(|(code, sequence)| {
            let source = load.sources.iter().find(|source| source.code == *code)?;
            let ack = source.history.lock().ack_of(*sequence)?;
            Some((format!("{code} {sequence}"), ack))
        });
        let rpo = self.rpo(lost)?;
        Ok(SiteMeasures {
            rpo: self.is_loss.then_some(rpo),
            first_ack: self.first_elsewhere(&acks).map(|at| at - self.at),
            last_ack: self.last_ack.map(|at| at.saturating_duration_since(self.at)),
        })
    }

    /// How long before the fault the oldest of what is lost was acked.
    fn rpo(&self, lost: impl Iterator<Item = (String, Ack)>) -> Result<Duration, String> {
        let mut oldest = Duration::ZERO;
        for (named, ack) in lost {
            if self.is_elsewhere(&ack) {
                return Err(format!("{named} is lost, and who goes on acked it (ING-1)"));
            }
            // What was under way in the moment of the fault counts as a moment.
            let age = self.at.saturating_duration_since(ack.at).max(Duration::from_millis(1));
            oldest = oldest.max(age);
        }
        Ok(oldest)
    }

    /// Whether it is one of who goes on: of another node, or of the next life of the same nodes.
    fn is_elsewhere(&self, ack: &Ack) -> bool {
        match self.reborn {
            Some(since) => ack.at >= since,
            None => ack.node.is_some_and(|node| !self.nodes.contains(&node)),
        }
    }

    /// Of a record that was sent after the fault: another node may still pass on what the lost site
    /// had committed.
    fn first_elsewhere(&self, acks: &[(usize, Ack)]) -> Option<Instant> {
        let is_new =
            |source: usize, ack: &Ack| self.sent.get(source).is_none_or(|sent| ack.through > *sent);
        let acks =
            acks.iter().filter(|(source, ack)| self.is_elsewhere(ack) && is_new(*source, ack));
        acks.map(|(_, ack)| ack.at).min()
    }

    fn broken_silence(&self, acks: &[(usize, Ack)]) -> Option<Instant> {
        let (last, healed) = (self.last_ack?, self.healed?);
        acks.iter().map(|(_, ack)| ack.at).find(|at| *at > last && *at < healed)
    }
}

/// Seconds, for people.
pub(crate) fn secs(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn fault() -> SiteFault {
        SiteFault { sent: vec![8, 20], ..SiteFault::new(vec![0, 1, 2], true, None) }
    }

    #[test]
    fn the_first_ack_is_one_of_another_node_for_what_was_sent_after_the_fault() {
        let fault = fault();
        let ack =
            |source, through, ms, node| (source, Ack { through, at: fault.at + MS(ms), node });
        let acks = [
            ack(0, 9, 3, Some(1)),
            ack(0, 9, 40, None),
            ack(1, 20, 50, Some(4)),
            ack(0, 9, 900, Some(5)),
            ack(1, 21, 700, Some(4)),
        ];
        assert_eq!(fault.first_elsewhere(&acks), Some(fault.at + MS(700)));
        assert_eq!(fault.first_elsewhere(&acks[..3]), None);
    }

    #[test]
    fn the_oldest_lost_record_is_the_rpo_and_one_of_the_new_life_is_no_excuse() {
        let fault = fault();
        let of = |before, node| {
            (String::new(), Ack { through: 1, at: fault.at - MS(before), node: Some(node) })
        };
        assert_eq!(fault.rpo([].into_iter()), Ok(Duration::ZERO));
        assert_eq!(fault.rpo([of(20, 0), of(350, 2)].into_iter()), Ok(MS(350)));
        assert_eq!(fault.rpo([of(0, 0)].into_iter()), Ok(MS(1)));
        assert!(fault.rpo([of(20, 4)].into_iter()).is_err_and(|why| why.contains("ING-1")));
    }

    #[test]
    fn after_a_restore_the_same_nodes_are_told_apart_by_the_time_of_their_acks() {
        let mut fault = fault();
        fault.reborn = Some(fault.at + MS(500));
        let ack = |through, ms| (0, Ack { through, at: fault.at + MS(ms), node: Some(0) });
        let acks = [ack(9, 20), ack(8, 600), ack(9, 700)];
        assert_eq!(fault.first_elsewhere(&acks), Some(fault.at + MS(700)));
        assert_eq!(fault.first_elsewhere(&acks[..2]), None);
        let lost = |ms| {
            let at = fault.at + MS(ms);
            fault.rpo([(String::new(), Ack { through: 1, at, node: Some(0) })].into_iter())
        };
        assert_eq!(lost(20), Ok(MS(1)), "acked in the moment of the fault, by the life before");
        assert!(lost(600).is_err_and(|why| why.contains("ING-1")));
    }

    #[test]
    fn an_ack_between_the_last_and_the_heal_breaks_the_silence() {
        let mut fault = fault();
        let ack = |ms| (0, Ack { through: 1, at: fault.at + MS(ms), node: Some(0) });
        let acks = [ack(9_000), ack(15_000), ack(26_000)];
        fault.last_ack = Some(fault.at + MS(9_000));
        fault.healed = Some(fault.at + MS(20_000));
        assert_eq!(fault.broken_silence(&acks), Some(fault.at + MS(15_000)));
        fault.last_ack = Some(fault.at + MS(15_000));
        assert_eq!(fault.broken_silence(&acks), None);
    }
}
