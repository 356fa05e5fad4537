//! Nodes in one process, real TLS on loopback, port 0.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]

// What proxy.rs draws its losses by.
use rand as _;

mod anchors;
mod clocks;
mod compare;
mod crowded;
mod damage;
mod elsewhere;
mod harness;
mod membership;
mod moves;
mod outside;
mod promotion;
#[path = "../../sites/tests/sites/proxy.rs"]
mod proxy;
mod replication;
mod sites;
mod snapshots;
mod standby_sets;
mod storage;
mod stuck;
