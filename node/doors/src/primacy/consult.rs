//! What the places hold already, before a layout names them.
//!
//! The acceptors of a register outlive the layout that named them: one that is given up and put anew with
//! the same acceptors goes on with what they decided. A layout that says otherwise would leave the rows and
//! the register contradicting each other, and no site would acknowledge.

use std::sync::Arc;

use dtm_register::{AcceptorId, Decision, Outcome, Proposer, Seat};
use dtm_types::command::LayoutRow;
use dtm_types::{Incarnation, NodeId};

use super::Primacy;
use super::watch::READ_WITHIN;
use crate::Shared;

/// Why a layout is not to be put over its seats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// They hold that other sites, or another life, are in force.
    Decided(Box<Decision>),
    /// Too few of them answer.
    Silent {
        /// Places without an answer.
        places: Vec<String>,
    },
}

impl Primacy {
    /// Reads the register over the seats of a layout that is to be put: it has to be empty, or to say
    /// what the layout says.
    ///
    /// # Errors
    /// [`Contradiction`].
    pub async fn goes_with(
        self: &Arc<Self>,
        shared: &Shared,
        layout: &LayoutRow,
    ) -> Result<(), Contradiction> {
        let seats = layout.seats.iter().filter_map(|seat| {
            let acceptor = AcceptorId(seat.acceptor.as_ref().try_into().ok()?);
            let node = NodeId::from_slice(&seat.node)?;
            Some(Seat { place: seat.place.clone(), node, acceptor })
        });
        let mut read = Proposer::read(self.proposer_id(), &seats.collect::<Vec<_>>());
        // Where a place was replaced since, those that decide now are known here.
        if let Some(known) = self.decision() {
            read.also_ask(&known.seats);
        }
        agrees(self.drive(&shared.cluster, read, READ_WITHIN).await, layout, self.own)
    }
}

fn agrees(found: Outcome, layout: &LayoutRow, own: Incarnation) -> Result<(), Contradiction> {
    let silent = |missing: Vec<dtm_register::Missing>| Contradiction::Silent {
        places: missing.into_iter().map(|of| of.seat.place).collect(),
    };
    match found {
        Outcome::Empty => Ok(()),
        Outcome::Chosen(decision) | Outcome::Lost(decision) | Outcome::Overtaken(decision) => {
            let sites = (&decision.primary, &decision.standby);
            let is_same = sites == (&layout.primary, &layout.other) && decision.incarnation == own;
            if is_same { Ok(()) } else { Err(Contradiction::Decided(Box::new(decision))) }
        }
        Outcome::NoQuorum(missing) | Outcome::Unknown { missing, .. } => Err(silent(missing)),
        Outcome::Backwards { .. } => Err(silent(Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use dtm_register::Act;
    use dtm_types::command::LayoutKind;

    use super::*;

    // A standby that was given up and put the other way round over the same places.
    #[test]
    fn a_layout_goes_with_an_empty_register_or_with_one_that_says_the_same() {
        let layout = |primary: &str, other: &str| LayoutRow {
            kind: LayoutKind::Standby.into(),
            primary: primary.to_owned(),
            other: other.to_owned(),
            ..LayoutRow::default()
        };
        let own = Incarnation(2);
        let held = |life| {
            let of = Incarnation(life);
            Decision::founded(of, ("a", "b"), Vec::new(), Act::default())
        };
        let asked = |found: Outcome, layout: &LayoutRow| agrees(found, layout, own);
        assert_eq!(asked(Outcome::Empty, &layout("b", "a")), Ok(()));
        assert_eq!(asked(Outcome::Chosen(held(2)), &layout("a", "b")), Ok(()));
        for (life, sites) in [(2, ("b", "a")), (2, ("a", "c")), (1, ("a", "b")), (3, ("a", "b"))] {
            let refused = asked(Outcome::Chosen(held(life)), &layout(sites.0, sites.1));
            assert_eq!(refused, Err(Contradiction::Decided(Box::new(held(life)))), "{sites:?}");
        }
        let silent = asked(Outcome::NoQuorum(Vec::new()), &layout("a", "b"));
        assert_eq!(silent, Err(Contradiction::Silent { places: Vec::new() }));
    }
}
