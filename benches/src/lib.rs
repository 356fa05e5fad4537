//! Load generator, peers, micro benches.
