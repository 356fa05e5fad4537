//! Nouns of what is sent and read back: sources, data sets, records.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use dtm_types::command::SourceLimits;

use super::DAYS;

/// `dtm source`.
#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// Register a system, or change it with `--update`: what is not named stays.
    Add(SourceArgs),
    /// Registered systems.
    List,
    /// One system: agreements, keys, streams.
    Show {
        /// Code.
        source: String,
    },
    /// Its keys.
    #[command(subcommand)]
    Key(SourceKeyCommand),
    /// Make a key here and have a certificate for the system signed.
    Certificate {
        /// Code.
        source: String,
        /// Folder for key and certificate.
        #[arg(long, default_value = ".")]
        out: PathBuf,
        /// Days of validity.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(i64).range(DAYS))]
        days: i64,
    },
}

/// `dtm source add`.
#[derive(Clone, Debug, Args)]
pub struct SourceArgs {
    /// Code: a-z 0-9 . - _
    pub source: String,
    /// Title in Vietnamese.
    #[arg(long)]
    pub title: Option<String>,
    /// Title in English.
    #[arg(long)]
    pub title_en: Option<String>,
    /// Code of the agency.
    #[arg(long)]
    pub agency: Option<String>,
    /// Class of the system.
    #[arg(long)]
    pub class: Option<String>,
    /// Sector.
    #[arg(long)]
    pub sector: Option<String>,
    /// Locality.
    #[arg(long)]
    pub locality: Option<String>,
    /// Data sets it may send. With --update this is the whole new list: one that is not named is
    /// taken away, one that stays keeps its agreement.
    #[arg(long = "dataset", value_delimiter = ',', required_unless_present = "update")]
    pub datasets: Vec<String>,
    /// Ways it may send; without it both. What follows holds for every data set of the source.
    #[arg(long = "mode", value_enum, value_delimiter = ',')]
    pub modes: Vec<SendMode>,
    /// Whether personal data arrives raw or is masked at the edge; without it raw.
    #[arg(long, value_enum)]
    pub form: Option<SendForm>,
    /// Under masked: refuse raw values instead of masking them.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub refuse_raw: Option<bool>,
    /// Security status of messages that do not say; without it as the data set says.
    #[arg(long, value_enum)]
    pub security: Option<SendSecurity>,
    /// Priority of messages that do not say; without it as the data set says.
    #[arg(long, value_enum)]
    pub priority: Option<SendPriority>,
    /// Where records have to be before they are acknowledged; without it on a majority of the
    /// group's replicas. `site` needs a layout with a standby, and waits for it.
    #[arg(long, value_enum)]
    pub ack_level: Option<SendAckLevel>,
    /// A limit of its own, in place of the nodes' (docs/config.md, `limits`): record_bytes_max,
    /// frame_bytes_max, in_flight_bytes_max, streams_open_max, stream_names_max,
    /// quarantine_records_max or quarantine_bytes_max. Repeatable; 0 gives the nodes' back. Holds
    /// for streams that are opened from then on.
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = parse_limit)]
    pub limits: Vec<SourceLimit>,
    /// It is registered already: change what is named.
    #[arg(long)]
    pub update: bool,
    /// Take nothing from it until further notice; `--suspend=false` ends that.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub suspend: Option<bool>,
}

/// One limit of a source, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLimit {
    /// One of [`SourceLimits::NAMES`].
    pub name: String,
    /// 0 = the nodes' own.
    pub value: u64,
}

/// `NAME=VALUE`; the value may be written with `_`, as in the nodes' configuration.
fn parse_limit(text: &str) -> Result<SourceLimit, String> {
    let (name, value) = text.split_once('=').ok_or("it is written NAME=VALUE")?;
    if !SourceLimits::NAMES.contains(&name) {
        return Err(format!("the limits are {}", SourceLimits::NAMES.join(", ")));
    }
    let value = value.replace('_', "").parse().map_err(|_| "the value is a whole number")?;
    if !SourceLimits::default().set(name, value) {
        return Err("the value is too large".to_owned());
    }
    Ok(SourceLimit { name: name.to_owned(), value })
}

/// Ways to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SendMode {
    /// As it happens.
    Realtime,
    /// In files.
    Batch,
}

/// Raw or masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SendForm {
    /// As it is.
    Raw,
    /// Personal data masked.
    Masked,
}

/// How much records are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SendSecurity {
    /// For everyone.
    Public = 1,
    /// For the administration.
    Internal,
    /// For those whom it concerns: refused records are not kept.
    Restricted,
}

/// Which streams go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SendPriority {
    /// After the others.
    Low = 1,
    /// As usual.
    Normal,
    /// Before the others.
    High,
}

/// Where records have to be before they are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SendAckLevel {
    /// On disk on a majority of the group's replicas.
    Majority = 1,
    /// Also on disk on a majority of them at the standby.
    Site,
}

/// `dtm source key`.
#[derive(Debug, Subcommand)]
pub enum SourceKeyCommand {
    /// Make a key; it is shown once. Older keys go on until they expire or are revoked.
    Issue {
        /// Code.
        source: String,
        /// Days of validity.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(i64).range(DAYS))]
        days: i64,
        /// Write the key to this new file (0600) instead of showing it.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Cut a key or a certificate off, at once and for good.
    Revoke {
        /// Code.
        source: String,
        /// Id of the key, or SHA-256 of the certificate, as `dtm source show` prints them.
        key_id: String,
    },
}

/// `dtm dataset`.
#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Published data sets.
    List,
    /// The definition of a data set.
    Show {
        /// Code.
        dataset: String,
    },
    /// Publish a definition file: a new data set, or a new version of one.
    Publish {
        /// Definition file.
        file: PathBuf,
    },
}

/// `dtm publish`.
#[derive(Clone, Debug, Args)]
pub struct PublishArgs {
    /// Files or folders: JSON lines, a JSON array, or CSV with a header; `-` = standard input. Of a
    /// folder .json, .jsonl, .ndjson and .csv are taken, its subfolders are not.
    #[arg(required = true)]
    pub inputs: Vec<PathBuf>,
    /// Data set.
    #[arg(long)]
    pub dataset: String,
    /// Source; default: the context's.
    #[arg(long)]
    pub source: Option<String>,
    /// Stream; inputs follow one another in it. Default: one a file, named by the digest of its
    /// content and data set, so that a second run resumes.
    #[arg(long)]
    pub stream: Option<String>,
    /// The stream holds the first records of this input already: compare, and send the rest.
    #[arg(long, requires = "stream", conflicts_with = "append")]
    pub resume: bool,
    /// Send the input behind what the stream holds, whatever that is.
    #[arg(long, requires = "stream")]
    pub append: bool,
    /// Schema version; 0 = newest.
    #[arg(long, default_value_t = 0)]
    pub schema_version: u32,
    /// Member that holds each record's own id.
    #[arg(long)]
    pub id_member: Option<String>,
    /// What separates the columns of CSV: one character, or `tab`.
    #[arg(long, default_value = ",", value_parser = delimiter)]
    pub delimiter: u8,
    /// Personal data arrives raw or masked.
    #[arg(long, value_enum, default_value_t = SendForm::Raw)]
    pub form: SendForm,
}

/// `dtm agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// Folder to watch, of which .json, .jsonl, .ndjson and .csv are taken, or `-` for standard
    /// input. Write a file under a name that ends in .tmp, or
    /// in another folder of the same disk, and move it in whole; it is renamed to NAME.done when
    /// the cluster has all of it.
    pub input: PathBuf,
    /// Data set.
    #[arg(long)]
    pub dataset: String,
    /// Source; default: the context's.
    #[arg(long)]
    pub source: Option<String>,
    /// First part of the stream's name; the id of the spool follows (`NAME.16 digits`, told at the
    /// start). Default: agent.
    #[arg(long)]
    pub stream: Option<String>,
    /// Folder of the sealed spool: of this cluster, source, data set, stream and input alone.
    #[arg(long)]
    pub spool: PathBuf,
    /// Bytes that the spool may take on disk; then nothing more is taken until acks make room. Where
    /// the cluster has a standby, records stay until that has them too: as much as comes while its
    /// line is cut.
    #[arg(long, default_value_t = 1 << 30, value_parser = clap::value_parser!(u64).range(1 << 24..))]
    pub spool_bytes: u64,
    /// Seconds without a change after which a file is taken.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub settle: u64,
    /// Member that holds each record's own id.
    #[arg(long)]
    pub id_member: Option<String>,
    /// What separates the columns of CSV: one character, or `tab`.
    #[arg(long, default_value = ",", value_parser = delimiter)]
    pub delimiter: u8,
    /// Report what the cluster no longer holds as lost and go on, instead of stopping.
    #[arg(long)]
    pub accept_loss: bool,
}

/// One byte that can separate cells.
fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err("one ASCII character, or tab".to_owned()),
    }
}

/// `dtm records`.
#[derive(Debug, Subcommand)]
pub enum RecordsCommand {
    /// From a position to the end of what is stored. Under `-o json` the last line holds the
    /// position to go on from.
    Read(ReadArgs),
    /// The same, then on with what comes, until interrupted.
    Tail(ReadArgs),
    /// One record, by sequence or by message id.
    Lookup {
        /// Source; default: the context's.
        #[arg(long)]
        source: Option<String>,
        /// Stream, with `--sequence`.
        #[arg(long, default_value = "")]
        stream: String,
        /// Sequence in the stream.
        #[arg(long, default_value_t = 0)]
        sequence: u64,
        /// Data set, with `--id`.
        #[arg(long, default_value = "")]
        dataset: String,
        /// Message id.
        #[arg(long, default_value = "")]
        id: String,
    },
}

/// `dtm records read`, `dtm records tail`.
#[derive(Clone, Debug, Args)]
pub struct ReadArgs {
    /// Data set.
    #[arg(long, default_value = "")]
    pub dataset: String,
    /// Source; default: the context's.
    #[arg(long)]
    pub source: Option<String>,
    /// Stream; only with a source.
    #[arg(long, default_value = "")]
    pub stream: String,
    /// Position of an earlier answer (hexadecimal).
    #[arg(long, default_value = "")]
    pub position: String,
    /// Most records; 0 = no limit.
    #[arg(long, default_value_t = 0)]
    pub limit: u64,
    /// Include everything that was committed before the call.
    #[arg(long)]
    pub current: bool,
    /// Digests instead of payloads.
    #[arg(long)]
    pub digests: bool,
    /// What it is read for. It goes with the request and is kept nowhere yet: there are no
    /// read-access entries in the ledger.
    #[arg(long, default_value = "")]
    pub purpose: String,
}

/// `dtm quarantine`.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// Refused records with their first reason.
    List {
        /// Source; default: the context's.
        #[arg(long)]
        source: Option<String>,
        /// Most records.
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Send a refused record again, as it was or corrected.
    Resend {
        /// Id, as the list prints it.
        id: String,
        /// Source; default: the context's.
        #[arg(long)]
        source: Option<String>,
        /// Corrected record, one JSON object; without it the record goes as it was, checked
        /// against the newest version of its data set.
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// One refused record with every reason.
    Show {
        /// Id, as the list prints it.
        id: String,
        /// Source; default: the context's.
        #[arg(long)]
        source: Option<String>,
    },
}
