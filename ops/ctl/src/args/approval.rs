//! `dtm approval`.

use clap::Subcommand;
use dtm_types::ApprovalId;

/// `dtm approval`.
#[derive(Debug, Subcommand)]
pub enum ApprovalCommand {
    /// What waits for a second person, or was granted and not used yet.
    List {
        /// Also what was denied or used, or is past its time.
        #[arg(long)]
        all: bool,
    },
    /// One approval: what exactly will be done, who asked, why, what became of it.
    Show {
        /// Approval.
        id: ApprovalId,
    },
    /// Say yes. Never to what you asked for yourself.
    Grant {
        /// Approval.
        id: ApprovalId,
    },
    /// Sign a request file with the key of this context, as one of two people: of `dtm site promote
    /// --accept-split`. Connects to nothing.
    Sign {
        /// The file.
        file: std::path::PathBuf,
    },
    /// Say no, or take back a yes that was not used.
    Deny {
        /// Approval.
        id: ApprovalId,
    },
}
