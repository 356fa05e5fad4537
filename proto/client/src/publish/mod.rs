//! Publishing files: each file is one stream, named by its digest, so that a second run goes on
//! where the first ended and a finished file is not sent again.
//!
//! The n-th record of a file has sequence n, whatever run sends it. Memory is bounded: a reading
//! thread, a short queue of batches, the publisher's window.

mod input;
mod json_array;
mod records;
mod summary;

pub(crate) use input::files_of;
pub use input::{Error, Format};
pub use records::{Item, RecordReader};
pub use summary::{LineRefusal, PublishProgress, Summary};

use crate::{Endpoint, IdPolicy, Publisher, PublisherConfig, Record, stream_status};
use dtm_catalog::Definition;
use dtm_types::ErrorCode;
use futures::future::BoxFuture;
use input::{Batch, Batches};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use summary::Report;

/// How a file is published.
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// Source, data set and limits. The stream is filled in per file where it is empty.
    pub publisher: PublisherConfig,
    /// What the file is.
    pub format: Format,
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
            format: Format::Auto,
            definition: Definition::built_in(dataset).map(Arc::new),
            message_id_member: None,
        }
    }
}

/// Called now and then while a file is published.
pub type OnProgress<'a> = &'a (dyn Fn(&PublishProgress) + Sync);

/// Publishes a file, or every file of a folder by name (not its subfolders), and waits until all
/// is acked.
///
/// # Errors
/// [`Error`]: what was acked before stays; the same call goes on from there.
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
    for file in input::files_of(path)? {
        total.add(publish_file(endpoint, options, &file, on_progress).await?);
    }
    Ok(total)
}

/// Publishes what a reader gives until it ends. The stream must be named: without its digest a
/// second run cannot know that it is the same input.
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
    let batches = Batches::start(name.to_owned(), reader, options)?;
    let job = Job { name, bytes_total: 0, finish: false };
    run(endpoint, options, job, options.publisher.clone(), batches, on_progress).await
}

fn publish_file<'a>(
    endpoint: &'a Endpoint,
    options: &'a PublishOptions,
    path: &'a Path,
    on_progress: OnProgress<'a>,
) -> BoxFuture<'a, Result<Summary, Error>> {
    Box::pin(async move {
        let (digest, bytes_total) = input::digest(PathBuf::from(path)).await?;
        let mut config = options.publisher.clone();
        if config.stream.is_empty() {
            config.stream = format!("file-{}", hex::encode(&digest[..16]));
        }
        let name = path.display().to_string();
        match stream_status(endpoint, &config.source, &config.stream).await {
            Ok(status) if status.finished => {
                return Ok(Summary::already_stored(&name, status.acked_through));
            }
            Ok(_) => {}
            Err(error) if error.code() == Some(ErrorCode::NotFound) => {}
            Err(crate::Error::Rejected { grpc: tonic::Code::NotFound, code: None, .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let batches = Batches::open(path, options)?;
        let job = Job { name: &name, bytes_total, finish: true };
        let summary = run(endpoint, options, job, config, batches, on_progress).await?;
        if summary.bytes_read != bytes_total {
            return Err(Error::Changed { file: name });
        }
        Ok(summary)
    })
}

struct Job<'a> {
    name: &'a str,
    bytes_total: u64,
    finish: bool,
}

fn run<'a>(
    endpoint: &'a Endpoint,
    options: &'a PublishOptions,
    job: Job<'a>,
    config: PublisherConfig,
    mut batches: Batches,
    on_progress: OnProgress<'a>,
) -> BoxFuture<'a, Result<Summary, Error>> {
    Box::pin(async move {
        let report = Arc::new(Report::new(job.name, job.bytes_total));
        let told = report.clone();
        let outer = config.on_event.clone();
        let config = config.on_event(move |event| {
            told.event(&event);
            if let Some(outer) = &outer {
                outer(event);
            }
        });
        let publisher = Publisher::open(endpoint.clone(), config).await?;
        let start = publisher.next_sequence();
        let mut sequence = 0u64;
        while let Some(batch) = batches.next().await? {
            let Batch { items, bytes_read } = batch;
            for item in items {
                match item {
                    Item::Unsendable { line, reason } => report.unsendable(line, reason),
                    Item::Record { line, payload } => {
                        sequence += 1;
                        if sequence < start {
                            report.skipped();
                            continue;
                        }
                        report.line(sequence, line);
                        let record = record_of(payload, options.message_id_member.as_deref());
                        let given = publisher.send(&record).await?;
                        assert!(given == sequence, "the n-th record has sequence n");
                    }
                }
            }
            report.read(bytes_read, publisher.acked().borrow().acked_through);
            on_progress(&report.progress());
        }
        if sequence + 1 < start {
            return Err(Error::StreamLonger {
                file: job.name.to_owned(),
                held: start - 1,
                sequence,
            });
        }
        let progress = drain(publisher, job.finish, &report, on_progress).await?;
        Ok(report.summary(progress.acked_through))
    })
}

/// Waits for the last acks and shows how far they are.
async fn drain(
    publisher: Publisher,
    finish: bool,
    report: &Report,
    on_progress: OnProgress<'_>,
) -> Result<crate::Progress, Error> {
    let mut acked = publisher.acked();
    let last = publisher.next_sequence() - 1;
    let waiting = async {
        while acked.borrow_and_update().acked_through < last {
            on_progress(&report.at(acked.borrow().acked_through));
            if acked.changed().await.is_err() {
                break;
            }
        }
    };
    let failed = tokio::select! {
        () = waiting => None,
        error = publisher.failure() => Some(error),
    };
    if let Some(error) = failed {
        return Err(error.into());
    }
    on_progress(&report.at(last));
    Ok(publisher.close(finish).await?)
}

/// The record of a payload.
pub(crate) fn record_of(payload: bytes::Bytes, id_member: Option<&str>) -> Record {
    let message_id = id_member.and_then(|name| records::member_text(&payload, name));
    Record { payload, message_id: message_id.unwrap_or_default(), ..Record::default() }
}
