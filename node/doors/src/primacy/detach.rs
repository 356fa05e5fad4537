//! A standby that is given up, and one that stands by again.
//!
//! ```text
//!  detach   the places decide it first: from then on nobody can promote that site; then the layout's row
//!  attach   a later layout with the same standby ─▶ a node of the primary lets the places decide it
//! ```
//! A layout alone would not do: a standby that is cut off does not learn of it, and with the third place
//! it is a majority that could promote it while the primary acknowledges without it.

use std::sync::Arc;

use dtm_machine::seams::SiteCopies;
use dtm_register::{Act, Decision, Outcome, Proposer};
use dtm_types::command::LayoutRow;

use super::promote::told_of;
use super::watch::{READ_WITHIN, seats_of};
use super::{Primacy, has_register};
use crate::Shared;

/// Why the places did not decide it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDetached {
    /// Another site is primary, or another life is in force.
    #[error("site {primary} is primary in life {life}")]
    NotPrimary {
        /// The site.
        primary: String,
        /// The life.
        life: u64,
    },
    /// Too few places answer, or somebody else decides.
    #[error("the places did not decide: {what}")]
    Undecided {
        /// In words.
        what: String,
        /// Places that did not answer.
        places: Vec<String>,
    },
}

impl Primacy {
    /// Lets the places decide that the standby of this layout cannot be promoted any more. May be
    /// repeated. Nothing is decided where the layout has no register.
    ///
    /// # Errors
    /// [`NotDetached`]: the standby may still be promoted.
    pub async fn detach(
        self: &Arc<Self>,
        shared: &Shared,
        layout: &LayoutRow,
        (by, reason): (String, String),
    ) -> Result<(), NotDetached> {
        if !has_register(layout) {
            return Ok(());
        }
        let read = match self.decision() {
            Some(known) => Proposer::read_from(self.proposer_id(), &known),
            None => Proposer::read(self.proposer_id(), &seats_of(layout)),
        };
        let known = match self.drive(&shared.cluster, read, READ_WITHIN).await {
            Outcome::Chosen(known) => known,
            // Nobody is promoted over a register that was never founded.
            Outcome::Empty => return Ok(()),
            other => return Err(undecided(&other)),
        };
        self.adopt(&known);
        if known.primary != layout.primary || known.incarnation != self.own {
            let (primary, life) = (known.primary, known.incarnation.0);
            return Err(NotDetached::NotPrimary { primary, life });
        }
        if !known.is_attached() {
            return Ok(());
        }
        let act = Act { at_us: self.clock.now_us(), by, reason };
        let next = known.detached(layout.version, act);
        let set = self.set(&shared.cluster, &known, next.clone()).await;
        let set = set.map_err(|error| NotDetached::Undecided {
            what: error.to_string(),
            places: Vec::new(),
        })?;
        match set {
            Outcome::Chosen(decision) if decision == next => {
                self.adopt(&decision);
                Ok(())
            }
            other => Err(undecided(&other)),
        }
    }

    /// Lets the places decide that the standby stands by again, where a later layout names it.
    pub(super) async fn attach(
        self: &Arc<Self>,
        shared: &Shared,
        layout: &LayoutRow,
    ) -> Result<(), String> {
        let Some(known) = self.decision().filter(|known| is_again(known, layout)) else {
            return Ok(());
        };
        if known.primary != self.site || known.incarnation != self.own {
            return Ok(());
        }
        if !self.is_paid(shared, layout.version) {
            return Ok(());
        }
        let next = known.attached(self.own_act("a layout with this standby was put".to_owned()));
        self.note_in_force(&shared.cluster, &known, next).await
    }
}

impl Primacy {
    /// Whether the standby holds what the groups held when its layout was seen here first: what it held
    /// before it was detached lacks what was acknowledged since.
    fn is_paid(&self, shared: &Shared, layout: u64) -> bool {
        let now = || {
            let groups = shared.cluster.status();
            groups.iter().map(|group| (group.group, group.head.index.max(1))).collect::<Vec<_>>()
        };
        let mut state = self.state.write();
        if state.owed.as_ref().is_none_or(|(version, _)| *version != layout) {
            state.owed = Some((layout, now()));
        }
        state.owed.as_ref().is_some_and(|(_, owed)| {
            !owed.is_empty()
                && owed.iter().all(|(group, index)| {
                    shared.cluster.through(*group).is_some_and(|through| through >= *index)
                })
        })
    }
}

/// Whether a standby that was detached is named by a layout that was put after that.
fn is_again(known: &Decision, layout: &LayoutRow) -> bool {
    has_register(layout)
        && !known.is_attached()
        && layout.version > known.detached_layout
        && (&layout.primary, &layout.other) == (&known.primary, &known.standby)
}

fn undecided(outcome: &Outcome) -> NotDetached {
    let (what, places) = told_of(outcome);
    NotDetached::Undecided { what, places }
}

#[cfg(test)]
mod tests {
    use dtm_types::Incarnation;
    use dtm_types::command::{LayoutKind, LayoutSeat};

    use super::*;

    #[test]
    fn only_a_later_layout_attaches_the_standby_again() {
        let layout = |version, other: &str| LayoutRow {
            kind: LayoutKind::Standby.into(),
            primary: "a".to_owned(),
            other: other.to_owned(),
            seats: vec![LayoutSeat::default()],
            version,
            ..LayoutRow::default()
        };
        let first = Decision::founded(Incarnation(1), ("a", "b"), Vec::new(), Act::default());
        let detached = first.detached(4, Act::default());
        assert!(!is_again(&first, &layout(5, "b")), "it stands by");
        assert!(!is_again(&detached, &layout(4, "b")), "the row that was still in force then");
        assert!(is_again(&detached, &layout(6, "b")));
        assert!(!is_again(&detached, &layout(6, "c")), "another site");
        let single = LayoutRow { kind: LayoutKind::Single.into(), ..layout(6, "b") };
        assert!(!is_again(&detached, &single));
    }
}
