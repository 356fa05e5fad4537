//! A TCP connection with a read buffer, for the small protocol clients.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::error::Error;

const READ_BYTES: usize = 16 << 10;

/// A connection of one arm.
#[derive(Debug)]
pub struct Wire {
    arm: &'static str,
    stream: TcpStream,
    /// Bytes that came and are not taken yet.
    pub inbound: BytesMut,
}

impl Wire {
    /// Connects to a loopback port.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(arm: &'static str, port: u16) -> Result<Self, Error> {
        let what = || Error::io(format!("connect to {arm} on port {port}"));
        let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(what())?;
        stream.set_nodelay(true).map_err(what())?;
        Ok(Self { arm, stream, inbound: BytesMut::with_capacity(READ_BYTES) })
    }

    /// Waits for more bytes. Cancel-safe.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn read_more(&mut self) -> Result<(), Error> {
        self.inbound.reserve(READ_BYTES);
        let read = self.stream.read_buf(&mut self.inbound).await;
        match read.map_err(Error::io(format!("read from {}", self.arm)))? {
            0 => Err(Error::protocol(self.arm, "the connection was closed")),
            _ => Ok(()),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes).await.map_err(Error::io(format!("write to {}", self.arm)))
    }
}
