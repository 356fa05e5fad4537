//! An agreement followed on one node, before anything runs there: of each group what is left behind is
//! kept, and what is agreed stays as the beginning of a replica that the node may be given.

use std::path::Path;
use std::sync::Arc;

use dtm_machine::seams::StateError;
use dtm_storage::log::NodeLog;
use dtm_types::{GroupId, ReplicaId, chain};

use super::Agreement;
use crate::error::Error;
use crate::log_store::{
    Forebear, LeftHead, LeftWriter, Lineage, LogPosition, LogProvider, NodeLogs, ReplicaLog,
    wait_flushed,
};
use crate::network::entries;
use crate::snapshot::StateProvider;
use crate::state_machine::read_applied;

/// Entries that are read at one time.
const PAGE_ENTRIES: u64 = 4_096;

/// What became of a node's replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejoined {
    /// Replicas that ended.
    pub replicas: usize,
    /// Of these the ones that held entries which did not go over.
    pub left_behind: usize,
    /// Those entries.
    pub entries: u64,
}

/// Follows an agreement: `log` and `states` are open, no group runs. `lineage` is the file of
/// [`Lineage`], `left` the folder for what did not go over. After a crash it is called again; it is
/// done when it returns, and the node's incarnation is to be written then.
///
/// # Errors
/// [`Error::Refused`] where a log does not hold what was agreed: nothing was changed, it is to be
/// agreed anew. Any other: it may be half done, and is to be called again as it was, since a log that was
/// cut does not go on in the life that is over.
pub async fn rejoin(
    agreement: &Agreement,
    log: &Arc<NodeLog>,
    states: &dyn StateProvider,
    lineage: &Path,
    left: &Path,
) -> Result<Rejoined, Error> {
    let failed = |source| Error::File { path: lineage.to_owned(), source };
    let mut line = Lineage::read(lineage).map_err(failed)?;
    let before = NodeLogs::new(Arc::clone(log), agreement.previous).with_lineage(line.clone());
    let (mut ending, mut rejoined) = (Vec::new(), Rejoined::default());
    for (group, replica) in before.replicas() {
        let ended = Ending::open(&before, agreement, group, replica)?;
        ended.is_as_agreed()?;
        ending.push(ended);
    }
    for ended in &ending {
        let entries = ended.keep(states, left)?;
        rejoined.replicas += 1;
        rejoined.left_behind += usize::from(entries > 0);
        rejoined.entries += entries;
    }
    // Names what a replica of the later life stands on before there is one.
    for Ending { group, replica, last, .. } in &ending {
        let (through, incarnation) = (last.map_or(0, |last| last.index), agreement.previous);
        line.add(Forebear { group: *group, incarnation, replica: *replica, through });
    }
    line.write(lineage).map_err(failed)?;
    for ended in &ending {
        ended.cut().await?;
        states.clear(ended.group)?;
    }
    Ok(rejoined)
}

/// A replica of the life that is over.
struct Ending {
    group: GroupId,
    replica: ReplicaId,
    log: Arc<dyn ReplicaLog>,
    last: Option<LogPosition>,
    head: LeftHead,
}

impl Ending {
    fn open(
        logs: &dyn LogProvider,
        agreement: &Agreement,
        group: GroupId,
        replica: ReplicaId,
    ) -> Result<Self, Error> {
        let mut agreed = agreement.replicas.iter();
        let agreed = agreed.find(|(of, id, _)| (*of, *id) == (group, replica));
        let unnamed = || {
            let told = format!("replica {replica} of group {group} is not in the agreement");
            Error::Refused(told)
        };
        let (_, _, last) = *agreed.ok_or_else(unnamed)?;
        let log = logs.open(group, replica).map_err(|source| Error::Log { group, source })?;
        let (incarnation, agreed) = (agreement.previous, last.map_or(0, |last| last.index));
        let head = LeftHead { group, incarnation, replica, agreed, applied: 0 };
        Ok(Self { group, replica, log, last, head })
    }

    fn in_log(&self, error: &dyn std::error::Error) -> Error {
        let cause = format!("its log cannot be cut: {}", chain(error));
        Error::State(StateError { group: self.group, cause, is_disk_full: false })
    }

    /// The log holds the last entry that was agreed about.
    fn is_as_agreed(&self) -> Result<(), Error> {
        let Some(last) = self.last else { return Ok(()) };
        if entries::position_at(&*self.log, last.index) == Some(last) {
            return Ok(());
        }
        let told = format!("group {}: entry {} is not as it was agreed", self.group, last.index);
        Err(Error::Refused(told))
    }

    /// Keeps what lies above what is agreed, on stable storage; how many entries. Kept once: after a
    /// crash the log may no longer hold them.
    fn keep(&self, states: &dyn StateProvider, folder: &Path) -> Result<u64, Error> {
        let rows = states.open(self.group)?;
        // Rows that are damaged say nothing of it.
        let applied = read_applied(&*rows).ok().and_then(|(applied, _)| applied);
        let head = LeftHead { applied: applied.map_or(0, |applied| applied.index), ..self.head };
        let failed = |source| Error::File { path: folder.to_owned(), source };
        let Some(mut writer) = LeftWriter::create(folder, &head).map_err(failed)? else {
            return Ok(0);
        };
        let end = self.log.marks().last.map_or(0, |last| last.index);
        let (mut next, mut kept) = (self.head.agreed + 1, 0);
        while next <= end {
            let (held, through) = entries::page(&*self.log, next, end.min(next + PAGE_ENTRIES - 1));
            for entry in &held {
                writer.push(entry).map_err(failed)?;
                kept += 1;
            }
            let looked = through.max(next);
            (held.len() as u64..looked - next + 1).for_each(|_| writer.skip());
            next = looked + 1;
        }
        writer.finish().map_err(failed)?;
        if kept > 0 {
            tracing::warn!(
                group = self.group.0,
                from = self.head.agreed + 1,
                through = end,
                committed = head.applied,
                "entries of the life that is over are left behind: dtm site left"
            );
        }
        Ok(kept)
    }

    /// Nothing above what is agreed stays in the log; what is purged was a record before.
    async fn cut(&self) -> Result<(), Error> {
        let purged = self.log.marks().purged;
        let keep = self.last.into_iter().chain(purged).max_by_key(|of| of.index);
        let index = keep.map(|keep| keep.index);
        let cut = wait_flushed(|done| self.log.truncate_after(index, done)).await;
        cut.map_err(|error| self.in_log(&error))?;
        if let Some(keep) =
            keep.filter(|keep| purged.is_none_or(|purged| purged.index < keep.index))
        {
            self.log.purge_to(keep).map_err(|error| self.in_log(&error))?;
        }
        let synced = wait_flushed(|done| self.log.append(Vec::new(), done)).await;
        synced.map_err(|error| self.in_log(&error))
    }
}
