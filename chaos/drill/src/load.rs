//! Sources that stream at a steady pace with the SDK, each with the history of what it sent.
//!
//! ```text
//!  tick ─▶ record ─▶ Publisher.try_send ─▶ history (sequence, digest)
//!                          └── ack ─────────▶ history (how long it waited)
//! ```
//! Back-pressure: a record that the client does not take is not made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dtm_client::admin::Admin;
use dtm_client::{
    Credential, Endpoint, Event, Form, Mode, Publisher, PublisherConfig, Record, Session,
};
use dtm_proto::admin::{IssueSourceKeyRequest, PublishDatasetRequest, PutSourceRequest};
use dtm_proto::ingest::Open;
use dtm_types::command::{Agreement, SourceRow};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::cluster::Cluster;
use crate::history::{Ack, History, digest, quantile};

/// The data set that drills send, and the name of each source's stream.
pub(crate) const DATASET: &str = "drill";
const DEFINITION: &str = include_str!("dataset.toml");
/// The longest text of it, and so of a record.
pub(crate) const RECORD_BYTES_MAX: u64 = 4_000;
/// How often a stream looks what is due.
const TICK: Duration = Duration::from_millis(20);
/// Records that may be due at once after a pause; more are given up.
const DUE_MAX: f64 = 200.0;
/// After this long without an ack a source gives its connection up: what a source that wants to be
/// served again soon sets.
pub(crate) const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause between two attempts.
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Sources that are registered, and streams that are opened, at once.
const AT_ONCE: usize = 8;
/// A node that serves opens a stream in less.
const PROBE_WITHIN: Duration = Duration::from_secs(3);
/// Longest wait for the last acks.
const ACKS_WITHIN: Duration = Duration::from_secs(90);

/// A registered source.
pub(crate) struct Source {
    /// Its code.
    pub(crate) code: String,
    credential: Credential,
    /// What it sent.
    pub(crate) history: Mutex<History>,
    /// What it was told that must not be: refusals, losses, conflicts, an end.
    trouble: Mutex<Option<String>>,
    /// Which node has which address.
    doors: Arc<BTreeMap<String, usize>>,
    /// A site is promoted: what it does not hold is lost, or sent again.
    may_lose: Arc<AtomicBool>,
    /// What the client said it cannot send again, until it was told to go on without.
    given_up: Mutex<Option<(u64, u64)>>,
    /// Records that it sent again.
    resent: Mutex<u64>,
}

impl Source {
    /// These nodes with the source's key.
    ///
    /// # Errors
    /// Certificate files that cannot be used.
    pub(crate) fn endpoint(&self, cluster: &Cluster, nodes: &[usize]) -> Result<Endpoint> {
        let endpoint = Endpoint::new(cluster.addresses(nodes), &cluster.source_files())?;
        Ok(endpoint
            .with_credential(self.credential.clone())
            .with_connect_timeout(Duration::from_secs(2))
            .with_shared_connections())
    }

    fn trouble(&self, what: String) {
        self.trouble.lock().get_or_insert(what);
    }

    async fn open(self: &Arc<Self>, endpoint: Endpoint) -> Result<Publisher> {
        let source = self.clone();
        let mut config =
            PublisherConfig::new(&self.code, DATASET, DATASET).on_event(move |event| match event {
                Event::Connected { .. } | Event::Disconnected { .. } | Event::Retrying { .. } => {}
                Event::LossDetected { from, to } if source.may_lose.load(Ordering::SeqCst) => {
                    *source.given_up.lock() = Some((from, to));
                }
                Event::LossMended { from, to } if source.may_lose.load(Ordering::SeqCst) => {
                    *source.resent.lock() += to - from + 1;
                }
                other => source.trouble(format!("{other:?}")),
            });
        config.ack_timeout = ACK_TIMEOUT;
        config.backoff_max = BACKOFF_MAX;
        Publisher::open(endpoint, config).await.with_context(|| self.code.clone())
    }

    /// Whether a node by itself opens a stream, which nobody else uses.
    ///
    /// # Errors
    /// Certificate files that cannot be used.
    pub(crate) async fn is_let_in(&self, cluster: &Cluster, at: usize) -> Result<bool> {
        // Not by a publisher, which goes where the node sends it.
        let stream = format!("probe-{}", cluster.nodes[at].name);
        let (source, dataset) = (self.code.clone(), DATASET.to_owned());
        let open = Open { source, stream, dataset, ..Open::default() };
        let (endpoint, waits) = (self.endpoint(cluster, &[at])?, (PROBE_WITHIN, PROBE_WITHIN));
        let address = cluster.nodes[at].listen.grpc.to_string();
        Ok(Session::open_within(&endpoint, &address, open, waits).await.is_ok())
    }

    fn record(&self, sequence: u64, bytes: usize) -> Record {
        let head = format!("{{\"code\":\"{}-{sequence}\",\"note\":\"", self.code.to_uppercase());
        let note = "x".repeat(bytes.saturating_sub(head.len() + 2).max(1));
        Record {
            payload: format!("{head}{note}\"}}").into_bytes().into(),
            message_id: format!("{}/{sequence}", self.code),
            event_time_us: clock::now_us(),
            ..Record::default()
        }
    }

    /// Sends at its pace until told to stop, then waits for the last acks. `phase`: which part of a
    /// record is due at once, so that not all sources send in the same moment.
    async fn run(
        self: Arc<Self>,
        publisher: Publisher,
        (rate, phase): (f64, f64),
        bytes: usize,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut acks = publisher.acked();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut due, mut last, mut end) = (phase, clock::now(), None);
        loop {
            tokio::select! {
                _ = acks.changed() => {
                    let through = acks.borrow_and_update().acked_through;
                    let node = self.doors.get(&publisher.snapshot().address).copied();
                    self.history.lock().acked(through, clock::now(), node);
                }
                _ = tick.tick() => {
                    let now = clock::now();
                    due = (due + rate * (now - last).as_secs_f64()).min(DUE_MAX);
                    last = now;
                    // The loss counts; what comes after it goes on.
                    if let Some((from, to)) = self.given_up.lock().take() {
                        publisher.confirm_lost(from, to);
                    }
                    while end.is_none() && due >= 1.0 && self.send(&publisher, bytes) {
                        due -= 1.0;
                    }
                }
                _ = stop.wait_for(|stop| *stop), if end.is_none() => {
                    end = Some(clock::now() + ACKS_WITHIN);
                }
                error = publisher.failure() => {
                    self.trouble(format!("its stream ended: {error}"));
                    break;
                }
            }
            let owed = {
                let history = self.history.lock();
                history.sent_count() - history.acked_count()
            };
            if end.is_some_and(|end| owed == 0 || clock::now() >= end) {
                if owed > 0 {
                    self.trouble(format!("{owed} records have no ack 90 s after the last one"));
                }
                break;
            }
        }
        self.history.lock().end(clock::now());
    }

    /// Whether the client took the next record.
    fn send(&self, publisher: &Publisher, bytes: usize) -> bool {
        let mut history = self.history.lock();
        let record = self.record(history.sent_count() + 1, bytes);
        match publisher.try_send(&record) {
            Ok(Some(sequence)) => {
                history.sent(sequence, digest(&record.payload), clock::now());
                true
            }
            // No room, or an end that `failure` tells.
            Ok(None) | Err(_) => false,
        }
    }
}

/// What the sources waited for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waits {
    /// Records sent.
    pub(crate) sent: u64,
    /// Records acked.
    pub(crate) acked: u64,
    /// Longest wait of the middle source.
    pub(crate) p50: Duration,
    /// Of the source below which 99 % are.
    pub(crate) p99: Duration,
    /// Of the source that waited longest.
    pub(crate) longest: Duration,
    /// Share of the sources' time in which they were served, in millionths.
    pub(crate) served_ppm: u32,
}

/// Streams that run.
pub(crate) struct Load {
    /// Who sends.
    pub(crate) sources: Vec<Arc<Source>>,
    may_lose: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    began: Instant,
    took: Duration,
}

impl Load {
    /// Registers the sources, opens their streams and sends.
    ///
    /// # Errors
    /// What the cluster said.
    pub(crate) async fn start(
        cluster: &Cluster,
        sources: u64,
        records_per_second: u64,
        record_bytes: u64,
    ) -> Result<Self> {
        let admin = cluster.admin()?;
        publish(&admin).await?;
        let nodes = cluster.doors();
        let named = nodes.iter().map(|at| (cluster.nodes[*at].listen.grpc.to_string(), *at));
        let doors: Arc<BTreeMap<String, usize>> = Arc::new(named.collect());
        let may_lose = Arc::new(AtomicBool::new(false));
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let mut opening = JoinSet::new();
        for number in 1..=sources {
            let (admin, permits) = (admin.clone(), permits.clone());
            let (files, seeds) = (cluster.source_files(), cluster.addresses(&nodes));
            let knows = (Arc::clone(&doors), Arc::clone(&may_lose));
            opening.spawn(async move {
                let _permit = permits.acquire_owned().await?;
                let code = format!("src-{number:03}");
                let source = Arc::new(register(&admin, code, knows).await?);
                let endpoint = Endpoint::new(seeds, &files)?
                    .with_credential(source.credential.clone())
                    .with_connect_timeout(Duration::from_secs(2));
                let publisher = source.open(endpoint).await?;
                anyhow::Ok((source, publisher))
            });
        }
        let mut opened = Vec::new();
        while let Some(one) = opening.join_next().await {
            opened.push(one??);
        }
        opened.sort_by(|(a, _), (b, _)| a.code.cmp(&b.code));
        let mut load = Self {
            sources: Vec::new(),
            may_lose,
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
            began: clock::now(),
            took: Duration::ZERO,
        };
        let rate = records_per_second as f64 / sources as f64;
        let bytes = usize::try_from(record_bytes)?;
        for (at, (source, publisher)) in opened.into_iter().enumerate() {
            let pace = (rate, at as f64 / sources as f64);
            let run = source.clone().run(publisher, pace, bytes, load.stop.subscribe());
            load.tasks.spawn(run);
            load.sources.push(source);
        }
        Ok(load)
    }

    /// Sends nothing more and waits for the last acks; what is owed then is trouble.
    pub(crate) async fn stop(&mut self) {
        if self.stop.send_replace(true) {
            return;
        }
        self.took = clock::now() - self.began;
        while self.tasks.join_next().await.is_some() {}
    }

    /// Whether a site is being promoted or was: sources then hear of what it does not hold.
    pub(crate) fn may_lose(&self, may: bool) {
        self.may_lose.store(may, Ordering::SeqCst);
    }

    /// Records that had been acked and were sent again, since the promoted site lacked them.
    pub(crate) fn resent(&self) -> u64 {
        self.sources.iter().map(|source| *source.resent.lock()).sum()
    }

    /// When the last ack of any source came.
    pub(crate) fn last_ack(&self) -> Option<Instant> {
        self.sources.iter().filter_map(|source| source.history.lock().last_ack()).max()
    }

    /// Records that each source has sent.
    pub(crate) fn sent(&self) -> Vec<u64> {
        self.sources.iter().map(|source| source.history.lock().sent_count()).collect()
    }

    /// All acks after a moment, with the place of their source.
    pub(crate) fn acks_after(&self, moment: Instant) -> Vec<(usize, Ack)> {
        let of = |(at, source): (usize, &Arc<Source>)| {
            let history = source.history.lock();
            history.acks_after(moment).iter().map(|ack| (at, *ack)).collect::<Vec<_>>()
        };
        self.sources.iter().enumerate().flat_map(of).collect()
    }

    /// Whether any record waits for its ack.
    pub(crate) fn is_owed(&self) -> bool {
        self.sources.iter().any(|source| {
            let history = source.history.lock();
            history.sent_count() > history.acked_count()
        })
    }

    /// What any source was told that must not be.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.sources.iter().find_map(|source| {
            let trouble = source.trouble.lock();
            trouble.as_ref().map(|trouble| format!("{}: {trouble}", source.code))
        })
    }

    /// How long they waited, once it was stopped.
    pub(crate) fn waits(&self) -> Waits {
        let histories: Vec<_> = self.sources.iter().map(|source| source.history.lock()).collect();
        let mut longest: Vec<Duration> = histories.iter().map(|h| h.longest()).collect();
        longest.sort_unstable();
        let out: f64 = histories.iter().map(|h| h.out().as_secs_f64()).sum();
        let whole = self.took.as_secs_f64() * histories.len() as f64;
        let served = if whole > 0.0 { (1.0 - out / whole).clamp(0.0, 1.0) } else { 0.0 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1 million"
        )]
        let served_ppm = (served * 1_000_000.0) as u32;
        Waits {
            sent: histories.iter().map(|h| h.sent_count()).sum(),
            acked: histories.iter().map(|h| h.acked_count()).sum(),
            p50: quantile(&longest, 50).unwrap_or_default(),
            p99: quantile(&longest, 99).unwrap_or_default(),
            longest: longest.last().copied().unwrap_or_default(),
            served_ppm,
        }
    }
}

async fn publish(admin: &Admin) -> Result<()> {
    let request = PublishDatasetRequest {
        context: Some(Admin::context("drill")),
        definition: DEFINITION.to_owned(),
    };
    let published = admin.call(|mut client| {
        let request = request.clone();
        async move { client.publish_dataset(request).await }
    });
    published.await.context("the data set of drills")?;
    Ok(())
}

/// Which node has which address, and whether a site was promoted.
type Knows = (Arc<BTreeMap<String, usize>>, Arc<AtomicBool>);

async fn register(admin: &Admin, code: String, knows: Knows) -> Result<Source> {
    let agreement = Agreement {
        dataset: DATASET.to_owned(),
        modes: vec![Mode::Realtime.into()],
        form: Form::Raw.into(),
        security_status: 2,
        priority: 2,
        responsible_agency: "A01".to_owned(),
        ..Agreement::default()
    };
    let row = SourceRow {
        source: code.clone(),
        title_vi: format!("Nguồn diễn tập {code}"),
        title_en: format!("Drill source {code}"),
        agency_code: "A01".to_owned(),
        class: "sector".to_owned(),
        agreements: vec![agreement],
        ..SourceRow::default()
    };
    let context = || Some(Admin::context("drill"));
    let put = PutSourceRequest { context: context(), source: Some(row), update: false };
    let put = admin.call(|mut client| {
        let request = put.clone();
        async move { client.put_source(request).await }
    });
    put.await.with_context(|| code.clone())?;
    let issue = IssueSourceKeyRequest { context: context(), source: code.clone(), valid_days: 1 };
    let issued = admin.call(|mut client| {
        let request = issue.clone();
        async move { client.issue_source_key(request).await }
    });
    let key = issued.await.with_context(|| code.clone())?.key;
    let credential = Credential::source_key(&key)?;
    let (doors, may_lose) = knows;
    Ok(Source {
        code,
        credential,
        history: Mutex::default(),
        trouble: Mutex::default(),
        doors,
        may_lose,
        given_up: Mutex::default(),
        resent: Mutex::default(),
    })
}
