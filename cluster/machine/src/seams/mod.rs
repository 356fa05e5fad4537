//! The seams: what the layers above and below agree on. Each has a real and an in-memory twin and
//! one contract suite (`tests/contract`).
//!
//! ```text
//!  actors ── Proposer, ReadView, SiteCopies ──> cluster    machine ── StateRead ──> storage
//!  cluster ── StateStore, RecordStore ──> storage    everyone ── Clock, Entropy
//! ```

mod clock;
mod entropy;
mod proposer;
mod read_view;
mod record_store;
mod site_copies;
mod state_store;

pub use clock::{Clock, ManualClock};
pub use entropy::{Entropy, SeededEntropy};
pub use proposer::{ProposeError, Proposer, Reply};
pub use read_view::{Freshness, GroupView, LeaderHint, ReadError, ReadView};
pub use record_store::{RecordError, RecordStore};
pub use site_copies::{OneSite, SiteCopies};
pub use state_store::{MemoryStateStore, StateBatch, StateError, StateOp, StateRead, StateStore};
