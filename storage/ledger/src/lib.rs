//! Merkle log: RFC 6962 tree, proofs, leaves.
