//! The part of AMQP 0-9-1 that publishing with confirms and reading back need.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::error::Error;
use crate::peers::wire::Wire;

const ARM: &str = "rabbitmq";
const WAIT: Duration = Duration::from_secs(20);
const FRAME_BYTES: usize = 128 << 10;
const CHANNEL: u16 = 1;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xce;

/// Class and method of the protocol.
type Method = (u16, u16);
const START: Method = (10, 10);
const TUNE: Method = (10, 30);
const OPENED: Method = (10, 41);
const CLOSE: Method = (10, 50);
const CHANNEL_OPENED: Method = (20, 11);
const CHANNEL_CLOSE: Method = (20, 40);
const DECLARED: Method = (50, 11);
const QOS_SET: Method = (60, 11);
const CONSUMING: Method = (60, 21);
const DELIVER: Method = (60, 60);
const ACK: Method = (60, 80);
const NACK: Method = (60, 120);
const CONFIRMING: Method = (85, 11);

/// What the server says after the opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Published messages are safe: one tag, or all up to it.
    Ack {
        /// Delivery tag, from 1 in the order of publishing.
        tag: u64,
        /// All up to the tag.
        multiple: bool,
    },
    /// A consumed message.
    Delivery(Bytes),
}

struct Frame {
    kind: u8,
    payload: Bytes,
}

/// One connection with one channel.
#[derive(Debug)]
pub struct Amqp {
    wire: Wire,
    body: BytesMut,
    body_left: u64,
}

impl Amqp {
    /// Connects as guest and opens a channel.
    ///
    /// # Errors
    /// When the server does not answer as the protocol says within 20 s.
    pub async fn open(port: u16) -> Result<Self, Error> {
        let wire = Wire::connect(ARM, port).await?;
        let mut amqp = Self { wire, body: BytesMut::new(), body_left: 0 };
        amqp.wire.write(b"AMQP\x00\x00\x09\x01").await?;
        amqp.expect(START).await?;
        let mut out = BytesMut::new();
        method(&mut out, 0, (10, 11), |args| {
            args.put_u32(0);
            short(args, "PLAIN");
            long(args, b"\0guest\0guest");
            short(args, "en_US");
        });
        amqp.wire.write(&out).await?;
        amqp.expect(TUNE).await?;
        out.clear();
        method(&mut out, 0, (10, 31), |args| {
            args.put_u16(1);
            args.put_u32(u32::try_from(FRAME_BYTES).expect("small"));
            args.put_u16(0);
        });
        method(&mut out, 0, (10, 40), |args| {
            short(args, "/");
            short(args, "");
            args.put_u8(0);
        });
        method(&mut out, CHANNEL, (20, 10), |args| short(args, ""));
        amqp.wire.write(&out).await?;
        amqp.expect(OPENED).await?;
        amqp.expect(CHANNEL_OPENED).await?;
        Ok(amqp)
    }

    /// Declares a quorum queue of three members that is led by the node of this connection, or
    /// (`passive`) only looks at it. Returns how many messages are ready.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn declare(&mut self, queue: &str, passive: bool) -> Result<u32, Error> {
        let mut out = BytesMut::new();
        method(&mut out, CHANNEL, (50, 10), |args| {
            args.put_u16(0);
            short(args, queue);
            args.put_u8(if passive { 0b11 } else { 0b10 });
            let mut table = BytesMut::new();
            if !passive {
                for (key, value) in
                    [("x-queue-type", "quorum"), ("x-queue-leader-locator", "client-local")]
                {
                    short(&mut table, key);
                    table.put_u8(b'S');
                    long(&mut table, value.as_bytes());
                }
            }
            long(args, &table);
        });
        self.wire.write(&out).await?;
        let mut answer = self.expect(DECLARED).await?;
        let name = usize::from(answer.get_u8());
        answer.advance(name);
        Ok(answer.get_u32())
    }

    /// Turns publisher confirms on.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn confirm(&mut self) -> Result<(), Error> {
        let mut out = BytesMut::new();
        method(&mut out, CHANNEL, (85, 10), |args| args.put_u8(0));
        self.wire.write(&out).await?;
        self.expect(CONFIRMING).await.map(|_| ())
    }

    /// Starts `consumers` consumers that acknowledge nothing, with room for 65,535 messages each.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn consume(&mut self, queue: &str, consumers: u32) -> Result<(), Error> {
        let mut out = BytesMut::new();
        method(&mut out, CHANNEL, (60, 10), |args| {
            args.put_u32(0);
            args.put_u16(u16::MAX);
            args.put_u8(0);
        });
        self.wire.write(&out).await?;
        self.expect(QOS_SET).await?;
        out.clear();
        for consumer in 0..consumers {
            method(&mut out, CHANNEL, (60, 20), |args| {
                args.put_u16(0);
                short(args, queue);
                short(args, &format!("c{consumer}"));
                args.put_u8(0);
                args.put_u32(0);
            });
        }
        self.wire.write(&out).await
    }

    /// Appends the publishing of a persistent message to `out`.
    pub fn put_publish(queue: &str, payload: &[u8], out: &mut BytesMut) {
        method(out, CHANNEL, (60, 40), |args| {
            args.put_u16(0);
            short(args, "");
            short(args, queue);
            args.put_u8(0);
        });
        frame(out, HEADER, CHANNEL, |args| {
            args.put_u16(60);
            args.put_u16(0);
            args.put_u64(payload.len() as u64);
            args.put_u16(0x1000);
            args.put_u8(2);
        });
        for part in payload.chunks(FRAME_BYTES - 8) {
            frame(out, BODY, CHANNEL, |args| args.put_slice(part));
        }
    }

    /// Writes what was put together.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.wire.write(bytes).await
    }

    /// Waits for the next event. Cancel-safe.
    ///
    /// # Errors
    /// When a message is refused or the connection ends.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.buffered()? {
                return Ok(event);
            }
            self.wire.read_more().await?;
        }
    }

    /// The next event that is here already.
    ///
    /// # Errors
    /// When a message is refused.
    pub fn buffered(&mut self) -> Result<Option<Event>, Error> {
        while let Some(frame) = self.take_frame()? {
            if let Some(event) = self.event(frame)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn event(&mut self, frame: Frame) -> Result<Option<Event>, Error> {
        let mut payload = frame.payload;
        match frame.kind {
            HEADER => {
                self.body_left = payload.slice(4..12).get_u64();
                self.body.clear();
                Ok(None)
            }
            BODY => {
                self.body_left = self.body_left.saturating_sub(payload.len() as u64);
                if self.body.is_empty() && self.body_left == 0 {
                    return Ok(Some(Event::Delivery(payload)));
                }
                self.body.extend_from_slice(&payload);
                Ok((self.body_left == 0).then(|| Event::Delivery(self.body.split().freeze())))
            }
            METHOD => match (payload.get_u16(), payload.get_u16()) {
                ACK => {
                    let tag = payload.get_u64();
                    Ok(Some(Event::Ack { tag, multiple: payload.get_u8() & 1 == 1 }))
                }
                NACK => Err(Error::protocol(ARM, "a message was refused")),
                DELIVER | CONSUMING => Ok(None),
                other => Err(unexpected(other, &payload)),
            },
            _ => Ok(None),
        }
    }

    async fn expect(&mut self, wanted: Method) -> Result<Bytes, Error> {
        let wait = async {
            loop {
                if let Some(frame) = self.take_frame()? {
                    if frame.kind != METHOD {
                        continue;
                    }
                    let mut payload = frame.payload;
                    let got = (payload.get_u16(), payload.get_u16());
                    if got == wanted {
                        return Ok(payload);
                    }
                    return Err(unexpected(got, &payload));
                }
                self.wire.read_more().await?;
            }
        };
        tokio::time::timeout(WAIT, wait)
            .await
            .map_err(|_| Error::Timeout { what: format!("AMQP {wanted:?}"), seconds: 20 })?
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, Error> {
        let Some(head) = self.wire.inbound.get(..7) else {
            return Ok(None);
        };
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let kind = head[0];
        if size > FRAME_BYTES {
            return Err(Error::protocol(ARM, format!("a frame of {size} bytes")));
        }
        if self.wire.inbound.len() < 7 + size + 1 {
            return Ok(None);
        }
        let mut frame = self.wire.inbound.split_to(7 + size + 1).freeze();
        if frame[7 + size] != END {
            return Err(Error::protocol(ARM, "a frame without its end"));
        }
        frame.advance(7);
        frame.truncate(size);
        Ok(Some(Frame { kind, payload: frame }))
    }
}

fn unexpected(method: Method, payload: &Bytes) -> Error {
    let text = match method {
        CLOSE | CHANNEL_CLOSE => String::from_utf8_lossy(payload.get(3..).unwrap_or_default()),
        _ => "".into(),
    };
    Error::protocol(ARM, format!("method {method:?} {text}"))
}

fn frame(out: &mut BytesMut, kind: u8, channel: u16, fill: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    out.put_u16(channel);
    let at = out.len();
    out.put_u32(0);
    fill(out);
    let size = u32::try_from(out.len() - at - 4).expect("frames are small");
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
    out.put_u8(END);
}

fn method(out: &mut BytesMut, channel: u16, id: Method, fill: impl FnOnce(&mut BytesMut)) {
    frame(out, METHOD, channel, |args| {
        args.put_u16(id.0);
        args.put_u16(id.1);
        fill(args);
    });
}

fn short(out: &mut BytesMut, text: &str) {
    out.put_u8(u8::try_from(text.len()).expect("short strings are short"));
    out.put_slice(text.as_bytes());
}

fn long(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("small"));
    out.put_slice(bytes);
}
