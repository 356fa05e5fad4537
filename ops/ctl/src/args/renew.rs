//! `dtm cluster renew`.

use clap::Args;

/// `dtm cluster renew`.
#[derive(Clone, Debug, Args)]
pub struct RenewArgs {
    /// Nodes (name or id), in this order.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub nodes: Vec<String>,
    /// Every node of the cluster.
    #[arg(long)]
    pub all: bool,
}
