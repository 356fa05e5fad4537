//! The plan that this node keeps, given to whoever asks for it.
//!
//! A plan that is out is followed by others: so it is given away only where it is sure to be here after
//! a power cut, not as soon as the file can be read.

use std::path::Path;

use dtm_proto::cluster as wire;
use dtm_storage::vfs::{RealVfs, Vfs};
use parking_lot::RwLock;

use super::file::read_plan;

/// A plan that is durable, or none.
#[derive(Debug, Default)]
pub(crate) struct Kept(RwLock<Option<wire::PromotionPlan>>);

impl Kept {
    /// What an earlier start left: its folder may not have been on disk yet, so it is now. Blocking.
    pub(crate) fn open(path: Option<&Path>) -> Self {
        let kept = path.and_then(|path| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let synced = RealVfs.sync_dir(folder.unwrap_or(Path::new(".")));
            let kept = synced.and_then(|()| read_plan(path));
            kept.inspect_err(|error| tracing::warn!(%error, "the plan is not read")).ok().flatten()
        });
        Self(RwLock::new(kept))
    }

    /// It is durable from now on.
    pub(super) fn set(&self, plan: wire::PromotionPlan) {
        *self.0.write() = Some(plan);
    }

    /// The plan of a life.
    pub(crate) fn of(&self, incarnation: u64) -> Option<wire::PromotionPlan> {
        self.0.read().as_ref().filter(|plan| plan.incarnation == incarnation).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promotion::write_plan;

    #[test]
    fn only_what_was_kept_is_given_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plan");
        let kept = Kept::open(Some(&path));
        let plan = wire::PromotionPlan { incarnation: 2, ..Default::default() };
        // In the file, but nobody has said that it is on disk for good.
        write_plan(&path, &plan).expect("writes");
        assert_eq!(kept.of(2), None);
        kept.set(plan.clone());
        assert_eq!((kept.of(2), kept.of(3)), (Some(plan.clone()), None));
        assert_eq!(Kept::open(Some(&path)).of(2), Some(plan), "a later start");
        assert_eq!(Kept::open(None).of(2), None);
    }
}
