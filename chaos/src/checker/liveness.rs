//! LIVE-1: after the last fault is healed every group takes commands within 30 s, and until then no
//! queue holds more than its bound.

use std::time::Duration;

use dtm_types::GroupId;

use super::breach::Breach;

/// How long a group has from the healing of the last fault.
pub const WRITABLE_WITHIN: Duration = Duration::from_secs(30);

/// What was seen of groups and queues.
#[derive(Debug, Default)]
pub struct Liveness {
    breaches: Vec<Breach>,
}

impl Liveness {
    /// A group took a command so long after the last fault was healed, or none within `within`.
    pub fn recovered(&mut self, group: GroupId, took: Option<Duration>, within: Duration) {
        if took.is_none_or(|took| took > within) {
            let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
            self.breaches.push(Breach::NotWritable { group, within_ms });
        }
    }

    /// A queue as it was seen.
    pub fn queued(&mut self, group: GroupId, node: &str, bytes: usize, bytes_max: usize) {
        if bytes > bytes_max {
            let node = node.to_owned();
            self.breaches.push(Breach::QueueOverBound { group, node, bytes, bytes_max });
        }
    }

    /// What was found so far.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_never_and_over_the_bound_are_breaches() {
        let mut liveness = Liveness::default();
        let (group, second) = (GroupId(1), Duration::from_secs(1));
        liveness.recovered(group, Some(WRITABLE_WITHIN), WRITABLE_WITHIN);
        liveness.queued(group, "one", 10, 10);
        assert_eq!(liveness.breaches(), []);
        liveness.recovered(group, Some(WRITABLE_WITHIN + second), WRITABLE_WITHIN);
        liveness.recovered(group, None, WRITABLE_WITHIN);
        liveness.queued(group, "one", 11, 10);
        let found: Vec<String> = liveness.breaches().iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 3);
        assert!(found[2].contains("queues 11 bytes, 10 at most"), "{found:?}");
    }
}
