//! Protobuf of the register (`dtm.register.v1`), derived here: the crate needs no gRPC.
//!
//! ```text
//!  State ─ Accepted ─ Entry ─ Decision ─ Seat      stored, and inside of messages
//!  Question, Answer                                 between nodes only
//! ```
//! Numbers of fields are final: never renumbered, removed or used for something else. What the
//! fields mean stands with the types of the same names in the crate.

#![allow(missing_docs, clippy::derive_partial_eq_without_eq)]

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Ballot {
    #[prost(uint64, tag = "1")]
    pub(crate) counter: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) proposer: Vec<u8>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Seat {
    #[prost(string, tag = "1")]
    pub(crate) place: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) node: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) acceptor: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Cause {
    Unspecified = 0,
    Founded = 1,
    Promoted = 2,
    Forced = 3,
    Returned = 4,
    AcceptorReplaced = 5,
    Intended = 6,
    Withdrawn = 7,
    Detached = 8,
    Attached = 9,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Decision {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    #[prost(string, tag = "3")]
    pub(crate) primary: String,
    #[prost(string, tag = "4")]
    pub(crate) standby: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) seats: Vec<Seat>,
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) coordinator: Vec<u8>,
    #[prost(enumeration = "Cause", tag = "7")]
    pub(crate) cause: i32,
    #[prost(int64, tag = "8")]
    pub(crate) at_us: i64,
    #[prost(string, tag = "9")]
    pub(crate) by: String,
    #[prost(string, tag = "10")]
    pub(crate) reason: String,
    #[prost(bytes = "vec", tag = "11")]
    pub(crate) intends: Vec<u8>,
    #[prost(uint64, tag = "12")]
    pub(crate) detached_layout: u64,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Entry {
    #[prost(message, optional, tag = "1")]
    pub(crate) decision: Option<Decision>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) before: Vec<Seat>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Accepted {
    #[prost(message, optional, tag = "1")]
    pub(crate) ballot: Option<Ballot>,
    #[prost(message, optional, tag = "2")]
    pub(crate) entry: Option<Entry>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct State {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) acceptor: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(crate) promised: Option<Ballot>,
    #[prost(message, optional, tag = "3")]
    pub(crate) accepted: Option<Accepted>,
}

#[derive(Clone, Copy, PartialEq, ::prost::Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Claim {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    #[prost(string, tag = "3")]
    pub(crate) site: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Question {
    #[prost(oneof = "question::Asks", tags = "1, 2, 3, 4")]
    pub(crate) asks: Option<question::Asks>,
}

pub(crate) mod question {
    #[derive(Clone, PartialEq, ::prost::Oneof)]
    pub(crate) enum Asks {
        #[prost(message, tag = "1")]
        Prepare(super::Ballot),
        #[prost(message, tag = "2")]
        Accept(Box<super::Accepted>),
        #[prost(message, tag = "3")]
        Confirm(super::Claim),
        #[prost(message, tag = "4")]
        Heard(super::Empty),
    }
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Promised {
    #[prost(message, optional, tag = "1")]
    pub(crate) ballot: Option<Ballot>,
    #[prost(message, optional, tag = "2")]
    pub(crate) accepted: Option<Accepted>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Higher {
    #[prost(message, optional, tag = "1")]
    pub(crate) asked: Option<Ballot>,
    #[prost(message, optional, tag = "2")]
    pub(crate) promised: Option<Ballot>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Changed {
    #[prost(message, optional, tag = "1")]
    pub(crate) accepted: Option<Decision>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Heard {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) ago_us: Option<u64>,
    #[prost(uint64, tag = "3")]
    pub(crate) up_for_us: u64,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub(crate) struct Answer {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) acceptor: Vec<u8>,
    #[prost(oneof = "answer::Says", tags = "2, 3, 4, 5, 6, 7")]
    pub(crate) says: Option<answer::Says>,
}

pub(crate) mod answer {
    #[derive(Clone, PartialEq, ::prost::Oneof)]
    pub(crate) enum Says {
        #[prost(message, tag = "2")]
        Promised(super::Promised),
        #[prost(message, tag = "3")]
        Accepted(super::Ballot),
        #[prost(message, tag = "4")]
        Higher(super::Higher),
        #[prost(uint64, tag = "5")]
        Confirmed(u64),
        #[prost(message, tag = "6")]
        Changed(super::Changed),
        #[prost(message, tag = "7")]
        Heard(super::Heard),
    }
}
