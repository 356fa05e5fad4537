//! Handshakes under way on the port for other nodes. Who is at the other end is not known yet, so
//! their number is bounded; and so that nobody can shut the port with connections that say nothing,
//! a new one always gets in: it takes the place of the oldest of the address that has most.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The handshakes of a port.
pub(crate) struct Handshakes {
    handshakes_max: usize,
    open: Mutex<Open>,
}

/// By address, the oldest first. Addresses without any are not kept.
#[derive(Default)]
struct Open {
    begun: u64,
    count: usize,
    of: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
}

impl Open {
    fn remove(&mut self, address: IpAddr, number: u64) -> Option<CancellationToken> {
        let own = self.of.get_mut(&address)?;
        let given_up = own.remove(&number)?;
        if own.is_empty() {
            self.of.remove(&address);
        }
        self.count -= 1;
        Some(given_up)
    }

    /// The oldest of the address that has most; of several such addresses the one that waits longest.
    fn first_to_go(&self) -> Option<(IpAddr, u64)> {
        let oldest = |own: &BTreeMap<u64, CancellationToken>| own.keys().next().copied();
        let of = self.of.iter().filter_map(|(address, own)| Some((*address, own, oldest(own)?)));
        of.max_by_key(|(_, own, oldest)| (own.len(), std::cmp::Reverse(*oldest)))
            .map(|(address, _, oldest)| (address, oldest))
    }
}

impl Handshakes {
    pub(crate) fn new(handshakes_max: usize) -> Arc<Self> {
        Arc::new(Self { handshakes_max, open: Mutex::default() })
    }

    /// A place for one more; another one is given up where there is none.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Handshake {
        let mut open = self.open.lock();
        if open.count >= self.handshakes_max
            && let Some((crowded, oldest)) = open.first_to_go()
            && let Some(given_up) = open.remove(crowded, oldest)
        {
            given_up.cancel();
        }
        open.begun += 1;
        let (number, given_up) = (open.begun, CancellationToken::new());
        open.of.entry(address).or_default().insert(number, given_up.clone());
        open.count += 1;
        Handshake { all: Arc::clone(self), address, number, given_up }
    }
}

/// A place that is given back when dropped.
pub(crate) struct Handshake {
    all: Arc<Handshakes>,
    address: IpAddr,
    number: u64,
    given_up: CancellationToken,
}

impl Handshake {
    /// Until another one takes its place. Cancel-safe.
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.open.lock().remove(self.address, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(byte: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, byte])
    }

    fn is_given_up(handshake: &Handshake) -> bool {
        handshake.given_up.is_cancelled()
    }

    // holds: LIVE-1
    #[test]
    fn a_new_one_takes_the_oldest_place_of_the_address_that_has_most() {
        let all = Handshakes::new(4);
        let one = all.enter(at(1));
        let crowd: Vec<_> = (0..3).map(|_| all.enter(at(2))).collect();
        let peer = all.enter(at(3));
        let given_up: Vec<bool> = crowd.iter().map(is_given_up).collect();
        assert_eq!(given_up, [true, false, false]);
        let more = all.enter(at(2));
        assert!(is_given_up(&crowd[1]), "the crowd makes room for itself");
        assert!(![&one, &peer, &more].iter().any(|other| is_given_up(other)));
        drop((one, peer, more, crowd));
        let open = all.open.lock();
        assert!(open.of.is_empty() && open.count == 0, "nothing is left behind");
    }

    #[test]
    fn of_addresses_that_have_as_many_the_oldest_goes() {
        let all = Handshakes::new(3);
        let open: Vec<_> = (1..=3).map(|byte| all.enter(at(byte))).collect();
        let next = all.enter(at(4));
        let given_up: Vec<bool> = open.iter().map(is_given_up).collect();
        assert_eq!((given_up, is_given_up(&next)), (vec![true, false, false], false));
    }
}
