//! Nothing is acknowledged without the right.

use std::sync::Arc;

use bytes::Bytes;
use dtm_machine::seams::{ProposeError, Proposer, Reply};
use dtm_types::GroupId;

use super::Primacy;

/// Put before the proposer of the sessions.
pub(crate) struct Rightful {
    inner: Arc<dyn Proposer>,
    primacy: Arc<Primacy>,
}

impl Rightful {
    pub(crate) fn new(inner: Arc<dyn Proposer>, primacy: Arc<Primacy>) -> Self {
        Self { inner, primacy }
    }
}

impl Proposer for Rightful {
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
