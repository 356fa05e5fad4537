//! Messages and the stored state as bytes.
//!
//! ```text
//!  between nodes    Question, Answer            protobuf; the connection protects it
//!  on disk          ┌─────────┬───────────┬──────────────────────────────────────┐
//!                   │ version │ crc32c LE │ State { acceptor, promised, accepted }│
//!                   │ 1 byte  │ 4 bytes   │ or Decision (protobuf)               │
//!                   └─────────┴───────────┴──────────────────────────────────────┘
//! ```
//! The checksum covers what follows it. Final like every stored format: fields are never renumbered
//! or reused.

use std::time::Duration;

use dtm_types::{Incarnation, NodeId};
use prost::Message;

use crate::decision::{Act, Cause, Illegal};
use crate::entry::{Accepted, Entry};
use crate::proto as m;
use crate::{
    AcceptorId, Answer, Ballot, Claim, Decision, HeardOf, ProposerId, Question, Says, Seat,
};

/// Version of what is stored.
const VERSION: u8 = 1;
const PREFIX_BYTES: usize = 5;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the prefix.
    #[error("{0} bytes are too few")]
    Short(usize),
    /// Written by newer software, or damaged.
    #[error("version {0} is not known to this software")]
    UnknownVersion(u8),
    /// The bytes changed after they were written.
    #[error("checksum does not match: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// What the prefix says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Not protobuf.
    #[error("does not decode: {0}")]
    Protobuf(String),
    /// A field is missing or has a length or value that is not allowed.
    #[error("field {0} is missing or not allowed")]
    Field(&'static str),
    /// A decision that cannot stand.
    #[error("holds no decision that can stand")]
    Illegal(#[from] Illegal),
}

/// The state of an acceptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) acceptor: AcceptorId,
    pub(crate) promised: Option<Ballot>,
    pub(crate) accepted: Option<Accepted>,
}

impl State {
    pub(crate) fn encode(&self) -> Vec<u8> {
        stored(&m::State {
            acceptor: self.acceptor.0.to_vec(),
            promised: self.promised.as_ref().map(ballot_out),
            accepted: self.accepted.as_ref().map(accepted_out),
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let state: m::State = unstored(bytes)?;
        let promised = state.promised.map(|ballot| ballot_in(&ballot)).transpose()?;
        let accepted = state.accepted.map(accepted_in).transpose()?;
        if accepted.as_ref().map(|accepted| accepted.ballot) > promised {
            return Err(Malformed::Field("promised"));
        }
        Ok(Self { acceptor: AcceptorId(id(&state.acceptor, "acceptor")?), promised, accepted })
    }
}

impl Decision {
    /// As bytes that can lie on a disk: version, CRC32C, protobuf.
    pub fn encode_stored(&self) -> Vec<u8> {
        stored(&decision_out(self))
    }

    /// Reads what [`Decision::encode_stored`] wrote.
    pub fn decode_stored(bytes: &[u8]) -> Result<Self, Malformed> {
        let decision = decision_in(unstored(bytes)?)?;
        decision.check()?;
        Ok(decision)
    }
}

impl Question {
    /// As protobuf (`dtm.register.v1.Question`).
    pub fn encode(&self) -> Vec<u8> {
        use m::question::Asks;
        let asks = match self {
            Self::Prepare { ballot } => Asks::Prepare(ballot_out(ballot)),
            Self::Accept { ballot, entry } => Asks::Accept(Box::new(m::Accepted {
                ballot: Some(ballot_out(ballot)),
                entry: Some(entry_out(entry)),
            })),
            Self::Confirm(claim) => Asks::Confirm(m::Claim {
                number: claim.number,
                incarnation: claim.incarnation.0,
                site: claim.site.clone(),
            }),
            Self::Heard => Asks::Heard(m::Empty {}),
        };
        m::Question { asks: Some(asks) }.encode_to_vec()
    }

    /// Reads what a peer sent.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        use m::question::Asks;
        let message = m::Question::decode(bytes).map_err(protobuf)?;
        Ok(match message.asks.ok_or(Malformed::Field("asks"))? {
            Asks::Prepare(ballot) => Self::Prepare { ballot: ballot_in(&ballot)? },
            Asks::Accept(accept) => {
                let Accepted { ballot, entry } = accepted_in(*accept)?;
                Self::Accept { ballot, entry }
            }
            Asks::Confirm(claim) => Self::Confirm(Claim {
                number: claim.number,
                incarnation: Incarnation(claim.incarnation),
                site: claim.site,
            }),
            Asks::Heard(m::Empty {}) => Self::Heard,
        })
    }
}

impl Answer {
    /// As protobuf (`dtm.register.v1.Answer`).
    pub fn encode(&self) -> Vec<u8> {
        use m::answer::Says as Out;
        let says = match &self.says {
            Says::Promised { ballot, accepted } => Out::Promised(m::Promised {
                ballot: Some(ballot_out(ballot)),
                accepted: accepted.as_deref().map(accepted_out),
            }),
            Says::Accepted { ballot } => Out::Accepted(ballot_out(ballot)),
            Says::Higher { asked, promised } => Out::Higher(m::Higher {
                asked: Some(ballot_out(asked)),
                promised: Some(ballot_out(promised)),
            }),
            Says::Confirmed { number } => Out::Confirmed(*number),
            Says::Changed { accepted } => {
                Out::Changed(m::Changed { accepted: accepted.as_deref().map(decision_out) })
            }
            Says::Heard(heard) => Out::Heard(m::Heard {
                number: heard.number,
                ago_us: heard.ago.map(micros),
                up_for_us: micros(heard.up_for),
            }),
        };
        m::Answer { acceptor: self.acceptor.0.to_vec(), says: Some(says) }.encode_to_vec()
    }

    /// Reads what a peer sent.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        use m::answer::Says as In;
        let message = m::Answer::decode(bytes).map_err(protobuf)?;
        let says = match message.says.ok_or(Malformed::Field("says"))? {
            In::Promised(promised) => Says::Promised {
                ballot: some_ballot(promised.ballot.as_ref())?,
                accepted: promised.accepted.map(accepted_in).transpose()?.map(Box::new),
            },
            In::Accepted(ballot) => Says::Accepted { ballot: ballot_in(&ballot)? },
            In::Higher(higher) => Says::Higher {
                asked: some_ballot(higher.asked.as_ref())?,
                promised: some_ballot(higher.promised.as_ref())?,
            },
            In::Confirmed(number) => Says::Confirmed { number },
            In::Changed(changed) => {
                let accepted = changed.accepted.map(decision_in).transpose()?;
                if let Some(decision) = &accepted {
                    decision.check()?;
                }
                Says::Changed { accepted: accepted.map(Box::new) }
            }
            In::Heard(heard) => Says::Heard(HeardOf {
                number: heard.number,
                ago: heard.ago_us.map(Duration::from_micros),
                up_for: Duration::from_micros(heard.up_for_us),
            }),
        };
        Ok(Self { acceptor: AcceptorId(id(&message.acceptor, "acceptor")?), says })
    }
}

fn stored(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + body.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn unstored<M: Message + Default>(bytes: &[u8]) -> Result<M, Malformed> {
    let Some((prefix, body)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Err(Malformed::Short(bytes.len()));
    };
    let [version, crc @ ..] = *prefix;
    if version != VERSION {
        return Err(Malformed::UnknownVersion(version));
    }
    let (stored, computed) = (u32::from_le_bytes(crc), crc32c::crc32c(body));
    if stored != computed {
        return Err(Malformed::Checksum { stored, computed });
    }
    M::decode(body).map_err(protobuf)
}

fn protobuf(error: impl ToString) -> Malformed {
    Malformed::Protobuf(error.to_string())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn id(bytes: &[u8], field: &'static str) -> Result<[u8; 16], Malformed> {
    bytes.try_into().map_err(|_| Malformed::Field(field))
}

fn ballot_out(ballot: &Ballot) -> m::Ballot {
    m::Ballot { counter: ballot.counter, proposer: ballot.proposer.0.to_vec() }
}

fn ballot_in(ballot: &m::Ballot) -> Result<Ballot, Malformed> {
    if !(1..=Ballot::COUNTER_MAX).contains(&ballot.counter) {
        return Err(Malformed::Field("counter"));
    }
    let proposer = ProposerId(id(&ballot.proposer, "proposer")?);
    Ok(Ballot { counter: ballot.counter, proposer })
}

fn some_ballot(ballot: Option<&m::Ballot>) -> Result<Ballot, Malformed> {
    ballot_in(ballot.ok_or(Malformed::Field("ballot"))?)
}

fn accepted_out(accepted: &Accepted) -> m::Accepted {
    m::Accepted {
        ballot: Some(ballot_out(&accepted.ballot)),
        entry: Some(entry_out(&accepted.entry)),
    }
}

fn accepted_in(accepted: m::Accepted) -> Result<Accepted, Malformed> {
    let ballot = some_ballot(accepted.ballot.as_ref())?;
    let entry = accepted.entry.ok_or(Malformed::Field("entry"))?;
    let decision = decision_in(entry.decision.ok_or(Malformed::Field("decision"))?)?;
    let before = entry.before.into_iter().map(seat_in).collect::<Result<_, _>>()?;
    let entry = Entry { decision, before };
    entry.check()?;
    Ok(Accepted { ballot, entry })
}

fn entry_out(entry: &Entry) -> m::Entry {
    m::Entry {
        decision: Some(decision_out(&entry.decision)),
        before: entry.before.iter().map(seat_out).collect(),
    }
}

fn seat_out(seat: &Seat) -> m::Seat {
    m::Seat {
        place: seat.place.clone(),
        node: seat.node.0.to_vec(),
        acceptor: seat.acceptor.0.to_vec(),
    }
}

fn seat_in(seat: m::Seat) -> Result<Seat, Malformed> {
    Ok(Seat {
        node: NodeId(id(&seat.node, "node")?),
        acceptor: AcceptorId(id(&seat.acceptor, "acceptor")?),
        place: seat.place,
    })
}

fn decision_out(decision: &Decision) -> m::Decision {
    let cause = match decision.cause {
        Cause::Founded => m::Cause::Founded,
        Cause::Promoted => m::Cause::Promoted,
        Cause::Forced => m::Cause::Forced,
        Cause::Returned => m::Cause::Returned,
        Cause::AcceptorReplaced => m::Cause::AcceptorReplaced,
        Cause::Intended => m::Cause::Intended,
        Cause::Withdrawn => m::Cause::Withdrawn,
        Cause::Detached => m::Cause::Detached,
        Cause::Attached => m::Cause::Attached,
    };
    m::Decision {
        number: decision.number,
        incarnation: decision.incarnation.0,
        primary: decision.primary.clone(),
        standby: decision.standby.clone(),
        seats: decision.seats.iter().map(seat_out).collect(),
        coordinator: some_node_out(decision.coordinator),
        cause: cause.into(),
        at_us: decision.act.at_us,
        by: decision.act.by.clone(),
        reason: decision.act.reason.clone(),
        intends: some_node_out(decision.intends),
        detached_layout: decision.detached_layout,
    }
}

fn some_node_out(node: Option<NodeId>) -> Vec<u8> {
    node.map(|node| node.0.to_vec()).unwrap_or_default()
}

fn some_node_in(bytes: &[u8], field: &'static str) -> Result<Option<NodeId>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    NodeId::from_slice(bytes).map(Some).ok_or(Malformed::Field(field))
}

fn decision_in(decision: m::Decision) -> Result<Decision, Malformed> {
    let cause = match m::Cause::try_from(decision.cause) {
        Ok(m::Cause::Founded) => Cause::Founded,
        Ok(m::Cause::Promoted) => Cause::Promoted,
        Ok(m::Cause::Forced) => Cause::Forced,
        Ok(m::Cause::Returned) => Cause::Returned,
        Ok(m::Cause::AcceptorReplaced) => Cause::AcceptorReplaced,
        Ok(m::Cause::Intended) => Cause::Intended,
        Ok(m::Cause::Withdrawn) => Cause::Withdrawn,
        Ok(m::Cause::Detached) => Cause::Detached,
        Ok(m::Cause::Attached) => Cause::Attached,
        Ok(m::Cause::Unspecified) | Err(_) => return Err(Malformed::Field("cause")),
    };
    Ok(Decision {
        number: decision.number,
        incarnation: Incarnation(decision.incarnation),
        primary: decision.primary,
        standby: decision.standby,
        seats: decision.seats.into_iter().map(seat_in).collect::<Result<_, _>>()?,
        coordinator: some_node_in(&decision.coordinator, "coordinator")?,
        cause,
        act: Act { at_us: decision.at_us, by: decision.by, reason: decision.reason },
        intends: some_node_in(&decision.intends, "intends")?,
        detached_layout: decision.detached_layout,
    })
}
