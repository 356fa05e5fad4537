//! Tests of the register: each part alone, then all of it from seeds.

mod acceptor;
mod chaos;
mod guard;
mod lease;
mod operator;
mod oracle;
mod proposer;
mod random;
mod seeds;
mod site;
mod world;

use dtm_types::{Incarnation, NodeId};

use crate::{AcceptorId, Act, Decision, Seat};

/// A seat of acceptor `n` on node `n`.
fn seat(n: u8) -> Seat {
    let place = ["north", "south", "third"][usize::from(n) % 3].to_owned();
    Seat { place, node: NodeId([n; 16]), acceptor: AcceptorId([n; 16]) }
}

fn act(reason: &str) -> Act {
    Act { at_us: 1_795_000_000_000_000, by: "operator-1".into(), reason: reason.into() }
}

/// North is primary; acceptors 0, 1, 2.
fn founding() -> Decision {
    Decision::founded(
        Incarnation(1),
        ("north", "south"),
        vec![seat(0), seat(1), seat(2)],
        act("founding"),
    )
}
