//! Approvals as every side sees them: bounds, and the one form in which it is written what exactly
//! a second person is asked about. Apply makes that text itself from the command and the rows, so
//! that what was granted and what is done are the same bytes.

use dtm_types::NodeId;
use dtm_types::command::{ApprovalRow, ApprovalState, NodeRow};
use sha2::{Digest, Sha256};

/// How long a request holds where nothing is said, microseconds.
pub const VALID_US_DEFAULT: i64 = 24 * 3_600_000_000;
/// How long one may hold, microseconds.
pub const VALID_US_MAX: i64 = 7 * VALID_US_DEFAULT;
/// Requests that are open or granted at once.
pub const OPEN_MAX: usize = 100;
/// Rows that are held; of those that are over the oldest go first. The ledger names all.
pub const HELD_MAX: usize = 1_000;
/// Longest kind, bytes.
pub const KIND_BYTES_MAX: usize = 32;
/// Longest object, bytes.
pub const OBJECT_BYTES_MAX: usize = 1_024;
/// Longest reason, bytes.
pub const REASON_BYTES_MAX: usize = 512;

/// Taking out a node whose groups then have fewer replicas than they are to have.
pub const REMOVE_NODE: &str = "remove-node";
/// Giving a standby up: what is acknowledged from then on is at one site.
pub const DETACH_SITE: &str = "detach-site";
/// Every kind that a request may have.
pub const KINDS: [&str; 2] = [REMOVE_NODE, DETACH_SITE];

/// What is granted: SHA-256 over kind, a zero byte and object.
pub fn digest(kind: &str, object: &str) -> [u8; 32] {
    Sha256::new().chain_update(kind).chain_update([0]).chain_update(object).finalize().into()
}

/// The object of [`REMOVE_NODE`].
pub fn remove_node(row: &NodeRow) -> String {
    let id = NodeId::from_slice(&row.node).unwrap_or_default();
    format!("node={id} name={}", row.name)
}

/// The object of [`DETACH_SITE`]: the site, and the version of the layout that ends.
pub fn detach_site(site: &str, layout: u64) -> String {
    format!("site={site} layout={layout}")
}

/// Past its time without having been used.
pub fn is_expired(row: &ApprovalRow, at_us: i64) -> bool {
    row.state() != ApprovalState::Used && row.expires_us <= at_us
}

/// Open or granted, and within its time.
pub fn is_pending(row: &ApprovalRow, at_us: i64) -> bool {
    let is_over = matches!(row.state(), ApprovalState::Denied | ApprovalState::Used);
    !is_over && !is_expired(row, at_us)
}
