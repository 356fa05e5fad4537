//! Security status and priority of records (A1-3.3): what is allowed, and what follows at intake.
//!
//! ```text
//!  status        storage                    what a refused record held     who sees it
//!  1 public      batches of its own, sealed kept                           operators see excerpts
//!  2 internal    batches of its own, sealed kept                           its source only
//!  3 restricted  batches of its own, sealed place, rule, length, digest    nobody: it is not kept
//! ```
//! The status stands in the header of each batch, which the seal and the ledger's leaf cover.

use dtm_catalog::{Rule, Violation};
use dtm_proto::ingest;
use dtm_types::LABEL_MAX;

/// How much a record is to be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecurityStatus {
    /// For everyone.
    Public,
    /// For the administration.
    Internal,
    /// For those whom it concerns.
    Restricted,
}

impl SecurityStatus {
    /// The status of a number. What is none is protected most.
    pub fn of(number: u32) -> Self {
        match number {
            1 => Self::Public,
            2 => Self::Internal,
            _ => Self::Restricted,
        }
    }

    /// The quarantine keeps what a refused record held.
    pub fn keeps_refused(self) -> bool {
        self < Self::Restricted
    }

    /// Whoever may list the quarantine sees excerpts of what refused records held.
    pub fn shows_excerpts(self) -> bool {
        self == Self::Public
    }
}

/// Whether both numbers are allowed: 1 to 3.
pub(crate) fn are_allowed(security_status: u32, priority: u32) -> bool {
    let allowed = 1..=LABEL_MAX;
    allowed.contains(&security_status) && allowed.contains(&priority)
}

/// What is wrong with the labels that a record brings itself; 0 = it says nothing.
pub(crate) fn broken_labels(record: &ingest::Record) -> Vec<Violation> {
    let labels = [("/security_status", record.security_status), ("/priority", record.priority)];
    let broken = labels.into_iter().filter(|(_, value)| *value > LABEL_MAX);
    broken
        .map(|(pointer, value)| Violation {
            pointer: pointer.to_owned(),
            rule: Rule::Label,
            expected: format!("1 … {LABEL_MAX}"),
            found: value.to_string(),
            found_bytes: 0,
            byte_offset: None,
        })
        .collect()
}
