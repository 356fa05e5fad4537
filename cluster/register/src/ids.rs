//! Who speaks: acceptors, proposers, and the order of their attempts.
//!
//! ```text
//!  Ballot = (counter, proposer)     1.a < 1.b < 2.a < …     no two attempts share one
//! ```

use std::fmt;

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id16! {
    /// One life of an acceptor's file. Drawn at random when the file is made: an acceptor that lost
    /// its file comes back as another, so what it promised before is not counted on.
    AcceptorId
}
id16! {
    /// One operation of one proposer. Drawn at random for each and never used again, because two
    /// values under one ballot would break agreement.
    ProposerId
}

/// One attempt. Higher ones win over lower ones; unique because [`ProposerId`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Rises with each attempt; from 1.
    pub counter: u64,
    /// Who attempts.
    pub proposer: ProposerId,
}

impl Ballot {
    /// Highest counter that a message may carry: nobody can use ballots up.
    pub const COUNTER_MAX: u64 = 1 << 62;
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.counter, self.proposer)
    }
}
