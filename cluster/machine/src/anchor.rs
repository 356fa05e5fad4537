//! What may follow what in the anchors of a group: the same rule for the leader of meta, which tells a
//! ledger that went back from one that it cannot see yet, and for apply.

use dtm_types::format::AnchoredGroup;

/// Whether a group may be anchored so after it was anchored as `held`.
///
/// # Errors
/// Why not. In words: they begin with `LED-1` where a ledger went back or has another root.
pub fn follows(held: &AnchoredGroup, next: &AnchoredGroup) -> Result<(), &'static str> {
    if next.incarnation != held.incarnation {
        let later = next.incarnation > held.incarnation;
        return if later { Ok(()) } else { Err("an anchor of a life of the cluster before") };
    }
    if next.ledger_size < held.ledger_size {
        return Err("LED-1: a ledger has fewer leaves than were anchored");
    }
    if next.ledger_size == held.ledger_size && next.ledger_root != held.ledger_root {
        return Err("LED-1: a ledger has another root than was anchored at its size");
    }
    if next.applied_index < held.applied_index {
        return Err("LED-1: a ledger with as many leaves at an earlier index");
    }
    Ok(())
}
