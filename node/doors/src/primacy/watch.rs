//! Each second: what was decided, and whether this site may go on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dtm_cluster::Order;
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, ReadView};
use dtm_register::{AcceptorId, Answer, Decision, Outcome, Proposer, Question, Says, Seat};
use dtm_types::command::{LayoutRow, LayoutSeat};
use dtm_types::{GroupId, Incarnation, NodeId};

use super::{Primacy, has_register};
use crate::Shared;
use crate::lives::Lives;

/// A tenth of the lease.
const INTERVAL: Duration = Duration::from_secs(1);
/// One read of the register takes no longer.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(4);

/// Runs until it is dropped.
pub async fn watch(shared: Arc<Shared>) {
    tokio::join!(confirm(&shared), super::split::listen(&shared));
}

async fn confirm(shared: &Arc<Shared>) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        shared.primacy.follow_split(shared).await;
        let cause = round(shared).await.err().unwrap_or_default();
        if cause != told && !cause.is_empty() {
            tracing::warn!(cause, "whether this site may acknowledge is not confirmed");
        }
        told = cause;
        metrics::gauge!("dtm_primacy_may_acknowledge")
            .set(f64::from(u8::from(shared.primacy.may_acknowledge())));
    }
}

async fn round(shared: &Arc<Shared>) -> Result<(), String> {
    let primacy = &shared.primacy;
    let view = shared.cluster.view(GroupId::META, Freshness::Local).await;
    let mut in_force = None;
    // A node without a replica of meta goes by what it knows.
    if let Ok(view) = view {
        let layout = reads::layout(view.state.as_ref()).map_err(|error| error.to_string())?;
        // That none is needed any more is believed only of rows that are known to be the latest.
        let is_needed = has_register(&layout)
            || primacy.is_needed() && !is_given_up(shared).await.unwrap_or_default();
        primacy.goes_by(is_needed, layout.held_until_us);
        if has_register(&layout) && primacy.decision().is_none() {
            primacy.find(shared, &layout).await?;
        }
        in_force = Some(layout);
    }
    let Some(known) = primacy.decision().filter(|_| primacy.is_needed()) else { return Ok(()) };
    // What was decided is followed also where too few places confirm it now.
    // Who hands over does not ask for the right, so that the places can tell that it has none.
    let renewed = if primacy.is_handing_over() && known.primary == primacy.site {
        Ok(())
    } else {
        primacy.renew(shared, &known).await
    };
    primacy.follow(shared).await?;
    renewed?;
    if let Some(layout) = in_force {
        primacy.attach(shared, &layout).await?;
    }
    primacy.withdraw(&shared.cluster).await
}

/// Whether meta, as a majority confirms it, has no layout with a register.
async fn is_given_up(shared: &Shared) -> Option<bool> {
    let view = shared.cluster.view(GroupId::META, Freshness::Current).await.ok()?;
    reads::layout(view.state.as_ref()).ok().map(|layout| !has_register(&layout))
}

impl Primacy {
    /// The register as it is, or its founding: whoever founds it names the seats of the layout.
    async fn find(self: &Arc<Self>, shared: &Shared, layout: &LayoutRow) -> Result<(), String> {
        let seats = seats_of(layout);
        let read = Proposer::read(self.proposer_id(), &seats);
        match self.drive(&shared.cluster, read, READ_WITHIN).await {
            Outcome::Chosen(decision) => {
                self.adopt(&decision);
                Ok(())
            }
            // One site founds it, so that a layout that was put in an old life founds nothing.
            Outcome::Empty if self.site == layout.primary => {
                let act = self.own_act("layout with a standby".to_owned());
                let (primary, standby) = (&layout.primary, &layout.other);
                let first = Decision::founded(self.own, (primary, standby), seats, act);
                let founding = Proposer::found(self.proposer_id(), first);
                let founding = founding.map_err(|error| error.to_string())?;
                match self.drive(&shared.cluster, founding, READ_WITHIN).await {
                    Outcome::Chosen(decision) | Outcome::Lost(decision) => {
                        self.adopt(&decision);
                        Ok(())
                    }
                    other => Err(format!("the register is not founded: {}", words(&other))),
                }
            }
            other => Err(words(&other)),
        }
    }

    /// Asks every place whether the decision stands; reads where one tells of another.
    async fn renew(self: &Arc<Self>, shared: &Shared, known: &Decision) -> Result<(), String> {
        let asking = {
            let state = self.state.read();
            let lease = state.lease.as_ref().ok_or("nothing was decided")?;
            lease.ask(self.now())
        };
        let (asked, question) = asking;
        let answers = known
            .seats
            .iter()
            .map(async |seat| (seat.node, self.ask(&shared.cluster, seat.node, &question).await));
        let answers = futures::future::join_all(answers).await;
        let mut newer = Vec::new();
        let mut confirmed = 0;
        for (_, answer) in &answers {
            match answer {
                Some(Answer { acceptor, says: Says::Confirmed { .. } }) => {
                    confirmed += 1;
                    self.confirmed(*acceptor, asked);
                }
                Some(Answer { says: Says::Changed { accepted: Some(decision) }, .. })
                    if decision.number > known.number =>
                {
                    newer = decision.seats.clone();
                }
                _ => {}
            }
        }
        if !newer.is_empty() {
            let mut read = Proposer::read_from(self.proposer_id(), known);
            read.also_ask(&newer);
            return match self.drive(&shared.cluster, read, READ_WITHIN).await {
                Outcome::Chosen(decision) => {
                    self.adopt(&decision);
                    Ok(())
                }
                other => Err(words(&other)),
            };
        }
        if known.primary == self.site && confirmed < known.majority() {
            return Err(format!("{confirmed} of {} places confirm it", known.seats.len()));
        }
        if self.may_acknowledge() && known.primary == self.site {
            self.note_once().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn confirmed(&self, from: AcceptorId, asked: dtm_register::Asked) {
        if let Some(lease) = &mut self.state.write().lease {
            lease.confirmed(from, asked);
        }
    }

    /// A later life than this node's: its site begins it, or is no longer primary.
    async fn follow(&self, shared: &Shared) -> Result<(), String> {
        let Some(decision) = self.decision() else { return Ok(()) };
        if decision.incarnation <= self.own || shared.goes_over.is_cancelled() {
            return Ok(());
        }
        // Who asked for it on this node is answered first.
        if self.now().saturating_sub(self.state.read().told_at) < INTERVAL {
            return Ok(());
        }
        if decision.primary != self.site {
            let (next, primary) = (decision.incarnation, &decision.primary);
            let Some(life) = shared.cluster.later_life().await else {
                return Err(format!("life {next} begins at site {primary}: this one is over"));
            };
            return rejoin(shared, life, primary).await;
        }
        let order = order_of(&decision).ok_or("the decision names nobody who draws the plan up")?;
        keep_way(shared).await;
        Lives::of(&self.data).command(&order).map_err(|error| error.to_string())?;
        tracing::warn!(next = order.next.0, "this site goes over to the next life: starting again");
        shared.goes_over.cancel();
        Ok(())
    }
}

/// The cluster goes on in a later life, at another site: this node starts again, and compares what it
/// holds.
pub(super) async fn rejoin(
    shared: &Shared,
    life: Incarnation,
    primary: &str,
) -> Result<(), String> {
    keep_way(shared).await;
    let lives = Lives::of(&shared.primacy.data);
    lives.note_over(life).map_err(|error| error.to_string())?;
    tracing::warn!(%life, "the cluster lives at site {primary}: starting again, to rejoin it");
    shared.goes_over.cancel();
    Ok(())
}

/// The next start runs no groups, and has to know whom to ask. It finds less where the disk is full.
pub(super) async fn keep_way(shared: &Shared) {
    if let Err(error) = shared.cluster.keep_way().await {
        tracing::warn!(%error, "how other nodes are reached is not kept");
    }
}

pub(crate) fn order_of(decision: &Decision) -> Option<Order> {
    Some(Order {
        next: decision.incarnation,
        site: decision.primary.clone(),
        coordinator: decision.coordinator?,
        cause: format!("promotion of site {}: {}", decision.primary, decision.act.reason),
        stamp_us: decision.act.at_us,
        is_split: false,
    })
}

impl Primacy {
    /// The seat of a site: the acceptor of the first of these nodes that answers.
    pub async fn seat_at(
        self: &Arc<Self>,
        shared: &Shared,
        place: &str,
        mut nodes: Vec<NodeId>,
    ) -> Option<LayoutSeat> {
        nodes.sort_unstable();
        for node in nodes {
            let Some(answer) = self.ask(&shared.cluster, node, &Question::Heard).await else {
                continue;
            };
            return Some(LayoutSeat {
                place: place.to_owned(),
                node: Bytes::copy_from_slice(&node.0),
                acceptor: Bytes::copy_from_slice(&answer.acceptor.0),
            });
        }
        None
    }
}

/// The places of a layout, with their acceptors.
pub(crate) fn seats_of(layout: &LayoutRow) -> Vec<Seat> {
    let seats = layout.seats.iter().filter_map(|seat| {
        let acceptor = AcceptorId(seat.acceptor.as_ref().try_into().ok()?);
        Some(Seat { place: seat.place.clone(), node: NodeId::from_slice(&seat.node)?, acceptor })
    });
    seats.collect()
}

/// An outcome that is no decision.
pub(crate) fn words(outcome: &Outcome) -> String {
    let places = |missing: &[dtm_register::Missing]| {
        let names: Vec<_> = missing.iter().map(|of| of.seat.place.as_str()).collect();
        names.join(", ")
    };
    match outcome {
        Outcome::Chosen(decision) | Outcome::Lost(decision) | Outcome::Overtaken(decision) => {
            format!("decision {} is in force", decision.number)
        }
        Outcome::Empty => "the register was not founded yet".to_owned(),
        Outcome::NoQuorum(missing) => {
            format!("too few places answer; without an answer: {}", places(missing))
        }
        Outcome::Unknown { missing, .. } => {
            format!("it may be decided or not; without an answer: {}", places(missing))
        }
        Outcome::Backwards { known, .. } => {
            format!("the places hold less than decision {}, which was made", known.number)
        }
    }
}
