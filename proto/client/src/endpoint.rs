//! Where the cluster is and how to be let in: seed addresses, TLS, credential.
//!
//! An [`Endpoint`] is cheap to clone and may be shared by many publishers. Each session gets its
//! own connection unless connections are shared; then there is one per address.

use crate::{Error, TlsFiles, status, tls};
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Uri};
use zeroize::Zeroizing;

/// Most connections that are shared at once; the pool is emptied beyond.
const SHARED_CONNECTIONS_MAX: usize = 64;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 credit for what servers send: reads are much larger than acks.
const RECEIVE_WINDOW_BYTES: u32 = 4 << 20;

/// How a caller says who it is, where it does not do so by certificate.
#[derive(Clone)]
pub struct Credential(MetadataValue<Ascii>);

impl Credential {
    /// A source key as it was shown once: `dtm_SOURCE_KEYID_SECRET`.
    ///
    /// # Errors
    /// [`Error::Credential`] where the form is another.
    pub fn source_key(key: &str) -> Result<Self, Error> {
        let key = key.trim();
        let parts = key.strip_prefix("dtm_").map_or(0, |rest| rest.rsplitn(3, '_').count());
        if parts != 3 {
            return Err(Error::Credential);
        }
        let text = Zeroizing::new(format!("Bearer {key}"));
        let mut value = MetadataValue::try_from(text.as_str()).map_err(|_| Error::Credential)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// The cluster as a client sees it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    seeds: Arc<[String]>,
    tls: Option<Arc<rustls::ClientConfig>>,
    credential: Option<Credential>,
    connect_timeout: Duration,
    shared: Option<Arc<Mutex<HashMap<String, Channel>>>>,
}

impl Endpoint {
    /// A cluster reached over TLS at one or more `host:port`.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Certificate`].
    pub fn new<S: Into<String>>(
        seeds: impl IntoIterator<Item = S>,
        files: &TlsFiles,
    ) -> Result<Self, Error> {
        let mut endpoint = Self::plaintext(seeds)?;
        endpoint.tls = Some(tls::client_config(files)?);
        Ok(endpoint)
    }

    /// Without TLS: for tests and for a proxy on the same machine that does TLS.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn plaintext<S: Into<String>>(seeds: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        let seeds: Vec<String> = seeds.into_iter().map(Into::into).collect();
        for seed in &seeds {
            split(seed)?;
        }
        if seeds.is_empty() {
            return Err(Error::Address { address: String::new() });
        }
        Ok(Self {
            seeds: seeds.into(),
            tls: None,
            credential: None,
            connect_timeout: Duration::from_secs(5),
            shared: None,
        })
    }

    /// Signs in with this credential.
    #[must_use]
    pub fn with_credential(mut self, credential: Credential) -> Self {
        self.credential = Some(credential);
        self
    }

    /// Longest wait for a connection; default 5 s.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// One connection per address for everything that uses this endpoint and its clones.
    #[must_use]
    pub fn with_shared_connections(mut self) -> Self {
        self.shared = Some(Arc::default());
        self
    }

    /// The seed addresses.
    #[must_use]
    pub fn seeds(&self) -> &[String] {
        &self.seeds
    }

    /// Longest wait for a connection.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// A connection to `address`.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Connect`]. Cancel-safe.
    pub async fn channel(&self, address: &str) -> Result<Channel, Error> {
        if let Some(pool) = &self.shared
            && let Some(channel) = pool.lock().get(address)
        {
            return Ok(channel.clone());
        }
        let channel = self.connect(address).await?;
        if let Some(pool) = &self.shared {
            let mut pool = pool.lock();
            if pool.len() >= SHARED_CONNECTIONS_MAX {
                pool.clear();
            }
            pool.insert(address.to_owned(), channel.clone());
        }
        Ok(channel)
    }

    /// A request that carries the credential.
    #[must_use]
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(credential) = &self.credential {
            request.metadata_mut().insert("authorization", credential.0.clone());
        }
        request
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Channel, Error>> {
        Box::pin(async move {
            let (host, _) = split(address)?;
            let scheme = if self.tls.is_some() { "https" } else { "http" };
            let uri = format!("{scheme}://{address}")
                .parse::<Uri>()
                .map_err(|_| Error::Address { address: address.to_owned() })?;
            let tls = match &self.tls {
                None => None,
                Some(config) => {
                    let name = ServerName::try_from(host.to_owned())
                        .map_err(|_| Error::Address { address: address.to_owned() })?;
                    Some((tokio_rustls::TlsConnector::from(config.clone()), name))
                }
            };
            let target: Arc<str> = address.into();
            let connector = tower::service_fn(move |_: Uri| dial(target.clone(), tls.clone()));
            Channel::builder(uri)
                .connect_timeout(self.connect_timeout)
                .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(RECEIVE_WINDOW_BYTES)
                .initial_connection_window_size(RECEIVE_WINDOW_BYTES * 2)
                .connect_with_connector(connector)
                .await
                .map_err(|e| Error::Connect {
                    address: address.to_owned(),
                    reason: in_words(status::innermost(&e)),
                })
        })
    }
}

/// What a connection is, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

type Dialled = TokioIo<Pin<Box<dyn Stream>>>;

async fn dial(
    address: Arc<str>,
    tls: Option<(tokio_rustls::TlsConnector, ServerName<'static>)>,
) -> io::Result<Dialled> {
    let tcp = TcpStream::connect(&*address).await?;
    // Acks are small and awaited.
    tcp.set_nodelay(true)?;
    let stream: Pin<Box<dyn Stream>> = match tls {
        None => Box::pin(tcp),
        Some((connector, name)) => Box::pin(connector.connect(name, tcp).await?),
    };
    Ok(TokioIo::new(stream))
}

/// A server under another CA, said so that the reader knows what to look at.
fn in_words(reason: String) -> String {
    if reason.contains("UnknownIssuer") {
        return "its certificate is not issued under the CA that this client uses: another cluster, or \
                the ca.pem of another one (docs/errors/wrong-cluster.md)"
            .to_owned();
    }
    reason
}

/// Host without brackets, and port.
fn split(address: &str) -> Result<(&str, u16), Error> {
    let wrong = || Error::Address { address: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err(wrong()) } else { Ok((host, port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in ["a:1", "127.0.0.1:9443", "[::1]:9443"] {
            assert!(split(good).is_ok(), "{good}");
        }
        for bad in ["", "a", ":1", "a:", "a:70000", "https://a"] {
            assert!(Endpoint::plaintext([bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn source_keys_are_checked_and_not_shown() {
        // A source code may hold an underscore itself.
        let key = Credential::source_key("dtm_tinh_01_0a1b_c2VjcmV0\n").expect("a key");
        assert!(!format!("{key:?}").contains("c2VjcmV0"));
        for bad in ["", "dtm_", "dtm_a_b", "xyz_a_b_c", "dtm_a_b_c\u{7}"] {
            assert!(Credential::source_key(bad).is_err(), "{bad:?}");
        }
    }
}
