//! The standby becomes primary, because an operator says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtm_cluster::ClusterNode;
use dtm_register::{
    Act, Cause, Decision, LeaseTime, Outcome, Proposer, Question, Says, Verdict, primary_lives,
};

use super::Primacy;
use super::raise::Raised;
use super::watch::{READ_WITHIN, words};
use crate::Shared;

/// Why none was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The layout has no standby, or the register is not known here yet.
    #[error("this cluster has no standby, or this node was not told of the register yet")]
    NoStandby,
    /// This site is primary already.
    #[error("site {site} is primary already, in life {life}")]
    Already {
        /// The site.
        site: String,
        /// The life.
        life: u64,
    },
    /// The node that was asked is of another site.
    #[error("ask a node of site {standby}: it is the one that stands by")]
    OtherSite {
        /// The site that can be promoted.
        standby: String,
    },
    /// This site never entered the life in force: what was acknowledged in that one it does not hold.
    #[error("site {site} lives in life {own}, life {known} is in force")]
    Outlived {
        /// The site.
        site: String,
        /// The life of its nodes.
        own: u64,
        /// The one in force.
        known: u64,
    },
    /// The primary may hold the right to acknowledge.
    #[error("site {site} may still acknowledge")]
    PrimaryLives {
        /// The site.
        site: String,
        /// Places that heard it within a lease, and how long ago.
        heard: Vec<(String, Duration)>,
        /// Places that did not answer.
        silent: Vec<String>,
        /// Places that started too lately to know.
        young: Vec<(String, Duration)>,
    },
    /// The site was detached: what was acknowledged since did not wait for it.
    #[error("site {site} was detached")]
    Detached {
        /// The site.
        site: String,
    },
    /// The register did not decide. Nothing was decided, and nothing will be by this call.
    #[error("the places did not decide: {what}")]
    Undecided {
        /// In words.
        what: String,
        /// Places that did not answer.
        places: Vec<String>,
    },
    /// Whether the register decided is not known.
    #[error("whether the places decided is not known: {what}")]
    Unknown {
        /// In words.
        what: String,
        /// Places that did not answer.
        places: Vec<String>,
    },
}

impl Primacy {
    /// Decides that this node's site becomes primary in the next life; this node draws its plan up.
    /// Unless `forced`, only where a majority of the places did not hear the primary for a lease. A life
    /// that this site did not enter is given up only by its number: where it never began.
    pub async fn promote(
        self: &Arc<Self>,
        shared: &Shared,
        (by, reason): (String, String),
        (forced, given_up): (bool, u64),
    ) -> Result<(), Refused> {
        let known = self.decision().ok_or(Refused::NoStandby)?;
        let mut read = Proposer::read_from(self.proposer_id(), &known);
        read.also_ask(&known.seats);
        let known = match self.drive(&shared.cluster, read, READ_WITHIN).await {
            Outcome::Chosen(decision) => decision,
            other => return Err(undecided(&other)),
        };
        self.adopt(&known);
        if known.primary == self.site {
            return Err(Refused::Already { site: known.primary, life: known.incarnation.0 });
        }
        if known.standby != self.site {
            return Err(Refused::OtherSite { standby: known.standby });
        }
        if !known.is_attached() {
            return Err(Refused::Detached { site: known.standby });
        }
        let in_force = known.incarnation;
        if self.own < in_force && in_force.0 != given_up {
            let (site, own) = (self.site.clone(), self.own.0);
            return Err(Refused::Outlived { site, own, known: in_force.0 });
        }
        if !forced {
            self.is_silent(&shared.cluster, &known).await?;
        }
        let act = Act { at_us: self.clock.now_us(), by, reason };
        let cause = if forced { Cause::Forced } else { Cause::Promoted };
        let next = |intent: &Decision| intent.promoted(cause, intent.act.clone());
        let raised = self.raise(&shared.cluster, &known, act, next).await;
        let illegal = |what: dtm_register::Illegal| Refused::Undecided {
            what: what.to_string(),
            places: Vec::new(),
        };
        match raised.map_err(illegal)? {
            Raised::Done(_) => Ok(()),
            Raised::Other(newer) if newer.primary == self.site => {
                Err(Refused::Already { site: newer.primary, life: newer.incarnation.0 })
            }
            Raised::Other(newer) => Err(undecided(&Outcome::Lost(newer))),
            Raised::Not(outcome) => Err(undecided(&outcome)),
            Raised::Unknown(outcome) => {
                let (what, places) = told_of(&outcome);
                Err(Refused::Unknown { what, places })
            }
        }
    }

    /// No place heard the primary for a lease.
    pub async fn is_silent(
        self: &Arc<Self>,
        cluster: &ClusterNode,
        known: &Decision,
    ) -> Result<(), Refused> {
        let asked = known
            .seats
            .iter()
            .map(async |seat| self.ask(cluster, seat.node, &Question::Heard).await);
        let answers = futures::future::join_all(asked).await.into_iter().flatten();
        let heard: BTreeMap<_, _> = answers
            .filter_map(|answer| match answer.says {
                Says::Heard(heard) => Some((answer.acceptor, heard)),
                _ => None,
            })
            .collect();
        match primary_lives(known, &heard, LeaseTime::default()) {
            Verdict::Clear => Ok(()),
            Verdict::Refused { heard, silent, young } => {
                Err(Refused::PrimaryLives { site: known.primary.clone(), heard, silent, young })
            }
        }
    }
}

fn undecided(outcome: &Outcome) -> Refused {
    let (what, places) = told_of(outcome);
    Refused::Undecided { what, places }
}

/// In words, and who did not answer.
pub(super) fn told_of(outcome: &Outcome) -> (String, Vec<String>) {
    let missing = match outcome {
        Outcome::NoQuorum(missing) | Outcome::Unknown { missing, .. } => missing.as_slice(),
        _ => &[],
    };
    let places = missing.iter().map(|of| of.seat.place.clone()).collect();
    (words(outcome), places)
}
