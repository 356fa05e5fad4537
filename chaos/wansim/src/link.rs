//! One direction between two sites: what happens to each packet. Pure: time comes in, a verdict
//! goes out, and one seed with one sequence of packets, times and settings always decides the same.

use std::time::Duration;

use crate::SplitMix;

/// A share in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ppm(u32);

impl Ppm {
    const WHOLE: u32 = 1_000_000;

    /// So many millionths, at most all of them.
    #[must_use]
    pub fn new(ppm: u32) -> Self {
        Self(ppm.min(Self::WHOLE))
    }

    /// So many hundredths; below 0 counts as 0, above 100 as 100.
    #[must_use]
    pub fn percent(percent: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        Self((percent.clamp(0.0, 100.0) * 10_000.0).round() as u32)
    }

    /// In millionths.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    fn hits(self, draw: u64) -> bool {
        draw % u64::from(Self::WHOLE) < u64::from(self.0)
    }
}

/// What a link does to its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Every packet is so late.
    pub delay: Duration,
    /// And up to so much later, evenly spread; order is kept.
    pub jitter: Duration,
    /// So many are lost, each by itself.
    pub loss: Ppm,
    /// So many arrive twice.
    pub duplicate: Ppm,
    /// So many are held back by `reorder_by`, so that later ones overtake them.
    pub reorder: Ppm,
    /// How long these are held back beyond the delay.
    pub reorder_by: Duration,
    /// Bytes a second that pass; None: as many as come.
    pub bytes_per_second: Option<u64>,
    /// Bytes that wait for their turn at that rate; what comes on top is dropped.
    pub queue_bytes_max: u64,
    /// Nothing passes, and what is under way is lost.
    pub is_cut: bool,
}

impl Default for Settings {
    /// A perfect wire.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Ppm::default(),
            duplicate: Ppm::default(),
            reorder: Ppm::default(),
            reorder_by: Duration::from_millis(5),
            bytes_per_second: None,
            queue_bytes_max: 256 << 10,
            is_cut: false,
        }
    }
}

impl Settings {
    /// A wire of this delay and loss.
    #[must_use]
    pub fn wan(delay: Duration, loss: Ppm) -> Self {
        Self { delay, loss, ..Self::default() }
    }
}

/// What a link really did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came in.
    pub packets: u64,
    /// Their bytes, IP header included.
    pub bytes: u64,
    /// Packets that went out, duplicates too.
    pub delivered: u64,
    /// Packets that were late by the delay, the jitter or the rate.
    pub delayed: u64,
    /// Packets that the loss took.
    pub lost: u64,
    /// Packets that went out twice.
    pub duplicated: u64,
    /// Packets that went out after one that had come in later.
    pub reordered: u64,
    /// Packets that found no room at the rate.
    pub queue_full: u64,
    /// Packets that came to a cut link or were under way when it was cut.
    pub cut: u64,
    /// Packets that the host refused or that exceeded what may be under way; no fault that was
    /// asked for.
    pub overrun: u64,
}

/// What happens to one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is gone; the counts say why.
    Drop,
    /// It goes out at this time, and once more at the second.
    Deliver {
        /// Since the same beginning as the time that came in.
        at: Duration,
        /// The duplicate.
        again_at: Option<Duration>,
    },
}

/// Bytes of one direction that may be under way: 64 MiB, a second of half a gigabit.
const UNDER_WAY_BYTES_MAX: u64 = 64 << 20;
/// How much later than the first the second copy comes.
const COPY_AFTER: Duration = Duration::from_micros(100);

/// One direction between two sites.
#[derive(Clone, Debug)]
pub struct Link {
    settings: Settings,
    counts: Counts,
    rng: SplitMix,
    /// The wire is busy until then.
    busy_until: Duration,
    /// The latest that was promised in order.
    last_at: Duration,
    under_way_bytes: u64,
    /// The newest that went out.
    newest_out: Option<u64>,
}

impl Link {
    /// A perfect wire whose faults `seed` will decide.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            settings: Settings::default(),
            counts: Counts::default(),
            rng: SplitMix::new(seed),
            busy_until: Duration::ZERO,
            last_at: Duration::ZERO,
            under_way_bytes: 0,
            newest_out: None,
        }
    }

    /// What it does to its packets.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// From the next packet on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What it did.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Decides about a packet that came in `now`.
    // Hot path: once a packet, under the lock of all links.
    pub fn decide(&mut self, now: Duration, len: u64) -> Verdict {
        // Always the same number of draws, so that a packet's luck depends on its place alone.
        let (loss, copy, held, spread) =
            (self.rng.draw(), self.rng.draw(), self.rng.draw(), self.rng.draw());
        let settings = self.settings;
        self.counts.packets += 1;
        self.counts.bytes += len;
        if settings.is_cut {
            self.counts.cut += 1;
            return Verdict::Drop;
        }
        if settings.loss.hits(loss) {
            self.counts.lost += 1;
            return Verdict::Drop;
        }
        let Some(sent) = self.through_the_queue(now, len) else {
            self.counts.queue_full += 1;
            return Verdict::Drop;
        };
        if self.under_way_bytes + 2 * len > UNDER_WAY_BYTES_MAX {
            self.counts.overrun += 1;
            return Verdict::Drop;
        }
        let mut at = (sent + settings.delay + share(settings.jitter, spread)).max(self.last_at);
        if settings.reorder.hits(held) {
            at += settings.reorder_by;
        } else {
            self.last_at = at;
        }
        if at > now {
            self.counts.delayed += 1;
        }
        self.under_way_bytes += len;
        let again_at = settings.duplicate.hits(copy).then(|| {
            self.counts.duplicated += 1;
            self.under_way_bytes += len;
            at + COPY_AFTER
        });
        Verdict::Deliver { at, again_at }
    }

    /// A packet's time has come: says whether it still goes out. `place` is its place among those
    /// that came in.
    pub fn deliver(&mut self, place: u64, len: u64) -> bool {
        self.under_way_bytes = self.under_way_bytes.saturating_sub(len);
        if self.settings.is_cut {
            self.counts.cut += 1;
            return false;
        }
        if self.newest_out.is_some_and(|newest| place < newest) {
            self.counts.reordered += 1;
        }
        self.newest_out = self.newest_out.max(Some(place));
        self.counts.delivered += 1;
        true
    }

    /// What `deliver` let go was refused by the host.
    pub fn refused(&mut self) {
        self.counts.delivered -= 1;
        self.counts.overrun += 1;
    }

    /// When the last bit has left at the rate; None where the queue is full.
    fn through_the_queue(&mut self, now: Duration, len: u64) -> Option<Duration> {
        let Some(rate) = self.settings.bytes_per_second else {
            self.busy_until = now;
            return Some(now);
        };
        let start = self.busy_until.max(now);
        let waiting = (start - now).as_nanos() * u128::from(rate) / 1_000_000_000;
        if waiting + u128::from(len) > u128::from(self.settings.queue_bytes_max) {
            return None;
        }
        let nanos = u128::from(len) * 1_000_000_000 / u128::from(rate.max(1));
        self.busy_until = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(self.busy_until)
    }
}

fn share(whole: Duration, draw: u64) -> Duration {
    let nanos = (whole.as_nanos() * u128::from(draw >> 32)) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[path = "link_test.rs"]
mod tests;
