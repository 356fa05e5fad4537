//! Whether this node may acknowledge, in a cluster with a standby: the register decides which site may,
//! in which life, and every node of that site asks it each second.
//!
//! ```text
//!  layout (meta's rows here) ── no standby ─▶ it may
//!                            └─ standby ────▶ it may while its lease holds: this site is primary, its
//!                                             life is in force, a majority of the places said so
//!  watch   each second: found the register, ask, follow what was decided
//!  promote what an operator of the standby asks for
//!  raise   in two steps: what is cut off between them is not done later
//!  split   a life that two people accepted without the places, and that the old primary hears of it
//!  detach  a standby that is given up is never promoted, until a later layout names it
//!  order   what a node that goes over follows, and who draws the plan up where that node is gone
//!  right   put before the sessions' proposer: nothing is proposed, and nothing is acknowledged,
//!          without the right
//! ```
//! A node of another site than the primary acknowledges nothing. What a node was told it keeps
//! (`DATA/primacy`): a start goes by it until it was told anew.

mod consult;
mod detach;
mod drive;
#[cfg(test)]
mod mod_test;
mod order;
mod port;
mod promote;
mod raise;
mod right;
mod split;
mod taken;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::seams::{Clock, Entropy};
use dtm_register::{Acceptor, AcceptorId, Decision, FileKeep, Lease, LeaseTime, Since};
use dtm_types::command::{LayoutKind, LayoutRow};
use dtm_types::text::Told;
use dtm_types::{GroupId, Incarnation, NodeId};
use parking_lot::{Mutex, RwLock};

pub use consult::Contradiction;
pub use detach::NotDetached;
pub use promote::Refused;
pub use right::Rightful;
pub use watch::watch;

/// What this node knows, and its acceptor.
pub struct Primacy {
    node: NodeId,
    site: String,
    /// The life that this process lives in.
    own: Incarnation,
    data: PathBuf,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    acceptor: Mutex<Acceptor<FileKeep>>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// The layout has a standby: a lease is needed.
    is_needed: bool,
    lease: Option<Lease>,
    /// That this node acknowledges in its life is on its disk.
    is_noted: bool,
    /// When the decision in force was told.
    told_at: Duration,
    /// The primary hands over until then, Unix microseconds.
    held_until_us: i64,
    /// Where the standby of a layout has to be before it may be promoted again: the layout's version, and
    /// what the groups held when it was seen here first.
    owed: Option<(u64, Vec<(GroupId, u64)>)>,
    /// When this node was ordered to go over without the places.
    split_at: Option<Duration>,
}

impl Primacy {
    /// Opens the acceptor of this node. `is_needed`: the layout has a standby, as far as the rows here
    /// tell; from the first moment on nothing is acknowledged that must not be.
    ///
    /// # Errors
    /// A file that is damaged or cannot be read, with what to do.
    pub fn open(
        data: &Path,
        (node, site): (NodeId, &str),
        own: Incarnation,
        is_needed: bool,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<Arc<Self>, dtm_register::Error> {
        let mut fresh = [0; 16];
        entropy.fill(&mut fresh);
        let keep = FileKeep::new(data.join("register"));
        let acceptor = Acceptor::open(keep, AcceptorId(fresh), since_boot(&*clock))?;
        let state = State { is_needed, ..State::default() };
        Ok(Arc::new(Self {
            node,
            site: site.to_owned(),
            own,
            data: data.to_owned(),
            clock,
            entropy,
            acceptor: Mutex::new(acceptor),
            state: RwLock::new(state),
        }))
    }

    fn now(&self) -> Duration {
        since_boot(&*self.clock)
    }

    /// Whether an ack may leave this node now. Looked at before a command is proposed and again before
    /// its outcome is told.
    pub fn may_acknowledge(&self) -> bool {
        let state = self.state.read();
        let holds = || {
            let lease = state.lease.as_ref()?;
            Some(lease.decision().incarnation == self.own && lease.holds(self.now()))
        };
        !state.is_needed || !self.hands_over(&state) && holds().unwrap_or(false)
    }

    /// The primary acknowledges nothing for a while, so that the standby can hold everything.
    fn hands_over(&self, state: &State) -> bool {
        state.held_until_us > 0 && self.clock.now_us() < state.held_until_us
    }

    /// What the layout says.
    fn goes_by(&self, is_needed: bool, held_until_us: i64) {
        let mut state = self.state.write();
        (state.is_needed, state.held_until_us) = (is_needed, held_until_us);
    }

    fn is_handing_over(&self) -> bool {
        self.hands_over(&self.state.read())
    }

    /// The decision in force, as far as this node was told.
    pub fn decision(&self) -> Option<Decision> {
        self.state.read().lease.as_ref().map(|lease| lease.decision().clone())
    }

    /// The life that this process lives in.
    pub fn own(&self) -> Incarnation {
        self.own
    }

    /// Whether the layout has a standby.
    pub fn is_needed(&self) -> bool {
        self.state.read().is_needed
    }

    /// Goes by a decision that is known to be chosen; whether it is news.
    fn adopt(&self, decision: &Decision) -> bool {
        let mut state = self.state.write();
        let known = state.lease.as_ref().map_or(0, |lease| lease.decision().number);
        if decision.number <= known {
            return false;
        }
        let since = self.since(decision);
        self.note_taken(decision);
        state.told_at = self.now();
        match &mut state.lease {
            Some(lease) => lease.follow(decision, since),
            lease => *lease = Some(Lease::new(&self.site, decision, LeaseTime::default(), since)),
        }
        true
    }

    /// A life that this site acknowledged in before is gone on with; a new one is waited for.
    fn since(&self, decision: &Decision) -> Since {
        let noted = std::fs::read_to_string(self.noted()).unwrap_or_default();
        let is_resumed = noted.trim().parse() == Ok(decision.incarnation.0);
        if is_resumed || decision.number == 1 {
            return Since::Resumed;
        }
        let waited = taken::ago(&self.data, decision.incarnation).unwrap_or_default();
        Since::Taken { known_at: self.now(), waited }
    }

    /// The wait for the old right to end goes on over the start that this decision asks for.
    fn note_taken(&self, decision: &Decision) {
        if decision.primary != self.site || decision.incarnation <= self.own {
            return;
        }
        if let Err(error) = taken::note(&self.data, decision.incarnation) {
            tracing::warn!(%error, "the wait for the old right begins anew at the next start");
        }
    }

    /// The primary site, where a register decides on it and it is another than this node's.
    pub fn primary_elsewhere(&self) -> Option<String> {
        if !self.state.read().is_needed {
            return None;
        }
        let primary = self.decision()?.primary;
        (primary != self.site).then(|| primary.to_string())
    }

    /// Why what is entered in meta here may be left behind: the other site goes on, in the next life,
    /// from what it holds.
    pub fn leaves_behind(&self) -> Option<Told> {
        let state = self.state.read();
        let decision = state.lease.as_ref().filter(|_| state.is_needed)?.decision();
        if decision.incarnation > self.own {
            return Some(Told::new("refused.life_over").with("life", decision.incarnation));
        }
        let hands_over = self.hands_over(&state);
        hands_over.then(|| Told::new("refused.handing_over").with("site", &decision.standby))
    }

    /// Why a node of the primary begins nothing that others go by: it does not have the right now, so
    /// another site may be promoted, and go on without it.
    pub(crate) fn has_no_right(&self) -> Option<Told> {
        if !self.is_needed() {
            return None;
        }
        let Some(decision) = self.decision() else {
            return Some(Told::new("refused.no_right").with("site", &self.site));
        };
        let is_primary = decision.primary == self.site && decision.incarnation == self.own;
        let lacks = is_primary && !self.is_handing_over() && !self.may_acknowledge();
        lacks.then(|| Told::new("refused.no_right").with("site", &decision.primary))
    }

    /// Why it may not.
    pub fn why_not(&self) -> String {
        match self.decision() {
            None => "which site is primary was not confirmed here yet".to_owned(),
            Some(decision) if decision.primary != self.site => {
                format!("site {} is primary: send there", decision.primary)
            }
            Some(decision) if decision.incarnation > self.own => {
                format!("life {} begins here", decision.incarnation)
            }
            Some(decision) if self.is_handing_over() => {
                format!("site {} hands over to site {}", decision.primary, decision.standby)
            }
            Some(_) => {
                "a majority of the places does not confirm that this site is primary".to_owned()
            }
        }
    }

    /// Notes, once, that this node acknowledges in its life. Durable when it returns.
    fn note_once(&self) -> std::io::Result<()> {
        if std::mem::replace(&mut self.state.write().is_noted, true) {
            return Ok(());
        }
        let text = format!("{}\n", self.own);
        dtm_storage::vfs::replace_file(&dtm_storage::vfs::RealVfs, &self.noted(), text.as_bytes())
    }

    fn noted(&self) -> PathBuf {
        self.data.join("primacy")
    }
}

fn since_boot(clock: &dyn Clock) -> Duration {
    Duration::from_micros(u64::try_from(clock.monotonic_us()).unwrap_or_default())
}

/// Whether a register decides which site is primary: with a standby and a third site.
pub fn has_register(layout: &LayoutRow) -> bool {
    layout.kind() == LayoutKind::Standby && !layout.seats.is_empty()
}
