//! Nodes in one process, real TLS on loopback, port 0.

#![allow(clippy::disallowed_methods, reason = "waits and measures by the machine's own clock")]

mod clocks;
mod crowded;
mod damage;
mod elsewhere;
mod harness;
mod membership;
mod moves;
mod replication;
mod snapshots;
mod storage;
mod stuck;
