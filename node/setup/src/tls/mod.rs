//! TLS: one place that says which protocol, whose certificates and how many connections.
//!
//! ```text
//!  files ──load, watch──▶ Material (swapped whole) ──▶ server config per door ──▶ Listener
//!                                                 └──▶ client config to peers
//!  Listener: TCP accept ▶ limits ▶ handshake (timeout) ▶ bounded queue ▶ tonic or hyper
//! ```
//!
//! TLS 1.3 is preferred, 1.2 the floor; the provider is aws-lc-rs. A caller's certificate must
//! chain to the cluster's root. The peers' port is only opened here: its connections are taken by
//! [`dtm_cluster::PeerTls::accept`], which lets in nodes of this cluster and nobody else.
//! Whether it is still in force (revoked, removed) is asked of the meta group's rows by the
//! services: [`dtm_identity::confirm_operator`] and its neighbours.
//!
//! Owner of the state: [`Material`] holds the current configurations; each connection takes them
//! once, so a replaced certificate counts from the next connection on.

mod connect;
mod examine;
mod io;
mod issued;
mod limit;
mod listener;
mod material;
mod peer;
mod peer_port;
mod pinned;
mod serve;
mod wire;

pub use connect::connector;
pub use examine::{Fault, examine, named_node};
pub use io::TlsIo;
pub use issued::is_issued_under;
pub use listener::{Incoming, ListenOptions, Listener};
pub use material::{Material, watch};
pub use peer::PeerInfo;
pub use peer_port::Peers;
pub use pinned::client_pinned_to;
pub use serve::{grpc_server, serve_https};
pub use wire::{TlsWire, Wire, WireIo, Wired};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// Who may come in at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// Browsers and probes: a client certificate is optional.
    Https,
    /// Sources and operators: a client certificate is optional, a source may show a key.
    Grpc,
    /// Nodes of this cluster only.
    Peers,
}

impl Door {
    /// As it stands in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Grpc => "grpc",
            Self::Peers => "peers",
        }
    }
}

/// Protocol versions, best first.
pub static VERSIONS: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The one cryptographic provider.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate or key file.
    #[error(transparent)]
    File(#[from] crate::pki::Error),
    /// The files are readable but do not fit together.
    #[error("{key}: {path} {what}; {remedy}")]
    Unusable {
        /// The setting that names the file.
        key: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A port could not be opened.
    #[error("cannot listen on {address} ({door}): {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What for.
        door: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

#[cfg(test)]
#[path = "tls_test.rs"]
mod tests;
