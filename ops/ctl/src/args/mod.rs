//! The command line: nouns and verbs. What is local to a node (`serve`, `cluster init` …) is
//! declared here with the rest and carried out by the binary.

mod approval;
mod availability;
mod backup;
mod data;
mod drill;
mod renew;
mod site;

pub use approval::ApprovalCommand;
pub use availability::{AvailabilityCommand, BoardArgs, ProbeArgs};
pub use backup::{BackupCommand, ExportArgs, RestoreArgs, WhichBackup};
pub use data::{
    AgentArgs, DatasetCommand, PublishArgs, QuarantineCommand, ReadArgs, RecordsCommand, SendForm,
    SendMode, SourceArgs, SourceCommand, SourceKeyCommand, SourceLimit,
};
pub use drill::DrillCommand;
pub use renew::RenewArgs;
pub use site::{
    DetachArgs, FailbackArgs, LayoutArgs, LayoutName, LeftArgs, LeftCommand, PromoteArgs,
    SiteCommand,
};

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dtm_types::text::Lang;
use dtm_types::{ApprovalId, CALLER_DAYS_MAX};

/// Days that a key or a certificate may be asked for.
const DAYS: std::ops::RangeInclusive<i64> = 1..=CALLER_DAYS_MAX as i64;

/// The command line of `dtm`.
#[derive(Debug, Parser)]
#[command(
    name = "dtm",
    version,
    about = "Clustered intake of records: sealed, ordered, acknowledged once a majority has them on disk.",
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 10 unhealthy, 20 verification failed, 78 bad configuration.\nEnvironment: DTM_CONTEXTS (file of contexts), DTM_CONTEXT, DTM_LANG, DTM_CONFIG."
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Globals {
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Language of what is printed: vi or en.
    #[arg(long, global = true, env = "DTM_LANG", value_parser = parse_lang, default_value = "vi")]
    pub lang: Lang,
    /// Context to use instead of the current one.
    #[arg(long, global = true, env = "DTM_CONTEXT")]
    pub context: Option<String>,
    /// Do not ask before something is destroyed.
    #[arg(long, global = true)]
    pub yes: bool,
    /// Why; it stands in the ledger beside the action.
    #[arg(long, global = true, default_value = "")]
    pub reason: String,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: one JSON document, or one a line where results stream. Errors are text on
    /// stderr all the same; the exit code tells of them.
    Json,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write section.key=value".to_owned()),
    }
}

fn parse_lang(text: &str) -> Result<Lang, String> {
    Lang::parse(text).ok_or_else(|| "vi or en".to_owned())
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node.
    Serve(ConfigFile),
    /// Make, join and run a cluster.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// People and scripts that administer the cluster.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// What takes two people: who asks for a second person's word, and what for.
    #[command(subcommand)]
    Approval(ApprovalCommand),
    /// Systems that send.
    #[command(subcommand)]
    Source(SourceCommand),
    /// Data contracts.
    #[command(subcommand)]
    Dataset(DatasetCommand),
    /// Send a file, a folder or standard input.
    Publish(PublishArgs),
    /// Watch, spool and send: the source side of a long connection.
    Agent(AgentArgs),
    /// Read back what was accepted.
    #[command(subcommand)]
    Records(RecordsCommand),
    /// Records that were refused, and why.
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Configuration: of this node, and what the cluster sets for all.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The live page.
    #[command(subcommand)]
    Console(ConsoleCommand),
    /// Keys of the cluster.
    #[command(subcommand)]
    Key(KeyCommand),
    /// The ledgers.
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Where replicas are, over sites.
    #[command(subcommand)]
    Site(SiteCommand),
    /// Backups of the whole cluster, and what is restored from them.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// How long the system was interrupted, as seen from outside.
    #[command(subcommand)]
    Availability(AvailabilityCommand),
    /// The drill book: what there is, what is wrong in a file, what is due.
    #[command(subcommand)]
    Drill(DrillCommand),
    /// Clusters that this command line knows.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Is this machine fit to run a node?
    Doctor(DoctorArgs),
    /// Files for the systems that watch a cluster.
    #[command(subcommand)]
    Generate(GenerateCommand),
}

/// `dtm generate`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum GenerateCommand {
    /// A dashboard for Grafana, to be imported (JSON).
    Grafana,
    /// Alerts for Prometheus, as a file of rules (YAML).
    PrometheusRules,
}

/// Where a node's configuration is.
#[derive(Clone, Debug, Args)]
pub struct ConfigFile {
    /// Configuration file.
    #[arg(long, env = "DTM_CONFIG", default_value = "dtm.toml")]
    pub config: PathBuf,
}

/// `dtm doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Configuration file; without it dtm.toml, where there is one.
    #[arg(long, env = "DTM_CONFIG")]
    pub config: Option<PathBuf>,
}

/// What `dtm cluster upgrade` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UpgradeAction {
    /// Only say what would be done and what stands against it.
    Status,
    /// Raise the version: there is no way back to the release before.
    Finalize,
}

/// `dtm cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a new cluster of one node: certificates, keys, configuration.
    Init(InitArgs),
    /// Make the files of a node that joins a running cluster.
    Join(JoinArgs),
    /// Make a one-time token with which one node may join; it holds for an hour.
    Token {
        /// Site of the node.
        #[arg(long, default_value = "main")]
        site: String,
        /// Zone of the node.
        #[arg(long, default_value = "main")]
        zone: String,
    },
    /// Nodes, groups, leaders. Exit code 10 when something is not healthy.
    Status,
    /// Move leadership of a group, or of all groups a node leads.
    Transfer {
        /// Group; without it, all that `--from` leads.
        #[arg(long, default_value_t = 0)]
        group: u32,
        /// Node that leads now (name or id).
        #[arg(long)]
        from: Option<String>,
        /// Node that is to lead (name or id).
        #[arg(long)]
        to: String,
    },
    /// Empty a node of leaders and sessions before it is stopped. It stays so over a restart, until
    /// it is taken back. Asks where no other node takes sessions.
    Drain {
        /// Node (name or id).
        node: String,
        /// Take it back into service.
        #[arg(long)]
        resume: bool,
    },
    /// Raise the version of every group, once all nodes know it. Exit code 10 when something stands
    /// against it.
    Upgrade {
        /// What to do.
        #[arg(default_value = "finalize")]
        action: UpgradeAction,
        /// The same as `status`.
        #[arg(long)]
        check: bool,
    },
    /// Give nodes that run a new key and certificate, one after the other, without a restart.
    Renew(RenewArgs),
    /// Take a node out for good.
    Remove {
        /// Node (name or id).
        node: String,
        /// Approval of a second person, where the cluster asks for one.
        #[arg(long, value_name = "ID")]
        approval: Option<ApprovalId>,
    },
}

/// What a new node is called and where it listens.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// Folder to make everything in.
    #[arg(long, default_value = "dtm")]
    pub folder: PathBuf,
    /// Name of the node, unique in the cluster; of the first one n1 where nothing is said. A node
    /// that joins must be given one.
    #[arg(long)]
    pub node: Option<String>,
    /// Site of the node.
    #[arg(long, default_value = "main")]
    pub site: String,
    /// Zone of the node.
    #[arg(long, default_value = "main")]
    pub zone: String,
    /// Names or addresses under which others reach it; the first is told to them.
    #[arg(long, value_delimiter = ',', default_value = "localhost,127.0.0.1")]
    pub advertise: Vec<String>,
    /// HTTPS address.
    #[arg(long, default_value = "0.0.0.0:8443")]
    pub https: SocketAddr,
    /// gRPC address.
    #[arg(long, default_value = "0.0.0.0:9443")]
    pub grpc: SocketAddr,
    /// Peers' address.
    #[arg(long, default_value = "0.0.0.0:9444")]
    pub peers: SocketAddr,
}

/// `dtm cluster init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// The first node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Name of the cluster; also of the context that is added, with a number behind it where
    /// another cluster's has that name.
    #[arg(long, default_value = "dtm")]
    pub name: String,
    /// First operator.
    #[arg(long, default_value = "admin")]
    pub operator: String,
    /// Ingest groups, 1 to 255.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32)
        .range(1..=i64::from(dtm_types::INGEST_GROUPS_MAX)))]
    pub groups: u32,
    /// Mark the cluster as one of production: what destroys takes a second person's approval.
    #[arg(long)]
    pub production: bool,
    /// Do not add a context for the first operator.
    #[arg(long)]
    pub no_context: bool,
}

/// `dtm cluster join`.
#[derive(Clone, Debug, Args)]
pub struct JoinArgs {
    /// The node that joins.
    #[command(flatten)]
    pub node: NodeArgs,
    /// gRPC address of a node of the cluster.
    #[arg(long)]
    pub address: String,
    /// File with the token of `dtm cluster token`, or `-` for standard input.
    #[arg(long)]
    pub token_file: PathBuf,
}

/// `dtm operator`.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Make a key here and have its certificate signed; with `--update` in place of the one that
    /// the name has.
    Add {
        /// Unique name: a-z 0-9 . - _
        name: String,
        /// operator, approver or auditor.
        #[arg(long, default_value = "operator", value_parser = ["operator", "approver", "auditor"])]
        role: String,
        /// Folder for key and certificate.
        #[arg(long, default_value = ".")]
        out: PathBuf,
        /// Days of validity.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(i64).range(DAYS))]
        days: i64,
        /// The name is there: give it this role and a new certificate. The one it had ends at once.
        #[arg(long)]
        update: bool,
    },
    /// Who may administer.
    List,
    /// Cut an operator off, at once and for good.
    Revoke {
        /// Name.
        name: String,
    },
}

/// `dtm config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read file and environment and the files they name; say what is wrong.
    Check(ConfigFile),
    /// What is in force on this node, and where each value comes from. Secrets are files and never
    /// shown.
    Show {
        /// The node's file.
        #[command(flatten)]
        file: ConfigFile,
        /// Ask the cluster of the context instead: what it has set, what the node that answers runs
        /// with, and which version each node goes by.
        #[arg(long)]
        cluster: bool,
    },
    /// Set what the whole cluster goes by. It is checked first; every node takes it within seconds,
    /// or at its next start where docs/config.md says so.
    Set {
        /// `section.key=value`, the value as in the configuration file.
        #[arg(value_parser = parse_setting, required_unless_present = "unset")]
        settings: Vec<(String, String)>,
        /// Key that the cluster sets no longer: each node's file or the default holds again.
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
        /// Only check.
        #[arg(long)]
        check: bool,
        /// Only where the settings are still at this version.
        #[arg(long, value_name = "VERSION")]
        at: Option<u64>,
    },
    /// Versions of what the cluster has set: when, by whom, what changed.
    History {
        /// How many, newest first.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        limit: u32,
    },
    /// Bring back what the cluster had set at an older version; it becomes a new version.
    Rollback {
        /// Version, as `dtm config history` lists it; 0 = nothing set.
        version: u64,
        /// Only say what would change.
        #[arg(long)]
        check: bool,
    },
    /// Print a generated page of the documentation.
    Docs {
        /// Which page.
        #[arg(long, value_enum, default_value_t = DocsPage::Config)]
        page: DocsPage,
    },
}

/// Generated pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DocsPage {
    /// docs/config.md
    Config,
    /// docs/metrics.md
    Metrics,
}

/// `dtm console`.
#[derive(Debug, Subcommand)]
pub enum ConsoleCommand {
    /// Print a link to the live page; it opens the page once, within ten minutes, for twelve hours.
    Open,
}

/// `dtm key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a new cluster key and wrap every data key under it.
    Rotate,
}

/// `dtm ledger`.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Size and root of every replica's ledger. Exit code 20 where two differ at one size, 10 where
    /// not all could be compared.
    Checkpoint,
    /// Where the ledgers of all groups stood, as entered in the ledger of meta: the newest anchors.
    Anchors {
        /// How many, newest first.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
}

/// `dtm context`.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Add or replace a context.
    Add(ContextArgs),
    /// Make a context the current one.
    Use {
        /// Name.
        name: String,
    },
    /// Forget a context. Its files stay.
    Remove {
        /// Name.
        name: String,
    },
    /// Known contexts.
    List,
}

/// `dtm context add`.
#[derive(Clone, Debug, Args)]
pub struct ContextArgs {
    /// Name.
    pub name: String,
    /// gRPC addresses, `host:port`.
    #[arg(long, value_delimiter = ',', required = true)]
    pub address: Vec<String>,
    /// Root certificates of the cluster (PEM).
    #[arg(long)]
    pub ca: PathBuf,
    /// Certificate chain (PEM).
    #[arg(long, requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, requires = "certificate")]
    pub key: Option<PathBuf>,
    /// File with a source key.
    #[arg(long, conflicts_with = "certificate")]
    pub source_key_file: Option<PathBuf>,
    /// Source that this context speaks for.
    #[arg(long)]
    pub source: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        super::Cli::command().debug_assert();
    }
}
