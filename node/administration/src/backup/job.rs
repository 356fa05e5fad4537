//! One backup, from its first entry in meta to its last.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_backup::{Entry, Folder, GroupPart, Kind, Manifest, Writer};
use dtm_cluster::GroupCopy;
use dtm_doors::Shared;
use dtm_doors::audit::{Action, Actor, act};
use dtm_doors::elsewhere::view_of;
use dtm_doors::status::{internal, status, told};
use dtm_machine::reads;
use dtm_machine::seams::Freshness;
use dtm_proto::admin as wire;
use dtm_proto::admin::BackupStep;
use dtm_proto::admin::create_backup_response::Answer;
use dtm_seal::{DataKey, Secret, WrapContext};
use dtm_types::command::admin::Op;
use dtm_types::command::{ClusterRow, EnterBackup};
use dtm_types::format::{AnchoredGroup, KeyPurpose, Leaf};
use dtm_types::text::Told;
use dtm_types::{BackupId, ErrorCode, GroupId, KeyId, Month, chain};
use serde_json::json;
use tokio::sync::mpsc;
use tonic::Status;

use super::answer;

/// An anchor is entered each second where something moved, and the entry of the backup moves meta.
const ANCHOR_WITHIN: Duration = Duration::from_secs(90);
const ANCHOR_LOOK_EVERY: Duration = Duration::from_millis(100);
/// For this node to apply what the anchor names.
const APPLY_WITHIN: Duration = Duration::from_secs(60);
/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 16 << 20;

/// A backup that was asked for.
pub(crate) struct Job {
    pub shared: Arc<Shared>,
    pub folder: Folder,
    pub full: bool,
    pub reason: String,
    pub request_id: Bytes,
    pub answers: mpsc::Sender<Result<wire::CreateBackupResponse, Status>>,
}

/// What is known before the first byte is written.
struct Plan {
    id: BackupId,
    parent: Option<(Manifest, dtm_backup::Digest)>,
    began_us: i64,
    anchor_leaf: u64,
    anchor: Leaf,
    cluster: ClusterRow,
    copies: Vec<GroupCopy>,
}

impl Job {
    /// Carries it out; what the caller is told at the end.
    pub(crate) async fn run(self, actor: Actor) -> Result<wire::BackupDone, Status> {
        let id = self.fresh_id();
        let began_us = self.shared.clock.now_us();
        let parent = self.parent().await?;
        let entered = EnterBackup {
            backup: Bytes::copy_from_slice(&id.0),
            parent: parent.as_ref().map(|(of, _)| of.backup.clone()).unwrap_or_default(),
            ..EnterBackup::default()
        };
        let begun = self.enter(&actor, entered.clone(), self.request_id.clone()).await?;
        self.tell(BackupStep::Anchor, (0, 0), 0).await?;
        let (anchor_leaf, anchor) = self.anchor_behind(begun).await?;
        let (cluster, copies) = self.frozen(&anchor).await?;
        let plan = Plan { id, parent, began_us, anchor_leaf, anchor, cluster, copies };
        let anchor_us = plan.anchor.group_time_us;
        let job = Arc::new(self);
        let writing = Arc::clone(&job);
        let written = tokio::task::spawn_blocking(move || writing.write(plan)).await;
        let (manifest_digest, bytes) = written.map_err(internal)??;
        let manifest_digest = Bytes::copy_from_slice(&manifest_digest);
        let parent = entered.parent.clone();
        let entered = EnterBackup { manifest_digest, anchor_leaf, ..entered };
        job.enter(&actor, entered.clone(), Bytes::new()).await?;
        metrics::counter!("dtm_backups_total").increment(1);
        metrics::gauge!("dtm_backup_newest_cut_seconds").set(anchor_us as f64 / 1e6);
        Ok(wire::BackupDone {
            backup: entered.backup,
            parent,
            anchor_leaf,
            anchor_us,
            bytes,
            manifest_digest: entered.manifest_digest,
            folder: job.folder.path().display().to_string(),
        })
    }

    /// Sorts by time.
    fn fresh_id(&self) -> BackupId {
        let mut random = [0; 10];
        self.shared.entropy.fill(&mut random);
        let millis = u64::try_from(self.shared.clock.now_us() / 1_000).unwrap_or(0);
        BackupId(*uuid::Builder::from_unix_timestamp_millis(millis, &random).as_uuid().as_bytes())
    }

    /// The newest backup of this life of the cluster that can be continued; none where its chain is as
    /// long as it may be.
    async fn parent(&self) -> Result<Option<(Manifest, dtm_backup::Digest)>, Status> {
        if self.full {
            return Ok(None);
        }
        let (folder, chain_max) = (self.folder.clone(), self.shared.config.backup.chain_max);
        let listed = tokio::task::spawn_blocking(move || {
            let mut all = dtm_backup::list(&folder)?;
            all.retain(|found| found.manifest.is_ok());
            let Some(newest) = all.pop() else { return Ok(None) };
            // One whose chain is broken is of no use to anybody.
            let chain = dtm_backup::chain(&folder, &newest.name);
            let goes_on = chain.is_ok_and(|chain| (chain.len() as u64) < chain_max);
            newest.manifest.map(|manifest| goes_on.then_some(manifest))
        });
        let found = listed.await.map_err(internal)?.map_err(|error| of_backup(&error))?;
        let (cluster, life) = (self.shared.cluster_id, self.shared.incarnation.0);
        Ok(found.filter(|(of, _)| of.cluster_id() == cluster && of.incarnation == life))
    }

    /// Enters a step in meta's ledger; its leaf.
    async fn enter(
        &self,
        actor: &Actor,
        entered: EnterBackup,
        request_id: Bytes,
    ) -> Result<u64, Status> {
        let folder = self.folder.path().display().to_string();
        let action = Action {
            op: Op::EnterBackup(entered),
            expected_version: None,
            reason: self.reason.clone(),
            request_id,
            detail: json!({ "folder": folder, "node": self.shared.row.name }),
        };
        Ok(act(&self.shared, actor.clone(), action).await?.leaf_index)
    }

    /// The first anchor behind a leaf of meta that this node sees.
    async fn anchor_behind(&self, leaf: u64) -> Result<(u64, Leaf), Status> {
        let deadline = tokio::time::Instant::now() + ANCHOR_WITHIN;
        loop {
            let meta = self.shared.directory.meta(self.shared.view()).await?;
            let newest = reads::anchors(meta.state.as_ref(), 1).map_err(internal)?.pop();
            if let Some(found) = newest.filter(|(index, _)| *index > leaf) {
                return Ok(found);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(told(ErrorCode::Unavailable, &Told::new("refused.no_anchor")));
            }
            tokio::time::sleep(ANCHOR_LOOK_EVERY).await;
        }
    }

    /// All groups, frozen: each with everything that was acknowledged before this call, and at least
    /// where the anchor has it.
    async fn frozen(&self, anchor: &Leaf) -> Result<(ClusterRow, Vec<GroupCopy>), Status> {
        let shared = &self.shared;
        let meta = shared.directory.meta_now(shared.view()).await?;
        let groups = reads::groups(meta.state.as_ref()).map_err(internal)?;
        let groups: Vec<GroupId> = groups.iter().map(|row| GroupId(row.group)).collect();
        let away: Vec<String> = groups
            .iter()
            .filter(|group| !shared.cluster.is_here(**group))
            .map(ToString::to_string)
            .collect();
        if !away.is_empty() {
            let what = Told::new("refused.backup_elsewhere").with("node", &shared.row.name);
            return Err(told(ErrorCode::InvalidArgument, &what.with("groups", away.join(", "))));
        }
        let mut copies = Vec::with_capacity(groups.len());
        // Meta, the first, comes last.
        for group in groups.into_iter().rev() {
            view_of(shared.view(), group, Freshness::Current).await?;
            let anchored = anchored(anchor, group);
            let index = anchored.map_or(0, |anchored| anchored.applied_index);
            let copy = shared.cluster.copy_of(group, index, APPLY_WITHIN).await;
            let copy = copy.map_err(|error| status(ErrorCode::Unavailable, error))?;
            if let Some(why) = anchored.and_then(|anchored| contradicts(anchored, &copy)) {
                return Err(internal(format!("group {group}: {why}")));
            }
            copies.push(copy);
        }
        copies.reverse();
        let meta = copies.first().filter(|copy| copy.group.is_meta());
        let meta = meta.ok_or_else(|| internal("meta has no row of itself"))?;
        let cluster = reads::cluster(meta.state()).map_err(internal)?;
        Ok((cluster.unwrap_or_default(), copies))
    }

    /// Writes it and reads it back: digest of the manifest, and bytes. Blocking.
    fn write(&self, plan: Plan) -> Result<(dtm_backup::Digest, u64), Status> {
        let shared = &self.shared;
        let mut secret = zeroize::Zeroizing::new([0_u8; 32]);
        shared.entropy.fill(secret.as_mut());
        let key = DataKey::from_bytes(&mut secret);
        let context = WrapContext {
            purpose: KeyPurpose::Backup,
            group: GroupId::META,
            source: None,
            month: Month(0),
            key_id: KeyId(plan.id.0),
        };
        let wrapped = shared.keyring.wrap_data_key(&context, &key);
        let writer = Writer::new(&self.folder, shared.entropy.as_ref(), plan.id, &key);
        let mut groups = Vec::with_capacity(plan.copies.len());
        let mut bytes = 0;
        for (number, copy) in plan.copies.iter().enumerate() {
            let before = plan.parent.as_ref().and_then(|(of, _)| of.group(copy.group));
            let from = before.map_or(1, |part| part.last_index.saturating_add(1));
            let place = (number, plan.copies.len());
            groups.push(self.write_group(&writer, copy, from, place, &mut bytes)?);
        }
        let manifest = Manifest {
            parent: plan.parent.as_ref().map(|(of, _)| of.backup.clone()).unwrap_or_default(),
            parent_digest: plan
                .parent
                .map(|(_, digest)| Bytes::copy_from_slice(&digest))
                .unwrap_or_default(),
            cluster: Bytes::copy_from_slice(&shared.cluster_id.0),
            cluster_name: plan.cluster.name,
            incarnation: shared.incarnation.0,
            began_us: plan.began_us,
            ended_us: shared.clock.now_us(),
            key: Some(wrapped),
            anchor_leaf: plan.anchor_leaf,
            anchor: Some(Box::new(plan.anchor)),
            groups,
            roots: shared.ca.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            ..Manifest::default()
        };
        self.read_back(&writer, &manifest.groups)?;
        let digest = writer.finish(manifest).map_err(|error| of_backup(&error))?;
        let there = dtm_backup::read_manifest(&self.folder, &plan.id.to_string());
        let (_, found) = there.map_err(|error| of_backup(&error))?;
        if found != digest {
            return Err(told(ErrorCode::Damaged, &Told::new("refused.backup_manifest")));
        }
        Ok((digest, bytes))
    }

    fn write_group(
        &self,
        writer: &Writer<'_>,
        copy: &GroupCopy,
        from: u64,
        (number, groups): (usize, usize),
        bytes: &mut u64,
    ) -> Result<GroupPart, Status> {
        let failed = |error: dtm_backup::Error| of_backup(&error);
        let place = (copy.group.0, count(groups));
        self.tell_blocking(BackupStep::Write, (count(number + 1), place.1), *bytes)?;
        let mut reported = *bytes;
        let mut file = writer.file(copy.group, Kind::Rows).map_err(failed)?;
        let mut next = Vec::new();
        loop {
            let rows = copy.rows(&next).map_err(internal)?;
            let Some((last, _)) = rows.last() else { break };
            next = [&last[..], &[0]].concat();
            for (key, value) in &rows {
                file.row(key, value).map_err(failed)?;
            }
            self.report(place, *bytes + file.bytes(), &mut reported)?;
        }
        let (rows, state) = file.finish().map_err(failed)?;
        *bytes += rows.bytes;
        let mut entries = None;
        if from <= copy.last.index {
            let mut file = writer.file(copy.group, Kind::Entries).map_err(failed)?;
            for index in from..=copy.last.index {
                let entry = copy.entry(index).map_err(|error| {
                    let what = Told::new("refused.backup_entry").with("group", copy.group);
                    let what = what.with("index", index).with("what", error);
                    told(ErrorCode::Damaged, &what)
                })?;
                let (index, term, leader) = (entry.index, entry.term, entry.leader);
                let entry = Entry { index, term, leader, payload: entry.payload };
                file.entry(&entry).map_err(failed)?;
                self.report(place, *bytes + file.bytes(), &mut reported)?;
            }
            let (part, _) = file.finish().map_err(failed)?;
            *bytes += part.bytes;
            entries = Some(part);
        }
        Ok(GroupPart {
            group: copy.group.0,
            last_index: copy.last.index,
            last_term: copy.last.term,
            last_leader: copy.last.leader,
            ledger_size: copy.ledger_size,
            ledger_root: Bytes::copy_from_slice(&copy.ledger_root),
            rows: Some(rows),
            entries,
            entries_from: from,
            state_digest: Bytes::copy_from_slice(&state),
        })
    }

    /// Every byte from where it lies now, opened, before a manifest names it.
    fn read_back(&self, writer: &Writer<'_>, groups: &[GroupPart]) -> Result<(), Status> {
        let (mut bytes, mut reported) = (0, 0);
        self.tell_blocking(BackupStep::Verify, (0, 0), 0)?;
        let mut gone = None;
        let read = writer.read_back(groups, &mut |more| {
            bytes += more;
            if bytes >= reported + REPORT_EVERY {
                reported = bytes;
                gone = gone.take().or(self.tell_blocking(BackupStep::Verify, (0, 0), bytes).err());
            }
        });
        read.map_err(|error| of_backup(&error))?;
        gone.map_or(Ok(()), Err)
    }

    fn report(&self, place: (u32, u32), bytes: u64, reported: &mut u64) -> Result<(), Status> {
        if bytes < *reported + REPORT_EVERY {
            return Ok(());
        }
        *reported = bytes;
        self.tell_blocking(BackupStep::Write, place, bytes)
    }

    async fn tell(&self, step: BackupStep, place: (u32, u32), bytes: u64) -> Result<(), Status> {
        let told = self.answers.send(Ok(progress(step, place, bytes))).await;
        told.map_err(|_| cut())
    }

    fn tell_blocking(&self, step: BackupStep, place: (u32, u32), bytes: u64) -> Result<(), Status> {
        let told = self.answers.blocking_send(Ok(progress(step, place, bytes)));
        told.map_err(|_| cut())
    }
}

fn progress(
    step: BackupStep,
    (group, groups): (u32, u32),
    bytes: u64,
) -> wire::CreateBackupResponse {
    let progress = wire::BackupProgress { step: step.into(), group, groups, bytes };
    answer(Answer::Progress(progress))
}

/// Whoever asked went away: the backup ends with them.
fn cut() -> Status {
    Status::cancelled("the caller went away")
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

fn of_backup(error: &dtm_backup::Error) -> Status {
    let code = if error.is_of_backup() { ErrorCode::Damaged } else { ErrorCode::Internal };
    status(code, chain(error))
}

fn anchored(anchor: &Leaf, group: GroupId) -> Option<&AnchoredGroup> {
    let groups = &anchor.anchor.as_ref()?.groups;
    groups.iter().find(|anchored| anchored.group == group.0)
}

/// LED-1: a copy behind its anchor, or with another ledger at the same size, is not written.
fn contradicts(anchored: &AnchoredGroup, copy: &GroupCopy) -> Option<&'static str> {
    if copy.ledger_size < anchored.ledger_size {
        return Some("LED-1: its ledger has fewer leaves than were anchored");
    }
    let is_same = copy.ledger_size == anchored.ledger_size;
    (is_same && copy.ledger_root[..] != anchored.ledger_root[..])
        .then_some("LED-1: its ledger has another root than was anchored")
}
