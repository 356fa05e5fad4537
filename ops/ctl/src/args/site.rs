//! `dtm site`.

use clap::{Args, Subcommand, ValueEnum};
use dtm_types::ApprovalId;

/// `dtm site`.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// Decide how replicas lie over sites. They and their leaders follow by themselves, and nothing
    /// stops meanwhile; `dtm site status` tells how far that is.
    Layout(LayoutArgs),
    /// Make a standby primary, where the primary is gone: in the next life of the cluster, from what the
    /// standby holds. Returns when it acknowledges.
    Promote(PromoteArgs),
    /// Make a standby primary while the primary runs, without a loss: it stops acknowledging, the
    /// standby comes to hold everything, and takes over. Returns when it acknowledges.
    Failback(FailbackArgs),
    /// Give a standby up that is gone: nothing waits for it any more, and it cannot be promoted. On a
    /// cluster of production a second person approves it.
    Detach(DetachArgs),
    /// What nodes of a site that was primary held beyond what the standby took over: list it, send it
    /// again, give it up.
    Left(LeftArgs),
    /// Say the one word that the second channel to other sites waits for, two hours after the first was
    /// cut (`sites.standby` = "confirmed"). For every line that waits for it.
    Confirm,
    /// The layout, of each site nodes, replicas and how far these are behind, and the lines between sites.
    /// Exit code 10 where the layout is not fulfilled, a site lags, or a line is cut or not over its first
    /// channel.
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
    /// The life in force, where this site did not enter it: what was acknowledged in it is given up. For a
    /// life that never began.
    #[arg(long, value_name = "LIFE", default_value_t = 0, hide_default_value = true)]
    pub give_up_life: u64,
    /// Without the places, where no two of them answer. TWO SITES MAY ACKNOWLEDGE then: the old primary
    /// goes on until it hears of this. Takes a request file that two people signed (dtm approval sign).
    #[arg(long, requires = "request_file", conflicts_with = "force")]
    pub accept_split: bool,
    /// The request file; made where it is not there.
    #[arg(long, value_name = "FILE", requires = "accept_split")]
    pub request_file: Option<std::path::PathBuf>,
}

/// `dtm site failback`.
#[derive(Clone, Debug, Args)]
pub struct FailbackArgs {
    /// The site that stands by, and is to be primary.
    #[arg(value_name = "SITE")]
    pub site: String,
}

/// `dtm site detach`.
#[derive(Clone, Debug, Args)]
pub struct DetachArgs {
    /// The site that stands by.
    #[arg(value_name = "SITE")]
    pub site: String,
    /// A second person's approval, where it is needed.
    #[arg(long, value_name = "ID")]
    pub approval: Option<ApprovalId>,
}

/// `dtm site left`.
#[derive(Clone, Debug, Args)]
pub struct LeftArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LeftCommand,
}

/// `dtm site left`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum LeftCommand {
    /// Of each node that answers: streams and sequences, and how many of their records the life in force
    /// lacks. Exit code 10 where anything is kept.
    List,
    /// Send it again, as it was. What its source sent again meanwhile is not stored twice. Kept until all
    /// of it is there.
    Resend,
    /// Give it up.
    Discard,
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
    /// Also where this site may not acknowledge now: if another is primary by now, both acknowledge. With
    /// --reason, and not on a cluster of production.
    #[arg(long)]
    pub accept_split: bool,
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
