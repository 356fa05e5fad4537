//! Planted bugs: faulty implementations of the seams, each caught by the checker named, and the same
//! scenario with the true implementation, about which the checkers say nothing.
//!
//! | bug | seam | caught by |
//! |---|---|---|
//! | ack before fsync | `Vfs` | ING-1 |
//! | vote not synced | `ReplicaLog` | RAFT-1 |
//! | damaged middle taken for a torn tail | `ReplicaLog` | ING-1 |
//! | tail cut past commit | `ReplicaLog` | ING-1 |
//! | misdirected read served | `ReplicaLog` | RAFT-1 |
//! | purge ahead of flush | `StateStore` | ING-1 |
//! | replica id used again | `LogProvider` | RAFT-1 |
//! | cursor missing from a snapshot | `StateStore` | ING-2 |
//! | ledger head not persisted | `StateStore` | LED-1 |
//! | one replica writes another row | `StateStore` | RAFT-1 |
//! | row behind the ledger's back | `StateStore` | SEC-2 |
//! | two batches in each other's place | `StateStore` | ING-3 |
//! | place under a stream that nobody sent | `StateStore` | ING-4 |
//! | another record than was stored | `ReplicaLog` | ING-4 |
//! | old view called current | `StateStore` | READ-1 |
//! | log mute after a restart | `ReplicaLog` | LIVE-1 |
//! | damage passed over in silence | `ReplicaLog` | OBS-1 |
//! | bundle applied twice | driver of the machine | ING-2 |
//! | nonce used again after a restart | `Entropy` | SEC-1 |
//! | key kept in clear | `KeyVault` | SEC-1 |
//! | content stored in clear | `BatchCipher` | SEC-1 |
#![allow(clippy::unwrap_used)]

mod apply;
mod current_reads;
mod cycles;
mod damage;
mod durability;
mod faulty_disk;
mod faulty_log;
mod faulty_rows;
mod recovery;
mod rows;
mod sealing;
mod snapshot;

use dtm_chaos::checker::Property;
use dtm_chaos::sandbox::Findings;

/// Nothing may be said about the true implementation.
fn clean(findings: &Findings) {
    assert!(findings.verdict.holds() && findings.breaches.is_empty(), "{findings}");
    assert!(findings.refused_starts.is_empty(), "{findings}");
    assert!(findings.verdict.acked > 0, "a run that acks nothing shows nothing");
}

/// The checker of the property has something to say.
fn caught(findings: &Findings, property: Property) {
    assert!(findings.broken().contains(&property), "{property} was not caught: {findings}");
}
