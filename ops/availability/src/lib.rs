//! The availability account: what probes from outside saw of the system in each minute, and what
//! that makes of a day, a month, a year.
//!
//! ```text
//!  Minute (one line of a probe's file) ─▶ State (up, partial, interrupted) ─▶ Account of a Period
//!                                                                           └▶ Board of now
//! ```
//! Pure: no clock, files or network; who probes keeps the lines and names the present minute.
//!
//! The rules (Circular 12/2025, App. 01 item 1.3):
//! - A minute is an interruption where in one round of attempts no public address received a message,
//!   or at none the entry page opened. An address that fails beside another that answers is a partial
//!   failure.
//! - Planned maintenance counts as interruption.
//! - At most 1 % of the minutes of a year: 5,256 of them, 5,270.4 in a leap year.
//! - A minute in which no probe looked is not known. It is told apart, and counted once as if it had
//!   been an interruption.

mod account;
mod board;
mod minute;
mod period;

pub use account::{Account, Interruption, account};
pub use board::{Board, Now};
pub use minute::{Function, Line, Maintenance, Minute, State};
pub use period::Period;

/// Why a line or a period is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line of a probe's file is none.
    #[error("line {line}: {why}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Neither a day, a month nor a year.
    #[error("{0:?} is neither a day (2026-11-22), a month (2026-11) nor a year (2026)")]
    Period(String),
}
