//! How many connections are open, in all and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts connections. The map holds open ones only, so it is bounded by `connections_max`.
pub(super) struct Limit {
    connections_max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    connections: usize,
    of: HashMap<IpAddr, usize>,
}

impl Limit {
    pub(super) fn new(connections_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { connections_max, per_address_max, open: Mutex::default() })
    }

    /// A place for one more connection, or the limit that is reached.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Slot, &'static str> {
        let mut open = self.open.lock();
        if open.connections >= self.connections_max {
            return Err("connections_max");
        }
        let held = open.of.entry(address).or_insert(0);
        if *held >= self.per_address_max {
            return Err("connections_per_address_max");
        }
        *held += 1;
        open.connections += 1;
        Ok(Slot { limit: Arc::clone(self), address })
    }
}

/// A place that is given back when dropped.
pub(super) struct Slot {
    limit: Arc<Limit>,
    address: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.limit.open.lock();
        open.connections -= 1;
        let held = open.of.get_mut(&self.address).expect("a held place is counted");
        *held -= 1;
        if *held == 0 {
            open.of.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_and_leave_nothing() {
        let limit = Limit::new(3, 2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let one = limit.enter(a).ok();
        let two = limit.enter(a).ok();
        assert_eq!(limit.enter(a).err(), Some("connections_per_address_max"));
        let three = limit.enter(b).ok();
        assert!(one.is_some() && two.is_some() && three.is_some());
        assert_eq!(limit.enter(b).err(), Some("connections_max"));
        drop((one, three));
        assert!(limit.enter(b).is_ok());
        drop(two);
        assert!(limit.open.lock().of.is_empty());
    }
}
