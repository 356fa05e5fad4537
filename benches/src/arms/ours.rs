//! Our own cluster: three nodes with TLS and all defaults, each source registered with its own
//! key, its own connection and one stream, sent through the client that any source would use.
//! Every record is checked against its data contract before it is stored. The arms `ours-…` leave a
//! part out at the nodes' seams.
//!
//! Sequences of the load are sequences of the stream, so an ack is read off the client's cursor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dtm_client::admin::Admin;
use dtm_client::{
    Credential, Endpoint, Event, Form, IdPolicy, Mode, Progress, Publisher, PublisherConfig,
    Reader, Record,
};
use dtm_proto::admin::{IssueSourceKeyRequest, PublishDatasetRequest, PutSourceRequest};
use dtm_proto::records::{ReadRequest, StoredRecord};
use dtm_types::command::{Agreement, SourceRow};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::driver::{Driver, ReadBack, Setup, Source, Window};
use crate::error::Error;
use crate::peers::dtm_cluster::{DtmCluster, NODES, Settings, failed, version};
use crate::peers::dtm_node::Part;
use crate::record::Records;
use crate::verify::Check;

const ARM: &str = "ours";
/// The arms of this file, with what each leaves out.
const ARMS: [(&str, &[Part]); 6] = [
    (ARM, &[]),
    ("ours-off", &[Part::Tls, Part::Seal, Part::Check, Part::Digests]),
    ("ours-unvalidated", &[Part::Check]),
    ("ours-unsealed", &[Part::Seal]),
    ("ours-plain", &[Part::Tls]),
    ("ours-undigested", &[Part::Digests]),
];
const DATASET: &str = "bench_progress";
const DEFINITION: &str = include_str!("ours.toml");
const STREAM: &str = "bench";
/// Sources registered at once.
const AT_ONCE: usize = 16;
/// Answers of a node (5,000 records each) that are looked at and not yet counted.
const ANSWERS_WAITING_MAX: usize = 4;
/// Held unacked by a source: more than the open loop ever lets wait of 1 KiB records.
const UNACKED_BYTES_MAX: usize = 8 << 20;
/// How often a source looks whether its client has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Internal, normal: what the data set says.
const INTERNAL: u32 = 2;
const NORMAL: u32 = 2;

/// The arm.
#[derive(Debug)]
pub(super) struct Ours {
    name: String,
    without: &'static [Part],
    groups: u32,
    cluster: Option<DtmCluster>,
    trust: Option<Endpoint>,
    keys: Vec<Credential>,
    refused: Arc<AtomicU64>,
    sessions: Arc<AtomicU64>,
    version: String,
}

impl Ours {
    /// The arm of this name with so many ingest groups; `None` when no arm is called so.
    pub(super) fn new(name: &str, groups: u32) -> Option<Self> {
        let without = without(name)?;
        Some(Self {
            name: name.to_owned(),
            without,
            groups,
            cluster: None,
            trust: None,
            keys: Vec::new(),
            refused: Arc::default(),
            sessions: Arc::default(),
            version: version(),
        })
    }

    fn trust(&self, seeds: impl IntoIterator<Item = String>) -> Result<Endpoint, Error> {
        if self.without.contains(&Part::Tls) {
            return Endpoint::plaintext(seeds).map_err(failed("endpoint"));
        }
        let files = self.cluster()?.files(false);
        Endpoint::new(seeds, &files).map_err(failed("endpoint"))
    }

    fn cluster(&self) -> Result<&DtmCluster, Error> {
        let cluster = self.cluster.as_ref();
        cluster.ok_or_else(|| Error::protocol(ARM, "not started"))
    }

    /// The cluster as `source` sees it.
    fn endpoint(&self, source: u32) -> Result<Endpoint, Error> {
        let lost = || Error::protocol(ARM, format!("source {source} is not registered"));
        let key = self.keys.get(source as usize).ok_or_else(lost)?;
        Ok(self.trust.clone().ok_or_else(lost)?.with_credential(key.clone()))
    }
}

/// What the arm of this name leaves out; `None` when no arm is called so.
pub(super) fn without(name: &str) -> Option<&'static [Part]> {
    ARMS.iter().find(|(arm, _)| *arm == name).map(|(_, without)| *without)
}

fn code(source: u32) -> String {
    format!("s{source:05}")
}

async fn publish_dataset(admin: &Admin) -> Result<(), Error> {
    let request = PublishDatasetRequest {
        context: Some(Admin::context("bench")),
        definition: DEFINITION.to_owned(),
    };
    let call = admin.call(|mut client| {
        let request = request.clone();
        async move { client.publish_dataset(request).await }
    });
    call.await.map_err(failed("data set")).map(drop)
}

async fn register(admin: &Admin, source: u32) -> Result<Credential, Error> {
    let agreement = Agreement {
        dataset: DATASET.to_owned(),
        modes: vec![Mode::Realtime.into()],
        form: Form::Raw.into(),
        security_status: INTERNAL,
        priority: NORMAL,
        responsible_agency: "H57.000.00".to_owned(),
        ..Agreement::default()
    };
    let row = SourceRow {
        source: code(source),
        title_vi: code(source),
        title_en: code(source),
        agency_code: "H57.000.00".to_owned(),
        class: "electronic_transactions".to_owned(),
        agreements: vec![agreement],
        ..SourceRow::default()
    };
    let put = PutSourceRequest {
        context: Some(Admin::context("bench")),
        source: Some(row),
        update: false,
    };
    let put_call = admin.call(|mut client| {
        let request = put.clone();
        async move { client.put_source(request).await }
    });
    put_call.await.map_err(failed("source"))?;
    let issue = IssueSourceKeyRequest {
        context: Some(Admin::context("bench")),
        source: code(source),
        valid_days: 1,
    };
    let issue_call = admin.call(|mut client| {
        let request = issue.clone();
        async move { client.issue_source_key(request).await }
    });
    let key = issue_call.await.map_err(failed("key"))?.key;
    Credential::source_key(&key).map_err(failed("key"))
}

#[async_trait]
impl Driver for Ours {
    fn arm(&self) -> String {
        if self.groups == super::GROUPS {
            self.name.clone()
        } else {
            format!("{}/groups={}", self.name, self.groups)
        }
    }

    fn settings(&self) -> Value {
        json!({
            "version": self.version, "nodes": NODES, "groups": self.groups,
            "left_out": self.without.iter().map(|part| part.name()).collect::<Vec<&str>>(),
            "ids": "sequence", "sessions_opened": self.sessions.load(Ordering::Relaxed),
            "refused": self.refused.load(Ordering::Relaxed),
            "publish": "client of any source, follows the leader of its group",
            "read_back": "RecordsService.Read of the data set from each node, current, in commit \
                order, SHA-256 of each payload as the node opened it",
        })
    }

    async fn setup(&mut self, setup: &Setup) -> Result<(), Error> {
        let settings = Settings {
            groups: self.groups,
            connections: (setup.sources * 2 + 64).clamp(4096, 65_536),
            without: self.without,
        };
        let cluster = DtmCluster::start(&setup.folder, settings).await?;
        let admin = cluster.admin()?;
        publish_dataset(&admin).await?;
        let registering =
            futures::stream::iter(0..setup.sources).map(|source| register(&admin, source));
        let keys: Vec<Result<Credential, Error>> = registering.buffered(AT_ONCE).collect().await;
        self.keys = keys.into_iter().collect::<Result<_, Error>>()?;
        let seeds: Vec<String> = (0..NODES).map(|node| cluster.address(node)).collect();
        self.cluster = Some(cluster);
        self.trust = Some(self.trust(seeds)?);
        Ok(())
    }

    /// Half a window at once: a record that is sent alone costs as much as a whole frame.
    fn refill(&self, window: u32) -> u32 {
        (window / 2).max(1)
    }

    fn pids(&self) -> Vec<u32> {
        self.cluster.as_ref().map(DtmCluster::pids).unwrap_or_default()
    }

    async fn connect(&self, source: u32) -> Result<Box<dyn Source>, Error> {
        let (refused, sessions) = (Arc::clone(&self.refused), Arc::clone(&self.sessions));
        let mut config = PublisherConfig::new(code(source), STREAM, DATASET).on_event(
            move |event| match event {
                Event::Refused(records) => {
                    refused.fetch_add(records.len() as u64, Ordering::Relaxed);
                }
                Event::Connected { .. } => {
                    sessions.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            },
        );
        config.ids = IdPolicy::Sequence;
        config.unacked_bytes_max = UNACKED_BYTES_MAX;
        config.held_bytes_max = UNACKED_BYTES_MAX * 2;
        config.backoff_max = Duration::from_secs(1);
        config.seed = Some(u64::from(source));
        let publisher =
            Publisher::open(self.endpoint(source)?, config).await.map_err(failed("open"))?;
        let progress = publisher.acked();
        Ok(Box::new(OursSource {
            through: publisher.next_sequence() - 1,
            publisher,
            progress,
            refused: Arc::clone(&self.refused),
        }))
    }

    async fn read_back(&self, node: usize, check: &mut Check) -> Result<ReadBack, Error> {
        let reader = Reader::new(self.cluster()?.operator(node)?);
        let (sender, mut answers) = mpsc::channel(ANSWERS_WAITING_MAX);
        let reading = tokio::spawn(read(reader, Arc::clone(check.records()), sender));
        while let Some(found) = answers.recv().await {
            found.into_iter().for_each(|one| check.note(one));
        }
        reading.await.map_err(|error| Error::protocol(ARM, error.to_string()))??;
        Ok(ReadBack::Done)
    }

    async fn counters(&self) -> Result<BTreeMap<String, f64>, Error> {
        let status = self.cluster()?.status().await?;
        // One entry of a group is one bundle of batches that was agreed on together.
        let entries: u64 = status.groups.iter().map(|g| g.committed_index).sum();
        let figures = self.cluster()?.metrics().await?;
        let mean = |name: &str| figures.get(name).copied().unwrap_or(0.0) / NODES as f64;
        Ok(BTreeMap::from([
            ("entries".to_owned(), entries as f64),
            ("log_syncs".to_owned(), mean("dtm_log_syncs_total")),
            ("commit_rounds".to_owned(), mean("dtm_log_rounds_total")),
            ("log_bytes".to_owned(), mean("dtm_log_bytes_total")),
            ("batches".to_owned(), mean("dtm_ack_seconds_count") * NODES as f64),
        ]))
    }

    async fn kill_busiest(&mut self) -> Result<usize, Error> {
        match &mut self.cluster {
            Some(cluster) => cluster.kill_busiest().await,
            None => Err(Error::protocol(ARM, "not started")),
        }
    }

    async fn restart(&mut self, node: usize) -> Result<(), Error> {
        match &mut self.cluster {
            Some(cluster) => cluster.restart(node).await,
            None => Err(Error::protocol(ARM, "not started")),
        }
    }

    async fn stop(&mut self) {
        self.cluster = None;
    }
}

/// Which records a node holds, in the order in which they were committed. An operator reads every
/// batch of the log once; the node opens it and gives the digest of each payload instead of the
/// payload, which is compared with that of the record that was sent.
async fn read(
    reader: Reader,
    records: Arc<Records>,
    sender: mpsc::Sender<Vec<Option<(u32, u64)>>>,
) -> Result<(), Error> {
    let mut answers = reader.read(ReadRequest {
        dataset: DATASET.to_owned(),
        current: true,
        purpose: "bench".to_owned(),
        ..ReadRequest::default()
    });
    let mut text = Vec::new();
    while let Some(answer) = answers.next().await.map_err(failed("read back"))? {
        // Else a lag of this node would look like a loss.
        if !answer.current {
            return Err(Error::protocol(ARM, "the view read back is not current"));
        }
        let found = answer.records.iter().map(|stored| identify(&records, stored, &mut text));
        if sender.send(found.collect()).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Which record this is; `None` when it is none of the run, or not as it was sent.
fn identify(records: &Records, stored: &StoredRecord, text: &mut Vec<u8>) -> Option<(u32, u64)> {
    let source: u32 = stored.source.strip_prefix('s')?.parse().ok()?;
    let same = stored.stream == STREAM
        && records.has_digest(source, stored.sequence, &stored.payload_digest, text);
    same.then_some((source, stored.sequence))
}

struct OursSource {
    publisher: Publisher,
    progress: watch::Receiver<Progress>,
    through: u64,
    refused: Arc<AtomicU64>,
}

#[async_trait]
impl Source for OursSource {
    async fn send(&mut self, window: Window<'_>) -> Result<(), Error> {
        for (sequence, payload) in window.records() {
            let record = Record { payload: Bytes::copy_from_slice(payload), ..Record::default() };
            let given = self.publisher.send(&record).await.map_err(failed("send"))?;
            if given != sequence {
                let what = format!("record {sequence} got sequence {given}");
                return Err(Error::protocol(ARM, what));
            }
        }
        Ok(())
    }

    async fn acked(&mut self, acked: &mut Vec<u64>) -> Result<(), Error> {
        loop {
            let through = self.progress.borrow_and_update().acked_through;
            let refused = self.refused.load(Ordering::Relaxed);
            if refused > 0 {
                return Err(Error::protocol(ARM, format!("{refused} records refused")));
            }
            if through > self.through {
                acked.extend(self.through + 1..=through);
                self.through = through;
                return Ok(());
            }
            // Nothing came for a second: only then is it asked whether the client still lives.
            if tokio::time::timeout(LOOK_EVERY, self.progress.changed()).await.is_err()
                && let Some(error) = self.publisher.ended()
            {
                return Err(failed("ended")(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dtm_catalog::{Accepted, CompiledSchema, Definition, Outcome, Scratch};

    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn a_record_read_back_is_known_by_its_digest_and_no_other() {
        let records = Records::new(1024, 1);
        let mut bytes = Vec::new();
        records.write(7, 3, &mut bytes);
        let stored = StoredRecord {
            source: code(7),
            stream: STREAM.to_owned(),
            sequence: 3,
            payload_digest: Bytes::copy_from_slice(&Sha256::digest(&bytes)),
            ..StoredRecord::default()
        };
        let text = &mut Vec::new();
        assert_eq!(identify(&records, &stored, text), Some((7, 3)));
        for other in [
            StoredRecord { sequence: 4, ..stored.clone() },
            StoredRecord { sequence: 0, ..stored.clone() },
            StoredRecord { source: code(8), ..stored.clone() },
            StoredRecord { source: "x00007".to_owned(), ..stored.clone() },
            StoredRecord { stream: "other".to_owned(), ..stored.clone() },
            StoredRecord { payload_digest: Bytes::new(), ..stored.clone() },
        ] {
            assert_eq!(identify(&records, &other, text), None, "{other:?}");
        }
    }

    #[test]
    fn records_of_every_size_keep_the_contract() {
        let definition = Definition::parse(DEFINITION, "ours.toml").expect("it reads");
        let schema = CompiledSchema::compile(&definition).expect("it compiles");
        for size in [256, 1024, 16 * 1024] {
            let mut bytes = Vec::new();
            Records::new(size, 1).write(499, 77, &mut bytes);
            match schema.check(&bytes, &mut Scratch::default()) {
                Outcome::Accepted { form, .. } => assert!(matches!(form, Accepted::Same)),
                Outcome::Refused(refusal) => panic!("{size}: {:?}", refusal.violations),
            }
        }
    }
}
