//! Faults: cuts, loss, slow links, crashes, failing and lost disks. Then everything heals.

use super::world::{Bug, Event, Net, SECOND, World};

impl World {
    pub(super) fn chaos(&mut self) {
        if self.is_healed {
            return;
        }
        let delay = self.random.within(SECOND / 4, 3 * SECOND);
        self.after(delay, Event::Chaos);
        let host = self.random.index(self.hosts.len());
        match self.random.within(0, 20) {
            0..5 => {
                // One way or both.
                let (a, b) = (self.random.index(3), self.random.index(3));
                let both = self.random.permille(700);
                if a != b {
                    self.net.cut[a][b] = true;
                    self.net.cut[b][a] |= both;
                }
            }
            5..10 => self.net.cut = Default::default(),
            10 => self.net.loss = self.random.within(0, 300),
            11 => self.net.twice = self.random.within(0, 300),
            12 | 13 => self.net.slow = self.random.within(0, 500),
            14 | 15 => self.crash(host),
            16 => self.hosts[host].keep.fail_once(self.random.permille(500)),
            17 => {
                let site = self.random.index(2);
                self.sites[site].crash();
                let delay = self.random.within(SECOND / 10, 5 * SECOND);
                self.after(delay, Event::SiteStarts(site));
            }
            _ => self.lose_disk(host),
        }
    }

    /// The host dies with its disk, unless so many were lost that nothing could come back.
    fn lose_disk(&mut self, host: usize) {
        let gone = self.hosts[host].id;
        let is_there =
            |acceptor| acceptor != gone && self.hosts.iter().any(|host| host.id == acceptor);
        let newest = self.oracle.newest_number();
        let accepted = self.hosts.iter().filter_map(|host| host.acceptor.as_ref()?.accepted());
        let mut open = accepted.filter(|accepted| accepted.entry.decision.number >= newest);
        let decision = self.oracle.newest();
        let stays = decision.is_some_and(|d| crate::entry::is_majority(&d.seats, is_there))
            && self.hosts.iter().all(|host| host.acceptor.is_some())
            && open.all(|accepted| accepted.entry.has_quorum(is_there))
            && self.on_their_way().iter().all(|entry| entry.has_quorum(is_there));
        if stays || self.bug == Bug::OldIdAfterLoss {
            self.stats.lost_disks += 1;
            self.hosts[host].keep.wipe();
            self.crash(host);
            if self.bug != Bug::OldIdAfterLoss {
                // Nobody answers under it any more.
                self.hosts[host].id = crate::AcceptorId(self.random.id());
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.is_healed = true;
        self.net = Net::default();
        for host in 0..self.hosts.len() {
            self.start(host);
        }
        for site in &mut self.sites {
            site.is_up = true;
        }
    }
}
