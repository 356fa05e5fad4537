//! `dtm availability probe`: rounds of attempts at all public addresses, minute by minute.
//!
//! A minute in which something worked nowhere is written as soon as it is seen, and told; every
//! minute is written when it is over. The journal alone is kept: a probe that dies leaves minutes
//! that nobody saw, which the account says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dtm_availability::{Function, Line, Minute, State};
use dtm_client::{Endpoint, Event, IdPolicy, Publisher, PublisherConfig, Record};
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde_json::json;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::journal::Journal;
use super::minute_now;
use super::page::{self, Page};
use crate::args::{Globals, ProbeArgs};
use crate::contexts::Context;
use crate::{Failure, Printer, Remote};

/// Longest attempt.
const WITHIN: Duration = Duration::from_secs(10);
/// Longest run of the program that is told.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of a reason that are kept.
const WHY_BYTES_MAX: usize = 300;
const RECORD_BYTES_MAX: usize = 1 << 20;

/// Whom to ask, and how.
struct Probe {
    source: String,
    dataset: String,
    record: String,
    /// Where records are sent.
    doors: Vec<(String, Endpoint)>,
    pages: Vec<Page>,
    tls: Arc<ClientConfig>,
    notify: Option<PathBuf>,
}

pub(super) async fn run(args: &ProbeArgs, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    let (_, context) = Remote::endpoint(globals)?;
    let probe = Probe::new(args, &context)?;
    let journal = Journal::open(&args.data)?;
    let _held = journal.lock()?;
    let mut stop = signal(SignalKind::terminate()).map_err(Failure::file(Path::new("SIGTERM")))?;
    let mut tick = tokio::time::interval(Duration::from_secs(args.every));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watch = Watch::new(journal, probe.notify.clone());
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
        let minute = minute_now();
        watch.begin(minute, &printer)?;
        let (records, pages) = tokio::join!(probe.records(), probe.pages());
        watch
            .round(vec![(Function::Reception, records), (Function::EntryPage, pages)], &printer)?;
    }
    watch.end(&printer)
}

type Outcomes = Vec<(String, Result<(), String>)>;

impl Probe {
    fn new(args: &ProbeArgs, context: &Context) -> Result<Self, Failure> {
        let Some(source) = context.source.clone() else {
            return Err(Failure::usage("cli.no_source", &[]));
        };
        let record = std::fs::read_to_string(&args.record).map_err(Failure::file(&args.record))?;
        if record.len() > RECORD_BYTES_MAX {
            return Err(Failure::usage("cli.availability.record", &[]));
        }
        let door = |address: &String| {
            let only = Context { address: vec![address.clone()], ..context.clone() };
            let endpoint = Remote::reached_by(&only)?.with_connect_timeout(WITHIN);
            Ok((address.clone(), endpoint))
        };
        let doors = context.address.iter().map(door).collect::<Result<_, Failure>>()?;
        let pages = args.pages.iter().map(|text| Page::parse(text));
        Ok(Self {
            source,
            dataset: args.dataset.clone(),
            record,
            doors,
            pages: pages.collect::<Result<_, _>>()?,
            tls: page::trusting(&context.ca)?,
            notify: args.notify.clone(),
        })
    }

    /// Sends a record at every address at once.
    async fn records(&self) -> Outcomes {
        let attempts = self.doors.iter().enumerate().map(|(at, (address, endpoint))| async move {
            let sent = tokio::time::timeout(WITHIN, self.record_at(at, endpoint.clone())).await;
            let outcome = sent.unwrap_or_else(|_| Err("no ack in time".to_owned()));
            (address.clone(), outcome.map_err(short))
        });
        all(attempts).await
    }

    /// A new connection and a new session each time: what a system meets that begins to send.
    async fn record_at(&self, at: usize, endpoint: Endpoint) -> Result<(), String> {
        let refused = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&refused);
        let stream = format!("availability-{at}");
        let mut config = PublisherConfig::new(&self.source, stream, &self.dataset);
        config = config.on_event(move |event| {
            if let Event::Refused(records) = event {
                let why = records.first().and_then(|record| record.violations.first());
                *noted.lock() = Some(why.map_or_else(String::new, |why| why.rule.clone()));
            }
        });
        config.ids = IdPolicy::MessageId;
        config.open_timeout = Some(WITHIN);
        let told = |error: dtm_client::Error| error.to_string();
        let publisher = Publisher::open(endpoint, config).await.map_err(told)?;
        let id = uuid::Uuid::now_v7().to_string();
        let record = Record {
            payload: self.record.replace("{id}", &id).into_bytes().into(),
            message_id: id,
            ..Record::default()
        };
        publisher.send(&record).await.map_err(told)?;
        publisher.close(false).await.map_err(told)?;
        match refused.lock().take() {
            None => Ok(()),
            Some(rule) => Err(format!("the record is refused: {rule}")),
        }
    }

    /// Opens every page at once.
    async fn pages(&self) -> Outcomes {
        let attempts = self.pages.iter().map(|page| async move {
            let opened = tokio::time::timeout(WITHIN, page.open(Arc::clone(&self.tls))).await;
            let outcome = opened.unwrap_or_else(|_| Err("no page in time".to_owned()));
            (page.address(), outcome.map_err(short))
        });
        all(attempts).await
    }
}

async fn all<F: Future>(attempts: impl Iterator<Item = F>) -> Vec<F::Output> {
    futures::future::join_all(attempts).await
}

/// A reason that is kept for a year is short.
fn short(mut why: String) -> String {
    if why.len() > WHY_BYTES_MAX {
        let end = (0..=WHY_BYTES_MAX).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0);
        why.truncate(end);
    }
    why
}

/// The minute that is watched, and what was told of the one before.
struct Watch {
    journal: Journal,
    notify: Option<PathBuf>,
    minute: Option<Minute>,
    /// It was told that it is interrupted, and not yet that it is not.
    is_told: bool,
}

impl Watch {
    fn new(journal: Journal, notify: Option<PathBuf>) -> Self {
        Self { journal, notify, minute: None, is_told: false }
    }

    /// A round begins: the minute before it may be over.
    fn begin(&mut self, minute: i64, printer: &Printer<'_>) -> Result<(), Failure> {
        if self.minute.as_ref().is_some_and(|seen| seen.minute != minute) {
            self.end(printer)?;
        }
        self.minute.get_or_insert_with(|| Minute { minute, ..Minute::default() });
        Ok(())
    }

    /// What came of the round.
    fn round(
        &mut self,
        outcomes: Vec<(Function, Outcomes)>,
        printer: &Printer<'_>,
    ) -> Result<(), Failure> {
        let Some(minute) = &mut self.minute else { return Ok(()) };
        let before = minute.interrupted.clone();
        let mut works = true;
        for (function, outcomes) in outcomes {
            works &= outcomes.iter().any(|(_, outcome)| outcome.is_ok());
            minute.round(function, outcomes);
        }
        if minute.interrupted != before {
            self.journal.append(&Line::Seen(minute.clone()), minute.minute)?;
        }
        let (at, functions) = (minute.minute, minute.interrupted.clone());
        if works == self.is_told {
            let what = if works { "restored" } else { "interrupted" };
            let names: Vec<_> = functions.iter().map(|function| function.name()).collect();
            printer.json_line(&json!({ "event": what, "minute": at, "not_working": names }));
            self.tell(what, at, &names);
            self.is_told = !works;
        }
        Ok(())
    }

    /// The minute is over.
    fn end(&mut self, printer: &Printer<'_>) -> Result<(), Failure> {
        let Some(minute) = self.minute.take() else { return Ok(()) };
        let state = match minute.state() {
            State::Up => "up",
            State::Partial => "partial",
            State::Interrupted => "interrupted",
        };
        self.journal.append(&Line::Seen(minute.clone()), minute.minute)?;
        printer.json_line(&json!({ "minute": minute.minute, "state": state, "seen": minute }));
        Ok(())
    }

    /// Calls the program; the rounds do not wait for it.
    fn tell(&self, what: &str, minute: i64, names: &[&str]) {
        let Some(program) = &self.notify else { return };
        let mut command = Command::new(program);
        command.arg(what).arg(minute.to_string()).args(names).kill_on_drop(true);
        tokio::spawn(async move {
            let ran = tokio::time::timeout(TOLD_WITHIN, command.status()).await;
            match ran {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => eprintln!("notify: {status}"),
                Ok(Err(error)) => eprintln!("notify: {error}"),
                Err(_) => eprintln!("notify: not done in {TOLD_WITHIN:?}"),
            }
        });
    }
}
