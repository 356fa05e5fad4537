//! Nothing is acknowledged without the right.

use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{ProposeError, Proposer, Reply, SiteCopies};
use dtm_types::GroupId;

use super::Primacy;

/// Put before the proposer of the sessions, and before what they are told of the other site.
pub struct Rightful<C> {
    inner: Arc<C>,
    primacy: Arc<Primacy>,
}

impl<C> Rightful<C> {
    /// `inner`, while `primacy` may acknowledge.
    pub fn new(inner: Arc<C>, primacy: Arc<Primacy>) -> Self {
        Self { inner, primacy }
    }
}

/// An ack that waits for the other site leaves only while this node may acknowledge.
impl<C: SiteCopies> SiteCopies for Rightful<C> {
    fn has_standby(&self) -> bool {
        self.inner.has_standby()
    }

    fn through(&self, group: GroupId) -> Option<u64> {
        let through = self.inner.through(group)?;
        Some(if self.primacy.may_acknowledge() { through } else { 0 })
    }
}

impl<C: Proposer> Proposer for Rightful<C> {
    /// Without the right nothing is proposed; where it ended meanwhile, what became of the command is
    /// not told: the life that it was committed in may be over.
    fn propose(&self, group: GroupId, command: Bytes, reply: Reply) {
        if !self.primacy.may_acknowledge() {
            metrics::counter!("dtm_primacy_refused_total").increment(1);
            let cause = self.primacy.why_not();
            return reply(Err(ProposeError::Unavailable { group, cause }));
        }
        let primacy = Arc::clone(&self.primacy);
        let guarded: Reply = Box::new(move |result| match result {
            Ok(_) if !primacy.may_acknowledge() => {
                metrics::counter!("dtm_primacy_untold_total").increment(1);
                let cause = "the right to acknowledge ended meanwhile".to_owned();
                reply(Err(ProposeError::OutcomeUnknown { group, cause }));
            }
            result => reply(result),
        });
        self.inner.propose(group, command, guarded);
    }
}
