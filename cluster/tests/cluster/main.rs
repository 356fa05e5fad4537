//! Nodes in one process, real TLS on loopback, port 0.

mod clocks;
mod crowded;
mod damage;
mod elsewhere;
mod harness;
mod membership;
mod replication;
mod snapshots;
mod storage;
mod stuck;
