//! The source-side agent: takes records from a folder or from standard input into a sealed spool,
//! and sends them whenever the cluster is there.
//!
//! ```text
//!  folder / stdin ─► reading ─► Spool (fsync = taken) ─► Publisher ─► cluster
//!                      │           ▲                          │
//!                      └── mark ───┘ (same block)             └─ ack ─► .done
//! ```
//!
//! A block of the spool holds the records and the mark that says how far which file was read: one
//! write, so that after `kill -9` no line is taken twice and none is left out. A file is taken when
//! it did not change for the settle time, and renamed to `NAME.done` after all its records are
//! acked; what is written to it later, before or after that, is taken too. One that is taken away
//! before that keeps its mark, and goes on where it was when it comes back. For standard input the same holds up to the
//! line that was being read: the writer of a pipe learns of each `taken` by the report.

mod error;
mod lines;
mod mark;
mod owner;
mod watch;

use crate::publish::{self, Format, Item, Layout, RecordReader, Unsendable};
use crate::spool::{self, SpoolConfig};
use crate::{Endpoint, Event, IdPolicy, Publisher, PublisherConfig, Spool};
use bytes::Bytes;
use dtm_catalog::Definition;
use dtm_proto::ingest::RefusedRecord;
use futures::future::BoxFuture;
use lines::Lines;
use mark::Mark;
use owner::Owner;
use parking_lot::Mutex;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch as latest};
use tokio_util::sync::CancellationToken;

pub use error::Error;
pub use mark::{FileMark, FilePrint};

/// Records of one block of the spool, at most, and their bytes, about.
const BLOCK_RECORDS: usize = 512;
const BLOCK_BYTES: usize = 192 << 10;
/// Pause before the spool is tried again when it is full.
const FULL_PAUSE: Duration = Duration::from_millis(250);

/// Settings of an agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Source, data set and limits. Its stream is a prefix: the id of the spool is added, so that
    /// a new spool never continues the numbers of another.
    pub publisher: PublisherConfig,
    /// The spool.
    pub spool: SpoolConfig,
    /// What the caller knows the cluster by. It is noted in the spool with source, data set, stream
    /// and input, and no agent for another one takes that spool. Default: not known.
    pub cluster: Option<String>,
    /// What files are.
    pub format: Format,
    /// What separates the cells of a table. Default: a comma.
    pub delimiter: u8,
    /// Definition of the data set, for tables. While there is none and its sender is held, tables
    /// wait: the cluster that has it may be away. Without a sender they are not taken.
    pub definition: latest::Receiver<Option<Arc<Definition>>>,
    /// Top-level member that is the message id.
    pub message_id_member: Option<String>,
    /// Time between two looks at the folder. Default 1 s.
    pub poll: Duration,
    /// A file is taken when it did not change for this long. Default 10 s.
    pub settle: Duration,
    /// Files that are taken and not yet acked, at most. Default 256.
    pub files_open_max: usize,
    /// Whether a loss that the cluster reports is accepted: it is reported, and sending goes on.
    /// Default: the agent ends with an error.
    pub accept_loss: bool,
}

impl AgentConfig {
    /// An agent with every default.
    pub fn new(source: &str, dataset: &str, spool: impl Into<PathBuf>) -> Self {
        let mut publisher = PublisherConfig::new(source, "agent", dataset);
        publisher.ids = IdPolicy::Sequence;
        Self {
            publisher,
            spool: SpoolConfig::new(spool),
            cluster: None,
            format: Format::Auto,
            delimiter: b',',
            definition: latest::channel(Definition::built_in(dataset).map(Arc::new)).1,
            message_id_member: None,
            poll: Duration::from_secs(1),
            settle: Duration::from_secs(10),
            files_open_max: 256,
            accept_loss: false,
        }
    }
}

impl AgentConfig {
    pub(crate) fn layout(&self) -> Layout {
        Layout { format: self.format, delimiter: self.delimiter }
    }

    /// Whether there is no definition and one may still come.
    pub(crate) fn awaits_definition(&self) -> bool {
        self.definition.has_changed().is_ok() && self.definition.borrow().is_none()
    }
}

/// Where records come from.
pub enum Input {
    /// A folder that is watched.
    Folder(PathBuf),
    /// A reader that ends, such as standard input.
    Reader(Box<dyn Read + Send>),
}

/// What an agent tells.
#[derive(Clone, Debug)]
pub enum Report {
    /// The spool is open and records are stored under this stream.
    Started {
        /// Its full name.
        stream: String,
    },
    /// Everything up to this sequence is in the spool, on disk.
    Taken {
        /// The file, or `-`.
        file: String,
        /// The last sequence.
        through: u64,
    },
    /// All records of a file are acked; it was renamed.
    Done {
        /// The file.
        file: String,
    },
    /// A file cannot be taken; it stays and is not tried again until it changes.
    Skipped {
        /// The file.
        file: String,
        /// Why.
        reason: SkipReason,
    },
    /// A table is taken once the definition of its data set is known, which the cluster has.
    Waiting {
        /// The file, or `-`.
        file: String,
    },
    /// A file was written to after it was done.
    Late {
        /// The file, as it was called before.
        file: String,
        /// Bytes that came later.
        bytes: u64,
        /// Whether they will be taken. If not, another file has its name: they stay unsent in
        /// `NAME.done`.
        is_taken: bool,
    },
    /// A record was refused; its neighbours went on.
    Refused {
        /// The file, or `-`; `None` = an earlier life of the agent took it.
        file: Option<Arc<str>>,
        /// The line, from 1; 0 = not known.
        line: u64,
        /// What the cluster said.
        record: RefusedRecord,
    },
    /// A line cannot be a record.
    Unsendable {
        /// The file.
        file: String,
        /// The line.
        line: u64,
        /// Why.
        reason: Unsendable,
    },
    /// Taking waits for acks to make room.
    SpoolFull {
        /// Bytes in the spool.
        bytes: u64,
        /// Of those, of records that are acked and wait until the standby has them.
        site_bytes: u64,
        /// `spool_bytes_max`.
        spool_bytes_max: u64,
    },
    /// What else the publisher tells: conflicts, connections.
    Publisher(Event),
}

/// Why a file is not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SkipReason {
    /// What is in it.
    #[error(transparent)]
    Input(#[from] publish::Error),
    /// It does not read: in the words of the operating system.
    #[error("{0}")]
    Unreadable(String),
    /// Its name does not say what it is.
    #[error("only .json, .jsonl, .ndjson and .csv are taken")]
    Ending,
    /// Taking it again would send what was sent.
    #[error("it was written over after it was done: move it in under another name")]
    WrittenOver,
}

/// Receives reports. Must not block.
pub type OnReport = Arc<dyn Fn(Report) + Send + Sync>;

/// Runs until `stop`, or until a reader has ended and everything is acked. Says how far the
/// stream was acked.
///
/// # Errors
/// [`Error`]: what is in the spool stays there; the next run goes on.
pub fn run(
    endpoint: Endpoint,
    config: AgentConfig,
    input: Input,
    stop: CancellationToken,
    on_report: OnReport,
) -> BoxFuture<'static, Result<u64, Error>> {
    Box::pin(async move {
        let (settings, owner) = (config.spool.clone(), Owner::of(&config, &input)?);
        let spool = blocking(move || claimed(settings, &owner)).await??;
        // A range that is told later is the one that sending waits for, whatever was told before.
        let (losses, mut lost) = latest::channel((0, 0));
        let mut publisher_config = config.publisher.clone();
        publisher_config.stream =
            format!("{}.{}", config.publisher.stream, hex::encode(&spool.id()[..8]));
        let stream = publisher_config.stream.clone();
        on_report(Report::Started { stream: stream.clone() });
        let lines = Arc::new(Mutex::new(Lines::default()));
        let (report, places) = (on_report.clone(), lines.clone());
        let publisher_config = publisher_config.on_event(move |event| match event {
            Event::Refused(records) => {
                for record in records {
                    let place = places.lock().of(record.sequence);
                    let (file, line) = place.map_or((None, 0), |(file, line)| (Some(file), line));
                    report(Report::Refused { file, line, record });
                }
            }
            Event::LossDetected { from, to } => {
                losses.send_replace((from, to));
                report(Report::Publisher(event));
            }
            other => report(Report::Publisher(other)),
        });
        let publisher = Arc::new(Publisher::over_spool(endpoint, publisher_config, &spool));
        let intake = Intake {
            mark: Mark::read(spool.mark()),
            spool: Some(spool),
            lines,
            publisher: publisher.clone(),
            config: config.clone(),
            on_report,
            stop: stop.clone(),
        };
        let taking = async {
            match input {
                Input::Folder(folder) => watch::watch(intake, folder).await,
                Input::Reader(reader) => intake.take_reader(reader).await,
            }
        };
        tokio::pin!(taking);
        loop {
            tokio::select! {
                done = &mut taking => {
                    done?;
                    return Ok(publisher.acked().borrow().acked_through);
                }
                error = publisher.failure() => return Err(error.into()),
                Ok(()) = lost.changed() => {
                    let (from, to) = *lost.borrow_and_update();
                    if !config.accept_loss {
                        return Err(Error::Loss { stream, from, to });
                    }
                    publisher.confirm_lost(from, to);
                }
            }
        }
    })
}

/// Opens the spool, if it is this agent's.
fn claimed(settings: SpoolConfig, owner: &Owner) -> Result<Spool, Error> {
    let folder = settings.folder.clone();
    let spool = Spool::open(settings)?;
    owner.claim(&spool, &folder)?;
    Ok(spool)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Reader)
}

/// Takes records into the spool. Owns its writing half.
pub(crate) struct Intake {
    pub(crate) mark: Mark,
    /// Away only while a blocking call holds it.
    spool: Option<Spool>,
    lines: Arc<Mutex<Lines>>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) config: AgentConfig,
    pub(crate) on_report: OnReport,
    pub(crate) stop: CancellationToken,
}

impl Intake {
    pub(crate) fn tell(&self, report: Report) {
        (self.on_report)(report);
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::next_sequence)
    }

    /// Puts records and the present mark into the spool; waits while it is full. False when the
    /// agent is being stopped: nothing was taken then.
    pub(crate) async fn take(
        &mut self,
        file: &str,
        payloads: &[(u64, Bytes)],
    ) -> Result<bool, Error> {
        let member = self.config.message_id_member.as_deref();
        let of = |(_, payload): &(u64, Bytes)| publish::record_of(payload.clone(), member);
        let records: Arc<Vec<_>> = Arc::new(payloads.iter().map(of).collect());
        // Before the spool has them: a refusal may come at once.
        if let Some(first) = self.spool.as_ref().map(Spool::next_sequence) {
            let mut lines = self.lines.lock();
            lines.forget(self.publisher.acked().borrow().acked_through);
            lines.note(file, first, payloads.iter().map(|(line, _)| *line));
        }
        let mark = self.mark.write();
        let mut told = false;
        loop {
            let mut spool = self.spool.take().ok_or(Error::Reader)?;
            let (records, mark) = (records.clone(), mark.clone());
            let (spool, taken) = blocking(move || {
                let taken = if records.is_empty() {
                    spool.remember(mark).map(|()| 0)
                } else {
                    spool.append(&records, mark)
                };
                (spool, taken)
            })
            .await?;
            self.spool = Some(spool);
            match taken {
                Ok(0) => return Ok(true),
                Ok(through) => {
                    self.publisher.spooled();
                    self.tell(Report::Taken { file: file.to_owned(), through });
                    return Ok(true);
                }
                Err(spool::Error::Full { bytes, site_bytes, spool_bytes_max }) => {
                    if !told {
                        told = true;
                        self.tell(Report::SpoolFull { bytes, site_bytes, spool_bytes_max });
                    }
                    tokio::select! {
                        () = self.stop.cancelled() => return Ok(false),
                        () = tokio::time::sleep(FULL_PAUSE) => {}
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes everything that a reader gives, then waits for the acks.
    async fn take_reader(mut self, reader: Box<dyn Read + Send>) -> Result<(), Error> {
        let (sender, mut batches) = mpsc::channel::<Result<Vec<Item>, publish::Error>>(2);
        let layout = self.config.layout();
        let definition = self.awaited_definition();
        let work = move || read_input(reader, layout, definition, &sender);
        std::thread::Builder::new()
            .name("dtm-agent-read".into())
            .spawn(work)
            .map_err(|_| Error::Reader)?;
        loop {
            let batch = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                batch = batches.recv() => batch,
            };
            let Some(items) = batch else { break };
            let payloads = self.payloads("-", items?);
            if !payloads.is_empty() && !self.take("-", &payloads).await? {
                return Ok(());
            }
        }
        let through = self.next_sequence() - 1;
        tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            done = self.publisher.wait_acked(through) => Ok(done.map(drop)?),
        }
    }

    /// Gives the definition, once it is there, to a thread that may wait for it; `None` where none
    /// will come.
    fn awaited_definition(&self) -> impl FnOnce() -> Option<Arc<Definition>> + Send + use<> {
        let (config, tell) = (self.config.clone(), self.on_report.clone());
        let runtime = tokio::runtime::Handle::current();
        move || {
            if config.awaits_definition() {
                tell(Report::Waiting { file: "-".to_owned() });
            }
            let mut definition = config.definition;
            // Ends with the sender, which goes with the agent.
            let found = runtime.block_on(definition.wait_for(Option::is_some));
            found.ok().and_then(|found| found.clone())
        }
    }

    /// The records among items, with their lines; the others are told.
    pub(crate) fn payloads(&self, file: &str, items: Vec<Item>) -> Vec<(u64, Bytes)> {
        let keep = |item| match item {
            Item::Record { line, payload } => Some((line, payload)),
            Item::Unsendable { line, reason } => {
                self.tell(Report::Unsendable { file: file.to_owned(), line, reason });
                None
            }
        };
        items.into_iter().filter_map(keep).collect()
    }
}

/// Reads in its own thread, line by line: what there is goes on at once, so that a slow pipe is
/// taken record by record.
fn read_input(
    reader: Box<dyn Read + Send>,
    layout: Layout,
    definition: impl FnOnce() -> Option<Arc<Definition>>,
    sender: &mpsc::Sender<Result<Vec<Item>, publish::Error>>,
) {
    let mut reader = match RecordReader::with("-", reader, layout, definition) {
        Ok(reader) => reader,
        Err(error) => return drop(sender.blocking_send(Err(error))),
    };
    let (mut batch, mut bytes) = (Vec::new(), 0);
    // Ends with the input, with an error, or when nobody listens any more.
    loop {
        match reader.next_item("-") {
            Ok(Some(item)) => {
                if let Item::Record { payload, .. } = &item {
                    bytes += payload.len();
                }
                batch.push(item);
            }
            Ok(None) => {
                if !batch.is_empty() {
                    sender.blocking_send(Ok(batch)).ok();
                }
                return;
            }
            Err(error) => {
                sender.blocking_send(Ok(batch)).ok();
                sender.blocking_send(Err(error)).ok();
                return;
            }
        }
        // Collects only while the spool is busy and the next item comes without a wait.
        let full = batch.len() >= BLOCK_RECORDS || bytes >= BLOCK_BYTES;
        if full || !reader.has_buffered() || sender.capacity() > 0 {
            if sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                return;
            }
            bytes = 0;
        }
    }
}
