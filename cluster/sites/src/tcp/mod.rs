//! The other kind of channel: TLS over TCP, for paths that let no UDP through and so that the standby
//! is of another kind than the original.
//!
//! A *session* is what a QUIC connection is: a TLS connection over which both ends tell each second or
//! two that they are there, and a further one for each lane. Its lanes end with it. Only the node that
//! called makes connections, so that a firewall that lets calls through in one direction is enough; the
//! other end asks for one where it opens a lane.
//!
//! ```text
//!  caller                                      called
//!    ── hello: line, session S ────────────────▶      the session; ping and pong from both ends
//!    ── hello: lane, session S ────────────────▶      a lane of the caller, its name next
//!    ◀────────────────────── want 7 (over S) ──
//!    ── hello: wanted 7, session S ────────────▶      a lane of the called, its name comes back
//!
//!  hello   version 1 ▏ kind 1 ▏ session 16 ▏ number 8, big endian
//!  frame   kind 1 ▏ number 8, big endian
//! ```
//! Every connection has a handshake of its own, in both directions, and is of the node that the session
//! is of.

mod call;
mod lane;
mod listen;
mod session;

pub(crate) use call::{Call, call};
pub(crate) use lane::TcpLane;
pub(crate) use listen::connections;
pub(crate) use session::Session;

use tokio_rustls::TlsStream;

/// A connection after its handshake.
type Io = TlsStream<tokio::net::TcpStream>;

/// What is spoken.
const PROTOCOL: &[u8] = b"dtm-sites-tcp/1";
const VERSION: u8 = 1;
const HELLO_BYTES: usize = 26;
const FRAME_BYTES: usize = 9;

/// Drawn by the caller.
type SessionId = [u8; 16];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Only to show that the path works.
    Probe,
    /// A session.
    Line,
    /// A lane of the caller.
    Lane,
    /// The lane that the called end asked for under this number.
    Wanted(u64),
}

/// The first bytes of a connection, from its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hello {
    purpose: Purpose,
    session: SessionId,
}

impl Hello {
    fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let (kind, number) = match self.purpose {
            Purpose::Probe => (0, 0),
            Purpose::Line => (1, 0),
            Purpose::Lane => (2, 0),
            Purpose::Wanted(number) => (3, number),
        };
        let mut bytes = [0; HELLO_BYTES];
        bytes[..2].copy_from_slice(&[VERSION, kind]);
        bytes[2..18].copy_from_slice(&self.session);
        bytes[18..].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let (session, number) = (bytes[2..18].try_into().ok()?, bytes[18..].try_into().ok()?);
        let purpose = match (bytes[0], bytes[1], u64::from_be_bytes(number)) {
            (VERSION, 0, 0) => Purpose::Probe,
            (VERSION, 1, 0) => Purpose::Line,
            (VERSION, 2, 0) => Purpose::Lane,
            (VERSION, 3, number) => Purpose::Wanted(number),
            _ => return None,
        };
        Some(Self { purpose, session })
    }
}

/// What the ends of a session tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// To be sent back.
    Ping(u64),
    Pong(u64),
    /// The called end asks for a connection.
    Want(u64),
}

impl Frame {
    fn to_bytes(self) -> [u8; FRAME_BYTES] {
        let (kind, number) = match self {
            Self::Ping(number) => (0, number),
            Self::Pong(number) => (1, number),
            Self::Want(number) => (2, number),
        };
        let mut bytes = [kind; FRAME_BYTES];
        bytes[1..].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; FRAME_BYTES]) -> Option<Self> {
        let number = u64::from_be_bytes(bytes[1..].try_into().ok()?);
        match bytes[0] {
            0 => Some(Self::Ping(number)),
            1 => Some(Self::Pong(number)),
            2 => Some(Self::Want(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_as_it_was_written_and_nothing_else_is() {
        let session = [7; 16];
        for purpose in [Purpose::Probe, Purpose::Line, Purpose::Lane, Purpose::Wanted(u64::MAX)] {
            let hello = Hello { purpose, session };
            assert_eq!(Hello::from_bytes(&hello.to_bytes()), Some(hello));
        }
        for (at, byte) in [(0, 0), (0, 2), (1, 4), (25, 1)] {
            let mut bytes = Hello { purpose: Purpose::Line, session }.to_bytes();
            bytes[at] = byte;
            assert_eq!(Hello::from_bytes(&bytes), None, "{bytes:?}");
        }
        for frame in [Frame::Ping(1), Frame::Pong(u64::MAX), Frame::Want(0)] {
            assert_eq!(Frame::from_bytes(frame.to_bytes()), Some(frame));
        }
        assert_eq!(Frame::from_bytes([3; FRAME_BYTES]), None);
    }
}
