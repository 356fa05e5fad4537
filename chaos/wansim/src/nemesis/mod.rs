//! Faults of single processes: ended, held still, starved of CPU, with a clock that is wrong.
//!
//! Each is made for a process that the caller started, proves that it happened, and is taken back
//! when dropped.

mod clock;
mod process;
mod starve;

pub use clock::{Drifting, TurnedClock};
pub use process::{Paused, Victim};
pub use starve::{Means, Starved};
