//! `dtm site`.

use clap::{Args, Subcommand, ValueEnum};

/// `dtm site`.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// Decide how replicas lie over sites. They and their leaders follow by themselves, and nothing
    /// stops meanwhile; `dtm site status` tells how far that is.
    Layout(LayoutArgs),
    /// Make a standby primary, where the primary is gone: in the next life of the cluster, from what the
    /// standby holds. Returns when it acknowledges.
    Promote(PromoteArgs),
    /// The layout, and of each site nodes, replicas and how far these are behind. Exit code 10 where
    /// the layout is not fulfilled or a site lags.
    Status,
}

/// `dtm site promote`.
#[derive(Clone, Debug, Args)]
pub struct PromoteArgs {
    /// The site that stands by.
    #[arg(value_name = "SITE")]
    pub site: String,
    /// Also where the primary may still acknowledge. Not on a cluster of production.
    #[arg(long)]
    pub force: bool,
}

/// `dtm site layout`.
#[derive(Clone, Debug, Args)]
pub struct LayoutArgs {
    /// Which.
    #[arg(long)]
    pub kind: LayoutName,
    /// Site where groups are led.
    #[arg(long, value_name = "SITE", default_value = "")]
    pub primary: String,
    /// The second site.
    #[arg(long, value_name = "SITE", default_value = "", alias = "other")]
    pub standby: String,
    /// The third site.
    #[arg(long, value_name = "SITE", default_value = "")]
    pub arbiter: String,
}

/// A layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LayoutName {
    /// Replicas anywhere, apart over sites and zones where that can be. Names no sites.
    Single,
    /// Voters at three sites: the loss of any one stops nothing and loses nothing; acks cross lines.
    Stretched,
    /// All voters at the primary, copies that never vote at the standby.
    Standby,
}
