//! The node's log, state and record store.
