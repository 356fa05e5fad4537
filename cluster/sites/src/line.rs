//! One peer: its paths, its connections, and which of them is in use.
//!
//! The newest open connection carries what is opened next. Both nodes may call; where both did, what
//! the node with the lower id called stays and the other one is given up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use dtm_types::NodeId;
use parking_lot::Mutex;
use quinn::VarInt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::events::{Event, Events};
use crate::lines::Shared;
use crate::path::Path;
use crate::standby::{Said, Standby};
use crate::wire::Wire;

/// Connections to one peer; the oldest goes.
const LIVE_MAX: usize = 4;
/// Why a connection is closed: another one took its place.
const REPLACED: VarInt = VarInt::from_u32(1);

/// An open connection.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) wire: Wire,
    /// Position in the peer's list.
    pub(crate) path: usize,
    /// The way that was called; `None` where the peer called.
    pub(crate) called: Option<Path>,
    since: Instant,
    /// What of it was counted: packets lost, bytes sent, bytes received.
    counted: [u64; 3],
    /// Bytes received when that was looked at last.
    heard: u64,
}

impl Live {
    pub(crate) fn new(wire: Wire, path: usize, called: Option<Path>) -> Self {
        Self { wire, path, called, since: Instant::now(), counted: [0; 3], heard: 0 }
    }

    fn is_open(&self) -> bool {
        self.wire.is_open()
    }
}

/// What a line is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineState {
    /// The path in use; `None` = cut.
    pub path: Option<usize>,
    /// Paths that there are to the peer.
    pub paths: usize,
    /// How long the first path has been cut, since the last good message over it.
    pub first_cut_for: Option<Duration>,
    /// The rule waits for the one confirmation.
    pub awaits: bool,
    /// Round trip of the connection in use.
    pub round_trip: Option<Duration>,
    /// Share of the packets of the connection in use that were lost.
    pub lost_share: f64,
}

struct State {
    paths: Vec<Path>,
    /// The newest last.
    live: Vec<Live>,
    standby: Standby,
    /// When something was last heard over the first path, as far as that is looked at.
    heard: Duration,
    /// How long the first path was cut the last time.
    mended_after: Duration,
    /// The path that was told as being in use.
    told: Option<usize>,
    last_path: usize,
    down_since: Duration,
    /// Not told yet.
    events: VecDeque<Event>,
}

/// One peer.
pub(crate) struct Line {
    pub(crate) node: NodeId,
    state: Mutex<State>,
    /// Held while events are told, so that their order stays.
    telling: Mutex<()>,
    changed: watch::Sender<()>,
}

impl Line {
    pub(crate) fn new(shared: &Shared, node: NodeId) -> Arc<Self> {
        let now = shared.now();
        let state = State {
            paths: Vec::new(),
            live: Vec::new(),
            standby: Standby::new(&shared.settings, now),
            heard: now,
            mended_after: Duration::ZERO,
            told: None,
            last_path: 0,
            down_since: now,
            events: VecDeque::new(),
        };
        let (telling, changed) = (Mutex::default(), watch::Sender::new(()));
        Arc::new(Self { node, state: Mutex::new(state), telling, changed })
    }

    /// Wakes at each change of connections and paths.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes over other paths. Connections that go another way are given up.
    pub(crate) fn place(&self, shared: &Shared, paths: Vec<Path>) {
        {
            let mut state = self.state.lock();
            if state.paths == paths {
                return;
            }
            state.paths = paths;
            let State { paths, live, .. } = &mut *state;
            for live in live {
                match live.called.as_ref().map(|called| paths.iter().position(|p| p == called)) {
                    Some(Some(path)) => live.path = path,
                    Some(None) => retire(shared, live.wire.clone()),
                    None => {}
                }
            }
        }
        self.settle(shared);
    }

    pub(crate) fn paths(&self) -> Vec<Path> {
        self.state.lock().paths.clone()
    }

    /// The path that a call of the peer through this channel stands for; the channel's own position
    /// where this node has no path through it.
    pub(crate) fn path_of(&self, channel: usize) -> usize {
        let state = self.state.lock();
        state.paths.iter().position(|path| path.channel == channel).unwrap_or(channel)
    }

    /// The connection that carries what is opened next.
    pub(crate) fn current(&self) -> Option<Live> {
        self.state.lock().live.iter().rev().find(|live| live.is_open()).cloned()
    }

    /// Puts a connection into use. False where it is given up in favour of another one.
    pub(crate) fn install(&self, shared: &Shared, live: Live) -> bool {
        let calls_first = shared.node < self.node;
        {
            let mut state = self.state.lock();
            state.live.retain(Live::is_open);
            let mine = |other: &&Live| other.called.is_some();
            let is_mine = live.called.is_some();
            let answered = || state.live.iter().any(|o| o.called.is_none() && o.path <= live.path);
            if is_mine && !calls_first && answered() {
                live.wire.close(REPLACED, b"both called");
                return false;
            }
            let both_called =
                |own: &Live| own.called.is_some() && own.since.elapsed() < shared.settings.drain;
            if !is_mine && calls_first && state.live.iter().any(both_called) {
                state.live.insert(0, live);
            } else {
                if is_mine || !calls_first {
                    let replaced = state.live.iter().filter(mine);
                    replaced.for_each(|old| retire(shared, old.wire.clone()));
                }
                state.live.push(live);
            }
            if state.live.len() > LIVE_MAX {
                state.live.remove(0).wire.close(REPLACED, b"too many");
            }
        }
        self.settle(shared);
        true
    }

    /// Takes account of what is open now, tells what changed and wakes who waits.
    pub(crate) fn settle(&self, shared: &Shared) {
        self.state.lock().settle(self.node, shared.now());
        self.changed.send_replace(());
        self.tell(&*shared.events);
    }

    fn tell(&self, events: &dyn Events) {
        let _in_order = self.telling.lock();
        loop {
            let Some(event) = self.state.lock().events.pop_front() else { return };
            count(&event);
            events.tell(&event);
        }
    }

    /// Lets the two-hour rule speak where its time has come.
    pub(crate) fn apply_rule(&self, shared: &Shared) {
        // It says at most two things of one moment.
        while self.hear(shared, |standby| standby.tick(shared.now())) {}
    }

    /// Looks whether anything came over the first path.
    pub(crate) fn note_heard(&self, now: Duration) {
        let mut state = self.state.lock();
        let mut is_heard = false;
        for live in state.live.iter_mut().filter(|live| live.path == 0) {
            let received = live.wire.figures().received_bytes;
            is_heard |= std::mem::replace(&mut live.heard, received) != received;
        }
        if is_heard {
            state.heard = now;
        }
    }

    /// The one confirmation; false where none is waited for.
    pub(crate) fn confirm(&self, shared: &Shared) -> bool {
        self.hear(shared, |standby| standby.confirm(shared.now()))
    }

    fn hear(&self, shared: &Shared, ask: impl FnOnce(&mut Standby) -> Option<Said>) -> bool {
        let mut state = self.state.lock();
        let Some(said) = ask(&mut state.standby) else { return false };
        let node = self.node;
        state.events.push_back(match said {
            Said::Interrupted { cut_for } => Event::Interrupted { node, cut_for },
            Said::Awaited { cut_for } => Event::ConfirmationAwaited { node, cut_for },
            Said::Ordered { cut_for, confirmed } => {
                Event::StandbyOrdered { node, cut_for, confirmed }
            }
        });
        drop(state);
        self.changed.send_replace(());
        self.tell(&*shared.events);
        true
    }

    pub(crate) fn may_use_standby(&self) -> bool {
        self.state.lock().standby.may_use_standby()
    }

    pub(crate) fn state(&self, now: Duration) -> LineState {
        let current = self.current();
        let figures = current.as_ref().map(|live| live.wire.figures());
        let lost = figures.map(|of| of.packets_lost as f64 / of.packets_sent.max(1) as f64);
        let state = self.state.lock();
        LineState {
            path: current.as_ref().map(|live| live.path),
            paths: state.paths.len(),
            lost_share: lost.unwrap_or_default(),
            first_cut_for: state.standby.cut_for(now),
            awaits: state.standby.is_awaited(),
            round_trip: current.map(|live| live.wire.round_trip()),
        }
    }

    /// Ends all connections of a line that is kept no more; no alarm is raised for it.
    pub(crate) fn close(&self) {
        for live in self.state.lock().live.drain(..) {
            live.wire.close(VarInt::from_u32(0), b"stops");
        }
        let node = || self.node.to_string();
        metrics::gauge!("dtm_sites_line_up", "node" => node()).set(f64::NAN);
        metrics::gauge!("dtm_sites_path", "node" => node()).set(f64::NAN);
        metrics::gauge!("dtm_sites_first_path_cut_seconds", "node" => node()).set(0.0);
        metrics::gauge!("dtm_sites_awaits_confirmation", "node" => node()).set(0.0);
    }

    /// Takes the figures of its connections over into the metrics.
    pub(crate) fn sample(&self, now: Duration) {
        let LineState { path, first_cut_for, awaits, round_trip, .. } = self.state(now);
        let node = || self.node.to_string();
        let is_up = if path.is_some() { 1.0 } else { 0.0 };
        let cut_for = first_cut_for.unwrap_or_default().as_secs_f64();
        let round_trip = round_trip.unwrap_or_default().as_secs_f64();
        metrics::gauge!("dtm_sites_line_up", "node" => node()).set(is_up);
        metrics::gauge!("dtm_sites_path", "node" => node()).set(path.map_or(-1.0, |at| at as f64));
        metrics::gauge!("dtm_sites_first_path_cut_seconds", "node" => node()).set(cut_for);
        let awaits = if awaits { 1.0 } else { 0.0 };
        metrics::gauge!("dtm_sites_awaits_confirmation", "node" => node()).set(awaits);
        metrics::gauge!("dtm_sites_rtt_seconds", "node" => node()).set(round_trip);
        let [lost, sent, received] = self.state.lock().uncounted();
        metrics::counter!("dtm_sites_packets_lost_total", "node" => node()).increment(lost);
        metrics::counter!("dtm_sites_sent_bytes_total", "node" => node()).increment(sent);
        metrics::counter!("dtm_sites_received_bytes_total", "node" => node()).increment(received);
    }
}

impl State {
    /// Packets lost, bytes sent, bytes received since the last call.
    fn uncounted(&mut self) -> [u64; 3] {
        let mut more = [0; 3];
        for live in &mut self.live {
            let figures = live.wire.figures();
            let now = [figures.packets_lost, figures.sent_bytes, figures.received_bytes];
            for ((more, now), counted) in more.iter_mut().zip(now).zip(&mut live.counted) {
                *more += now.saturating_sub(*counted);
                *counted = now;
            }
        }
        more
    }

    fn settle(&mut self, node: NodeId, now: Duration) {
        self.live.retain(Live::is_open);
        let first_works = self.live.iter().any(|live| live.path == 0);
        let is_incident = self.standby.is_incident() || self.last_path != 0;
        let is_mended = first_works && self.standby.cut_for(now).is_some();
        if is_mended {
            self.heard = now;
        }
        let cut_for = self.standby.note(first_works, self.heard, now);
        if is_mended {
            self.mended_after = cut_for;
        }
        if is_mended && is_incident {
            let from = self.last_path;
            self.events.push_back(Event::Mended { node, from, after: cut_for });
        }
        let path = self.live.last().map(|live| live.path);
        if path == self.told {
            return;
        }
        match (self.told, path) {
            (Some(path), None) => {
                self.down_since = now;
                self.events.push_back(Event::Cut { node, path });
            }
            (None, Some(path)) => {
                let down_for = now.saturating_sub(self.down_since);
                self.events.push_back(Event::Up { node, path, cut_for: down_for });
            }
            _ => {}
        }
        self.told = path;
        if let Some(to) = path.filter(|path| *path != self.last_path) {
            let from = std::mem::replace(&mut self.last_path, to);
            self.events.push_back(match to {
                0 => Event::Returned { node, from, after: self.mended_after },
                _ => Event::Switched { node, from, to, cut_for },
            });
        }
    }
}

/// Closes a connection once what runs on it had time to end.
fn retire(shared: &Shared, wire: Wire) {
    let drain = shared.settings.drain;
    tokio::spawn(async move {
        tokio::time::sleep(drain).await;
        wire.close(REPLACED, b"another one took its place");
    });
}

fn count(event: &Event) {
    let node = event.node().to_string();
    match event {
        Event::Cut { .. } => metrics::counter!("dtm_sites_cuts_total", "node" => node).increment(1),
        Event::Switched { .. } | Event::Returned { .. } => {
            metrics::counter!("dtm_sites_switches_total", "node" => node).increment(1);
        }
        Event::StandbyOrdered { .. } => {
            metrics::counter!("dtm_sites_standby_ordered_total", "node" => node).increment(1);
        }
        Event::Interrupted { .. } => {
            metrics::counter!("dtm_sites_incidents_total", "node" => node).increment(1);
        }
        Event::Up { .. } | Event::Mended { .. } | Event::ConfirmationAwaited { .. } => {}
    }
}
