//! How lines behave. Each setting has a default and a bound.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::error::Error;

/// What decides how much is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Congestion {
    /// By measured rate and delay: a lost packet alone does not slow it down.
    Bbr,
    /// Halves at losses.
    Cubic,
}

/// When paths behind the first are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyRule {
    /// As soon as the first one is cut; after [`Settings::standby_after`] the order is recorded.
    AtOnce,
    /// After [`Settings::standby_after`].
    Automatic,
    /// After [`Settings::standby_after`] and one confirmation.
    Confirmed,
}

/// How lines behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What decides how much is in flight.
    pub congestion: Congestion,
    /// Rate of all copies that leave this node; 0 = no bound.
    pub copies_bytes_per_second: u64,
    /// Most bytes of a lane that its reader has not taken yet.
    pub lane_window_bytes: u32,
    /// The same over all lanes of a connection, and the most that a sender keeps of what is not
    /// acknowledged. So many lanes whose readers do not read leave the others alone as fit in it.
    pub line_window_bytes: u32,
    /// Lanes of a connection that one side may have open.
    pub lanes_max: u32,
    /// Silence after which a connection asks for a sign of life.
    pub keep_alive: Duration,
    /// Silence after which a connection is dead.
    pub idle: Duration,
    /// A handshake that takes longer has failed.
    pub handshake: Duration,
    /// A lane is waited for so long while the line is cut.
    pub open_wait: Duration,
    /// Shortest and longest pause between two rounds of calls; drawn from the upper half.
    pub backoff: (Duration, Duration),
    /// The node with the higher id waits so long for the other one to call first.
    pub patience: Duration,
    /// The first path is taken again once it has answered for so long.
    pub return_after: Duration,
    /// What runs on a connection that another one replaces has so long to end.
    pub drain: Duration,
    /// When paths behind the first are used.
    pub standby: StandbyRule,
    /// How long the first path is cut before the rule speaks.
    pub standby_after: Duration,
    /// How long the first path is cut before that is an incident. What ends sooner, as the restart of
    /// a node, is none.
    pub incident_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            congestion: Congestion::Bbr,
            copies_bytes_per_second: 8 << 20,
            lane_window_bytes: 4 << 20,
            line_window_bytes: 64 << 20,
            lanes_max: 1_024,
            keep_alive: Duration::from_secs(2),
            idle: Duration::from_secs(8),
            handshake: Duration::from_secs(3),
            open_wait: Duration::from_secs(4),
            backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            patience: Duration::from_secs(1),
            return_after: Duration::from_secs(60),
            drain: Duration::from_secs(5),
            standby: StandbyRule::AtOnce,
            standby_after: Duration::from_secs(2 * 3_600),
            incident_after: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |what: &str| Err(Error::Setting(what.to_owned()));
        if self.lane_window_bytes < 64 << 10 {
            return refuse("lane_window_bytes is below 64 KiB");
        }
        if self.line_window_bytes / 4 < self.lane_window_bytes {
            return refuse("line_window_bytes is below four times lane_window_bytes");
        }
        if self.keep_alive.is_zero() || self.keep_alive * 2 > self.idle {
            return refuse("idle is below twice keep_alive");
        }
        if self.idle > Duration::from_secs(10) {
            return refuse("idle is above 10 s: a dead line is found within that");
        }
        let (shortest, longest) = self.backoff;
        if shortest.is_zero() || shortest > longest {
            return refuse("backoff is not from a shorter pause to a longer one");
        }
        if self.incident_after < self.idle || self.incident_after > Duration::from_secs(30) {
            return refuse("incident_after is not from idle to 30 s");
        }
        if self.lanes_max == 0 || self.handshake.is_zero() || self.standby_after.is_zero() {
            return refuse("lanes_max, handshake or standby_after is zero");
        }
        Ok(())
    }

    pub(crate) fn transport(&self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        let idle = IdleTimeout::try_from(self.idle).expect("checked: at most ten seconds");
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(self.lanes_max))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(self.lane_window_bytes))
            .receive_window(VarInt::from_u32(self.line_window_bytes))
            .send_window(self.line_window_bytes.into())
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(idle));
        match self.congestion {
            Congestion::Bbr => {
                transport.congestion_controller_factory(Arc::new(BbrConfig::default()))
            }
            Congestion::Cubic => {
                transport.congestion_controller_factory(Arc::new(CubicConfig::default()))
            }
        };
        Arc::new(transport)
    }
}
