//! Nodes in one process, real TLS on loopback, port 0.

mod harness;
mod replication;
