//! How a bundle lies in the log: version byte, CRC32C (little endian) of what follows, encoded
//! [`Bundle`](crate::command::Bundle). Replicated verbatim: never decoded and encoded again.
//!
//! ```text
//! +---------+-----------+---------------------------------------------+
//! | version | crc32c LE | Bundle: time_us, node, commands ...         |
//! | 1 byte  | 4 bytes   | (protobuf; command = tag 0x1a, length, ...)  |
//! +---------+-----------+---------------------------------------------+
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::command::Bundle;

/// Version of the bundle that a group is written in from its beginning.
pub const VERSION: u8 = 1;
/// Highest version that this software applies; a group rises to it by `dtm cluster upgrade`.
pub const VERSION_MAX: u8 = 2;
/// Bytes before the protobuf.
pub const PREFIX_BYTES: usize = 5;
/// Largest command, bytes. With the bundle and the entry around it, it fits a message between nodes
/// (16 MiB) and a block of the log of every node: the least of `log.segment_bytes` sees to that.
pub const COMMAND_BYTES_MAX: usize = 15 << 20;

/// Why a stored bundle cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Fewer bytes than the prefix.
    #[error("bundle is {0} bytes long, shorter than its prefix")]
    Short(usize),
    /// Written by newer software: the group stops on this node.
    #[error("bundle version {0} is not known to this software")]
    UnknownVersion(u8),
    /// The bytes changed after they were written.
    #[error("bundle checksum does not match: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// What the prefix says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Checksum fine, protobuf not: written by faulty software.
    #[error("bundle does not decode: {0}")]
    Malformed(String),
}

/// Collects commands that are already encoded into one bundle.
pub struct Builder {
    buffer: BytesMut,
    commands: usize,
}

impl Builder {
    /// Starts a bundle; `capacity` is a hint in bytes.
    pub fn new(time_us: i64, node: &[u8; 16], capacity: usize) -> Self {
        Self::of_version(VERSION, time_us, node, capacity)
    }

    /// Starts a bundle in the version that its group is at.
    pub fn of_version(version: u8, time_us: i64, node: &[u8; 16], capacity: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(capacity + 64);
        buffer.put_u8(version);
        buffer.put_u32_le(0);
        let head = Bundle { time_us, node: Bytes::copy_from_slice(node), commands: Vec::new() };
        head.encode_raw(&mut buffer);
        Self { buffer, commands: 0 }
    }

    /// Adds one encoded [`Command`](crate::command::Command).
    pub fn push(&mut self, command: &[u8]) {
        const COMMANDS_TAG: u8 = 3 << 3 | 2;
        self.buffer.put_u8(COMMANDS_TAG);
        prost::encoding::encode_varint(command.len() as u64, &mut self.buffer);
        self.buffer.put_slice(command);
        self.commands += 1;
    }

    /// Commands so far.
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Closes the bundle: from here on its bytes never change.
    pub fn finish(mut self) -> Bytes {
        let crc = crc32c::crc32c(&self.buffer[PREFIX_BYTES..]);
        self.buffer[1..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
        self.buffer.freeze()
    }
}

/// Reads a bundle; payload fields share the input's memory.
pub fn decode(bytes: &Bytes) -> Result<Bundle, Error> {
    decode_up_to(VERSION_MAX, bytes)
}

/// [`decode`] for software that knows versions up to this one.
pub fn decode_up_to(version_max: u8, bytes: &Bytes) -> Result<Bundle, Error> {
    if bytes.len() < PREFIX_BYTES {
        return Err(Error::Short(bytes.len()));
    }
    if !(VERSION..=version_max).contains(&bytes[0]) {
        return Err(Error::UnknownVersion(bytes[0]));
    }
    let stored = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
    let computed = crc32c::crc32c(&bytes[PREFIX_BYTES..]);
    if stored != computed {
        return Err(Error::Checksum { stored, computed });
    }
    Bundle::decode(bytes.slice(PREFIX_BYTES..)).map_err(|e| Error::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{CloseSession, Command, command::Op};

    fn command(stream: &str) -> Command {
        let op = Op::CloseSession(CloseSession { stream: stream.into(), ..Default::default() });
        Command { op: Some(op), ..Default::default() }
    }

    #[test]
    fn builder_writes_what_protobuf_would() {
        let mut builder = Builder::new(7, &[9; 16], 100);
        for stream in ["a", "b"] {
            builder.push(&command(stream).encode_to_vec());
        }
        let bytes = builder.finish();
        let expected = Bundle {
            time_us: 7,
            node: vec![9; 16].into(),
            commands: vec![command("a"), command("b")],
        };
        assert_eq!(&bytes[PREFIX_BYTES..], expected.encode_to_vec());
        assert_eq!(decode(&bytes), Ok(expected));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut builder = Builder::new(7, &[9; 16], 100);
        builder.push(&command("stream").encode_to_vec());
        let bytes = builder.finish();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged.into()).is_err(), "bit {bit}");
        }
        assert_eq!(decode(&bytes.slice(..3)), Err(Error::Short(3)));
        let later = Builder::of_version(2, 7, &[9; 16], 0).finish();
        assert_eq!(decode_up_to(1, &later), Err(Error::UnknownVersion(2)));
        assert!(decode_up_to(2, &later).is_ok());
        let never = Builder::of_version(0, 7, &[9; 16], 0).finish();
        assert_eq!(decode_up_to(2, &never), Err(Error::UnknownVersion(0)));
    }
}
