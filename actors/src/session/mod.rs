//! One actor a connection.
//!
//! ```text
//!  opening ──Opened──> streaming ──Close / half-close / Reconnect──> draining ──> closed
//!                         │ Superseded, limit, key missing, outcome unknown for too long
//!                         └────────────────────────────────────────────────────> closed
//! ```
//! The actor owns flow state only. Batches that got no outcome are proposed again as they are, in
//! order (go-back-N): apply's sequence check makes that neither a hole nor a double.

mod actor;
mod alarm;
mod flow;
mod handle;
mod pending;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod limits_test;
#[cfg(test)]
mod order_test;
#[cfg(test)]
mod site_test;

pub use actor::in_session;
pub(crate) use actor::{Leave, Session, SessionArgs, SessionMessage};
pub(crate) use flow::FlowArgs;
pub use handle::SessionHandle;
