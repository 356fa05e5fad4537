//! Raft groups, network, membership, placement.
