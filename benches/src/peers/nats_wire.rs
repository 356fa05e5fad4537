//! The part of the NATS client protocol that publishing and reading back need.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use serde_json::Value;

use crate::error::Error;
use crate::peers::wire::Wire;

const ARM: &str = "nats";
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// A message that came in.
#[derive(Debug, Clone)]
pub struct Message {
    /// Subject.
    pub subject: Bytes,
    /// Reply subject, empty without one.
    pub reply: Bytes,
    /// Status of a message that has only headers ("503" no responders, "404" no messages …).
    pub status: Option<u16>,
    /// Payload.
    pub payload: Bytes,
}

/// One client connection, subscribed to its own inbox.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    inbox: String,
    requests: u64,
}

impl Connection {
    /// Connects and subscribes to `inbox.*`.
    ///
    /// # Errors
    /// When the server does not answer as the protocol says.
    pub async fn open(port: u16, inbox: &str) -> Result<Self, Error> {
        let wire = Wire::connect(ARM, port).await?;
        let mut connection = Self { wire, inbox: inbox.to_owned(), requests: 0 };
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\
             \"protocol\":1,\"lang\":\"rust\",\"version\":\"1\"}}\r\nSUB {inbox}.* 1\r\nPING\r\n"
        );
        connection.wire.write(hello.as_bytes()).await?;
        let wait = async {
            loop {
                if connection.parse_until_pong()? {
                    return Ok::<(), Error>(());
                }
                connection.wire.read_more().await?;
            }
        };
        tokio::time::timeout(REQUEST_WAIT, wait)
            .await
            .map_err(|_| Error::Timeout { what: "PONG".to_owned(), seconds: 10 })??;
        Ok(connection)
    }

    fn parse_until_pong(&mut self) -> Result<bool, Error> {
        while let Some(line) = self.line() {
            if line.starts_with(b"PONG") {
                return Ok(true);
            }
            if line.starts_with(b"-ERR") {
                return Err(Error::protocol(ARM, String::from_utf8_lossy(&line)));
            }
        }
        Ok(false)
    }

    fn line(&mut self) -> Option<Bytes> {
        let end = self.wire.inbound.windows(2).position(|pair| pair == b"\r\n")?;
        let line = self.wire.inbound.split_to(end).freeze();
        self.wire.inbound.advance(2);
        Some(line)
    }

    /// Appends a publish with the reply subject `INBOX.token` to `out`.
    pub fn put_publish(&self, subject: &str, token: u64, payload: &[u8], out: &mut Vec<u8>) {
        use std::io::Write as _;
        let inbox = &self.inbox;
        write!(out, "PUB {subject} {inbox}.{token} {}\r\n", payload.len()).expect("a vector grows");
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    /// Writes what was put together.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.wire.write(bytes).await
    }

    /// The number behind the last dot of a reply to this connection.
    pub fn token(message: &Message) -> Option<u64> {
        let at = message.subject.iter().rposition(|byte| *byte == b'.')? + 1;
        std::str::from_utf8(&message.subject[at..]).ok()?.parse().ok()
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// When the server reports one or the connection ends.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(message) = self.buffered().await? {
                return Ok(message);
            }
            self.wire.read_more().await?;
        }
    }

    /// The next message that is here already.
    ///
    /// # Errors
    /// When the server reports one.
    pub async fn buffered(&mut self) -> Result<Option<Message>, Error> {
        loop {
            let Some(end) = self.wire.inbound.windows(2).position(|pair| pair == b"\r\n") else {
                return Ok(None);
            };
            let line = &self.wire.inbound[..end];
            if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
                return self.message(end);
            }
            let line = self.line().expect("seen just now");
            if line.starts_with(b"PING") {
                self.wire.write(b"PONG\r\n").await?;
            } else if line.starts_with(b"-ERR") {
                return Err(Error::protocol(ARM, String::from_utf8_lossy(&line)));
            }
        }
    }

    fn message(&mut self, end: usize) -> Result<Option<Message>, Error> {
        let line = std::str::from_utf8(&self.wire.inbound[..end])
            .map_err(|_| Error::protocol(ARM, "a line that is not text"))?;
        let bad = || Error::protocol(ARM, format!("message line {line:?}"));
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let headed = fields[0] == "HMSG";
        let numbers = if headed { 2 } else { 1 };
        let total: usize = fields.last().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
        let head: usize = match headed {
            true => fields[fields.len() - 2].parse().map_err(|_| bad())?,
            false => 0,
        };
        if head > total || fields.len() < 3 + numbers {
            return Err(bad());
        }
        let has_reply = fields.len() == 4 + numbers;
        let subject_at = fields[0].len() + 1;
        let subject = subject_at..subject_at + fields[1].len();
        let reply = has_reply.then(|| {
            let at = fields[3].as_ptr() as usize - line.as_ptr() as usize;
            at..at + fields[3].len()
        });
        if self.wire.inbound.len() < end + 2 + total + 2 {
            return Ok(None);
        }
        let whole = self.wire.inbound.split_to(end + 2 + total + 2).freeze();
        let headers = &whole[end + 2..end + 2 + head];
        let status = headers.get(9..12).filter(|_| headers.starts_with(b"NATS/1.0 "));
        Ok(Some(Message {
            subject: whole.slice(subject),
            reply: reply.map_or_else(Bytes::new, |range| whole.slice(range)),
            status: status.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()),
            payload: whole.slice(end + 2 + head..end + 2 + total),
        }))
    }

    /// Sends a JSON request and waits for its answer; bounded.
    ///
    /// # Errors
    /// When there is no answer, or the answer holds an error.
    pub async fn request(&mut self, subject: &str, body: &Value) -> Result<Value, Error> {
        self.requests += 1;
        let token = u64::MAX - self.requests;
        let mut out = Vec::new();
        self.put_publish(subject, token, body.to_string().as_bytes(), &mut out);
        self.write(&out).await?;
        let wait = async {
            loop {
                let message = self.next().await?;
                if Self::token(&message) == Some(token) {
                    return Ok::<Message, Error>(message);
                }
            }
        };
        let message = tokio::time::timeout(REQUEST_WAIT, wait)
            .await
            .map_err(|_| Error::Timeout { what: subject.to_owned(), seconds: 10 })??;
        if let Some(status) = message.status {
            return Err(Error::protocol(ARM, format!("{subject}: status {status}")));
        }
        let value: Value = serde_json::from_slice(&message.payload)
            .map_err(|error| Error::protocol(ARM, error.to_string()))?;
        match value.get("error") {
            Some(error) => Err(Error::protocol(ARM, format!("{subject}: {error}"))),
            None => Ok(value),
        }
    }
}
