//! Ways to a peer, and whether two of them are independent.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::error::Error;
use crate::tls::SiteTls;

/// What a channel speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// QUIC over UDP.
    Quic,
    /// TLS over TCP: a connection a lane.
    Tcp,
}

/// A socket of this node with the credentials that are shown through it. Calls leave and arrive
/// through it.
pub struct Channel {
    /// Its name in logs.
    pub name: String,
    /// What is spoken through it; its peers have to speak the same.
    pub kind: ChannelKind,
    /// Where it is bound; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// What tells its credentials from those of other channels, such as the path of the key.
    pub credentials: String,
    /// The credentials.
    pub tls: Arc<dyn SiteTls>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "channel {} ({:?}) at {} with {}",
            self.name, self.kind, self.bind, self.credentials
        )
    }
}

/// A way to a peer: through which channel, and to what address there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Position of the channel in this node's list.
    pub channel: usize,
    /// `host:port` of the peer, resolved at each call.
    pub remote: String,
}

impl Path {
    fn host(&self) -> &str {
        let host = self.remote.rsplit_once(':').map_or(&*self.remote, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// What two paths have in common, so that one fault may end both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedPart {
    /// The host of the peer.
    RemoteHost(String),
    /// The address of this node. One that is bound to all addresses shares with every other.
    LocalAddress(IpAddr),
    /// The key and certificate shown.
    Credentials(String),
}

impl fmt::Display for SharedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoteHost(host) => write!(f, "the remote host {host}"),
            Self::LocalAddress(address) => write!(f, "the local address {address}"),
            Self::Credentials(credentials) => write!(f, "the credentials {credentials}"),
        }
    }
}

/// What two paths of a node with these channels share. Empty = independent, as far as addresses and
/// credentials tell.
///
/// # Errors
/// [`Error::NoChannel`].
pub fn shared_parts(
    channels: &[&Channel],
    one: &Path,
    other: &Path,
) -> Result<Vec<SharedPart>, Error> {
    let of =
        |path: &Path| channels.get(path.channel).copied().ok_or(Error::NoChannel(path.channel));
    let (one_channel, other_channel) = (of(one)?, of(other)?);
    let mut shared = Vec::new();
    if one.host().eq_ignore_ascii_case(other.host()) {
        shared.push(SharedPart::RemoteHost(one.host().to_owned()));
    }
    let (here, there) = (one_channel.bind.ip(), other_channel.bind.ip());
    if here == there || here.is_unspecified() || there.is_unspecified() {
        shared.push(SharedPart::LocalAddress(here));
    }
    if one_channel.credentials == other_channel.credentials {
        shared.push(SharedPart::Credentials(one_channel.credentials.clone()));
    }
    Ok(shared)
}

/// Refuses a list in which a later path shares anything with an earlier one.
pub(crate) fn check_independent(channels: &[&Channel], paths: &[Path]) -> Result<(), Error> {
    for (index, path) in paths.iter().enumerate() {
        for (other, before) in paths[..index].iter().enumerate() {
            let shared = shared_parts(channels, before, path)?;
            if !shared.is_empty() {
                let shared: Vec<_> = shared.iter().map(ToString::to_string).collect();
                return Err(Error::Shared { index, other, shared: shared.join(", ") });
            }
        }
        if path.channel >= channels.len() {
            return Err(Error::NoChannel(path.channel));
        }
    }
    Ok(())
}
