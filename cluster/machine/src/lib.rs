//! The replicated state machine: pure apply and the seams.
