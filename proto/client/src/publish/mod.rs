//! Publishing files. Without a name of its own each file is one stream, named by the digest of its
//! content and of how it is sent, so that a second run goes on where the first ended and a finished
//! file is not sent again. A stream that is named holds one input after the other; notes beside the
//! contexts say which (`history`), and where an input goes is decided before the first record is
//! sent (`plan`).
//!
//! The n-th record of an input has the n-th sequence from where the input begins, whatever run sends
//! it. Memory is bounded: a reading thread, a short queue of batches, the publisher's window.

mod compare;
mod error;
mod history;
mod input;
mod json_array;
mod plan;
mod quotes;
mod records;
mod run;
mod summary;

pub use error::Error;
pub use input::{FolderFiles, Format, folder_files};
pub(crate) use input::{files_of, is_known, open_quote};
pub use plan::GoOn;
pub use records::{Item, Layout, RecordReader, Unsendable};
pub use summary::{LineRefusal, PublishProgress, Summary};

use crate::{Endpoint, IdPolicy, PublisherConfig, Record, stream_status};
use dtm_catalog::Definition;
use dtm_proto::ingest::StatusResponse;
use dtm_types::ErrorCode;
use futures::future::BoxFuture;
use history::{Entry, History};
use input::Batches;
use plan::{Asked, Plan};
use run::Job;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is published.
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// Source, data set and limits. The stream is filled in per file where it is empty.
    pub publisher: PublisherConfig,
    /// What to do where a named stream holds records already.
    pub go_on: GoOn,
    /// Folder for the notes on what named streams hold; `None` = nothing is known of them.
    pub history: Option<PathBuf>,
    /// What the file is.
    pub format: Format,
    /// What separates the cells of a table. Default: a comma.
    pub delimiter: u8,
    /// Definition of the data set: needed for tables, whose cells have no types of their own.
    pub definition: Option<Arc<Definition>>,
    /// Top-level member of the payload that is the message id.
    pub message_id_member: Option<String>,
}

impl PublishOptions {
    /// Publishes to a data set with every default. Repeats within a file are told apart by
    /// sequence, since lines of a file need no ids of their own.
    #[must_use]
    pub fn new(source: &str, dataset: &str) -> Self {
        let mut publisher = PublisherConfig::new(source, "", dataset);
        publisher.mode = crate::Mode::Batch;
        publisher.ids = IdPolicy::Sequence;
        Self {
            publisher,
            go_on: GoOn::Known,
            history: None,
            format: Format::Auto,
            delimiter: b',',
            definition: Definition::built_in(dataset).map(Arc::new),
            message_id_member: None,
        }
    }
}

/// Called now and then while a file is published.
pub type OnProgress<'a> = &'a (dyn Fn(&PublishProgress) + Sync);

/// Publishes a file, or every file of a folder by name ([`folder_files`]), and waits until all is
/// acked.
///
/// # Errors
/// [`Error`]: what was acked before stays; the same call goes on from there. A folder ends with its
/// first file that fails.
pub async fn publish_path(
    endpoint: &Endpoint,
    options: &PublishOptions,
    path: &Path,
    on_progress: OnProgress<'_>,
) -> Result<Summary, Error> {
    if !path.is_dir() {
        return publish_file(endpoint, options, path, on_progress).await;
    }
    let mut total = Summary::default();
    for file in folder_files(path)?.files {
        total.add(publish_file(endpoint, options, &file, on_progress).await?);
    }
    Ok(total)
}

/// Publishes what a reader gives until it ends. The stream must be named, and where it holds
/// records already [`PublishOptions::go_on`] has to say what they are: a reader has no digest before
/// its end.
///
/// # Errors
/// As [`publish_path`].
pub async fn publish_reader(
    endpoint: &Endpoint,
    options: &PublishOptions,
    name: &str,
    reader: Box<dyn Read + Send>,
    on_progress: OnProgress<'_>,
) -> Result<Summary, Error> {
    let config = options.publisher.clone();
    let status = status_of(endpoint, &config).await?;
    let mut history = History::open(options.history.as_deref(), &config.source, &config.stream)?;
    let asked = Asked { input: None, file: name, stream: &config.stream };
    let plan = Plan::of_named(asked, options.go_on, &history, &status)?;
    let batches = Batches::start(name.to_owned(), reader, options)?;
    let input = identity(&config, name.as_bytes());
    let history = Some((&mut history, input.as_str()));
    let job = Job { name, bytes_total: 0, finishes: false, plan, history };
    run::run(endpoint, options, job, config, batches, on_progress).await
}

fn publish_file<'a>(
    endpoint: &'a Endpoint,
    options: &'a PublishOptions,
    path: &'a Path,
    on_progress: OnProgress<'a>,
) -> BoxFuture<'a, Result<Summary, Error>> {
    Box::pin(async move {
        let read = input::digest(path, options).await?;
        let mut config = options.publisher.clone();
        let input = identity(&config, &read.digest);
        let name = path.display().to_string();
        let is_named = !config.stream.is_empty();
        if !is_named {
            config.stream = format!("file-{input}");
        }
        let status = status_of(endpoint, &config).await?;
        let mut history = None;
        let plan = if is_named {
            let folder = options.history.as_deref();
            let noted = history.insert(History::open(folder, &config.source, &config.stream)?);
            let earlier = noted.newest(status.acked_through).cloned();
            let earlier = starts_with(path, read.bytes, &config, earlier).await?;
            let asked = earlier.as_deref().unwrap_or(&input);
            let asked = Asked { input: Some(asked), file: &name, stream: &config.stream };
            let plan = Plan::of_named(asked, options.go_on, noted, &status)?;
            if earlier.is_some() { plan.grown() } else { plan }
        } else {
            Plan::own(&status)
        };
        let batches = Batches::open(path, options)?;
        let job = Job {
            name: &name,
            bytes_total: read.bytes,
            finishes: !is_named && !status.finished,
            plan,
            history: history.as_mut().map(|history| (history, input.as_str())),
        };
        let summary = run::run(endpoint, options, job, config, batches, on_progress).await?;
        if summary.bytes_read != read.bytes {
            return Err(Error::Changed { file: name });
        }
        Ok(summary)
    })
}

/// The digest of an input that the file begins with: it is the same file, which has grown since.
async fn starts_with(
    path: &Path,
    bytes: u64,
    config: &PublisherConfig,
    earlier: Option<Entry>,
) -> Result<Option<String>, Error> {
    let Some(earlier) = earlier.filter(|entry| entry.bytes > 0 && entry.bytes < bytes) else {
        return Ok(None);
    };
    let start = identity(config, &input::digest_of_start(path, earlier.bytes).await?);
    Ok((start == earlier.input).then_some(earlier.input))
}

/// Names a content and how it is sent: the same file for another data set is another input.
fn identity(config: &PublisherConfig, content: &[u8]) -> String {
    let form = i32::from(config.form);
    let how = format!("{}\0{}\0{form}\0", config.dataset, config.schema_version);
    let digest = Sha256::new().chain_update(how).chain_update(content).finalize();
    hex::encode(&digest[..16])
}

/// Where a stream stands; one that was never opened is empty.
async fn status_of(endpoint: &Endpoint, config: &PublisherConfig) -> Result<StatusResponse, Error> {
    match stream_status(endpoint, &config.source, &config.stream).await {
        Ok(status) => Ok(status),
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(StatusResponse::default()),
        Err(crate::Error::Rejected { grpc: tonic::Code::NotFound, code: None, .. }) => {
            Ok(StatusResponse::default())
        }
        Err(error) => Err(error.into()),
    }
}

/// The record of a payload.
pub(crate) fn record_of(payload: bytes::Bytes, id_member: Option<&str>) -> Record {
    let message_id = id_member.and_then(|name| records::member_text(&payload, name));
    Record { payload, message_id: message_id.unwrap_or_default(), ..Record::default() }
}
