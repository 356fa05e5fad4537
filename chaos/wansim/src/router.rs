//! Carries packets between the TUN devices of the sites, as their links decide.
//!
//! One thread reads all devices, asks the link of each packet's direction, and keeps what is late
//! in a heap until its time. The links are shared with whoever steers them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use parking_lot::Mutex;

use crate::plan::site_of;
use crate::{Link, SiteId, SplitMix, Verdict};

/// Links of all directions, those of a site to itself unused.
pub(crate) struct Links {
    sites: usize,
    links: Vec<Link>,
}

impl Links {
    /// Each direction has luck of its own.
    pub(crate) fn new(seed: u64, sites: usize) -> Self {
        let links = (0..sites * sites).map(|part| {
            let part = u64::try_from(part).expect("a usize fits a u64");
            Link::new(SplitMix::for_part(seed, part).draw())
        });
        Self { sites, links: links.collect() }
    }

    pub(crate) fn link(&mut self, from: SiteId, to: SiteId) -> Option<&mut Link> {
        let known = from.0 < self.sites && to.0 < self.sites && from != to;
        known.then(|| &mut self.links[from.0 * self.sites + to.0])
    }
}

/// The running router; stops when dropped.
pub(crate) struct Router {
    links: Arc<Mutex<Links>>,
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Router {
    /// Starts carrying between `tuns`, one a site.
    pub(crate) fn start(
        tuns: Vec<File>,
        links: Links,
        packet_bytes_max: usize,
    ) -> io::Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        let links = Arc::new(Mutex::new(links));
        let mut carrier = Carrier {
            tuns,
            links: Arc::clone(&links),
            late: BinaryHeap::new(),
            spare: Vec::new(),
            packet_bytes_max,
            began: Instant::now(),
            places: 0,
        };
        let thread = std::thread::Builder::new()
            .name("wansim-router".to_owned())
            .spawn(move || carrier.run(&stopped))?;
        Ok(Self { links, stop: Some(stop), thread: Some(thread) })
    }

    /// The links, to read and to set.
    pub(crate) fn links(&self) -> &Mutex<Links> {
        &self.links
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A packet that waits for its time.
struct Late {
    at: Duration,
    /// Place among all that came in, so that equal times keep their order.
    place: u64,
    from: SiteId,
    to: SiteId,
    packet: Vec<u8>,
}

impl Late {
    fn key(&self) -> (Duration, u64) {
        (self.at, self.place)
    }
}

impl PartialEq for Late {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Late {}
impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Late {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// What the thread owns.
struct Carrier {
    tuns: Vec<File>,
    links: Arc<Mutex<Links>>,
    late: BinaryHeap<Reverse<Late>>,
    spare: Vec<Vec<u8>>,
    packet_bytes_max: usize,
    began: Instant,
    places: u64,
}

/// Packets that one device gives before the others get their turn.
const ROUND: usize = 64;
/// Buffers that are kept for the next packets.
const SPARE_MAX: usize = 1_024;
/// The longest sleep: nothing wakes it for settings, which only concern packets to come.
const SLEEP_MAX: Duration = Duration::from_secs(1);

impl Carrier {
    // Hot path: two system calls a packet.
    fn run(&mut self, stopped: &UnixStream) {
        loop {
            let due = self.late.peek().map_or(SLEEP_MAX, |next| {
                next.0.at.saturating_sub(self.began.elapsed()).min(SLEEP_MAX)
            });
            let mut polled: Vec<PollFd<'_>> =
                self.tuns.iter().map(|tun| PollFd::new(tun.as_fd(), PollFlags::POLLIN)).collect();
            polled.push(PollFd::new(stopped.as_fd(), PollFlags::POLLIN));
            match ppoll(&mut polled, Some(TimeSpec::from_duration(due)), None) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => panic!("the router cannot wait for packets: {error}"),
            }
            let ready: Vec<bool> = polled.iter().map(|fd| fd.any() == Some(true)).collect();
            drop(polled);
            if ready[self.tuns.len()] {
                return;
            }
            for (site, _) in ready.iter().enumerate().filter(|(_, is_ready)| **is_ready) {
                self.take_from(SiteId(site));
            }
            self.deliver_due();
        }
    }

    fn take_from(&mut self, from: SiteId) {
        for _ in 0..ROUND {
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.resize(self.packet_bytes_max, 0);
            let Ok(len) = self.tuns[from.0].read(&mut packet) else {
                self.spare.push(packet);
                return;
            };
            packet.truncate(len);
            self.judge(from, packet);
        }
    }

    fn judge(&mut self, from: SiteId, packet: Vec<u8>) {
        // IPv4 only; the destination is its fifth word.
        let target = match packet.get(16..20) {
            Some(&[a, b, c, d]) if packet[0] >> 4 == 4 => site_of([a, b, c, d], self.tuns.len()),
            _ => None,
        };
        let now = self.began.elapsed();
        let len = bytes(&packet);
        let mut links = self.links.lock();
        let decided = target.and_then(|to| Some((to, links.link(from, to)?.decide(now, len))));
        drop(links);
        let Some((to, Verdict::Deliver { at, again_at })) = decided else {
            self.keep(packet);
            return;
        };
        let place = self.places;
        self.places += 1;
        if let Some(at) = again_at {
            self.late.push(Reverse(Late { at, place, from, to, packet: packet.clone() }));
        }
        self.late.push(Reverse(Late { at, place, from, to, packet }));
    }

    fn deliver_due(&mut self) {
        let now = self.began.elapsed();
        while self.late.peek().is_some_and(|next| next.0.at <= now) {
            let Some(Reverse(next)) = self.late.pop() else { return };
            let Late { place, from, to, packet, .. } = next;
            let mut links = self.links.lock();
            let link = links.link(from, to).expect("only a direction that exists was decided");
            if link.deliver(place, bytes(&packet)) {
                // A device that is down or full takes nothing; that is no fault that was asked for.
                if (&self.tuns[to.0]).write(&packet).is_err() {
                    link.refused();
                }
            }
            drop(links);
            self.keep(packet);
        }
    }

    fn keep(&mut self, packet: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(packet);
        }
    }
}

fn bytes(packet: &[u8]) -> u64 {
    u64::try_from(packet.len()).expect("a usize fits a u64")
}
