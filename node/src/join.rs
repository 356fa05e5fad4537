//! `dtm cluster join`: makes the files of a node that joins a running cluster.
//!
//! ```text
//!  token (CA digest, secret) ─▶ TLS pinned to that CA ─▶ Join{secret, request, X25519 key}
//!                                   certificate, CA, sealed keyring ◀─┘
//! ```
//! The node makes its own keys; the secret is shown only to a server under the CA that the token
//! names. Nothing is written before the answer was checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dtm_administration::handover::Receiver;
use dtm_doors::join_token::JoinToken;
use dtm_doors::keyring;
use dtm_doors::life;
use dtm_identity::{Certificate, Identity};
use dtm_proto::admin::join_service_client::JoinServiceClient;
use dtm_proto::admin::{JoinRequest, JoinResponse};
use dtm_types::command::NodeRow;
use dtm_types::text::Told;
use dtm_types::{ClusterId, Incarnation, NodeId};
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest, Sha256};
use tonic::transport::{Channel, Endpoint};

use crate::pki::make_request;
use crate::pki::{self, InitOptions};
use crate::tls::{client_pinned_to, connector};

/// The whole call.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not a token.
    #[error("not a join token")]
    Token,
    /// The address is not `host:port`.
    #[error("{0:?} is not an address: write host:port")]
    Address(String),
    /// No connection, or the server is not of the token's cluster.
    #[error("no connection to {address} under the token's CA: {source}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cluster refused.
    #[error("the cluster refused: {0}")]
    Refused(Box<tonic::Status>),
    /// The answer does not hold together.
    #[error("the answer cannot be used: {0}")]
    Answer(&'static str),
    /// Files or certificates.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// The keyring's handover.
    #[error(transparent)]
    Handover(#[from] dtm_administration::handover::Error),
    /// The keyring.
    #[error(transparent)]
    Keyring(#[from] dtm_storage::keys::Error),
}

impl Error {
    /// In the user's language, where it is met often.
    pub fn told(&self) -> Option<Told> {
        match self {
            Self::Token => Some(Told::new("cli.bad_token")),
            Self::Address(address) => Some(Told::new("client.address").with("address", address)),
            Self::Connect { address, source } => {
                let outermost: &dyn std::error::Error = source.as_ref();
                let causes = std::iter::successors(Some(outermost), |error| error.source());
                // What lies around it says only that a connection failed.
                let what = causes.last().map(ToString::to_string).unwrap_or_default();
                Some(Told::new("start.join_connect").with("address", address).with("what", what))
            }
            Self::Pki(error) => error.told(),
            _ => None,
        }
    }
}

/// Joins with a token and writes the node's folder. Returns the configuration file.
///
/// # Errors
/// [`Error`]; nothing of a node is left where the cluster refused.
pub async fn join(options: &InitOptions, address: &str, token: &str) -> Result<PathBuf, Error> {
    let token = JoinToken::parse(token).ok_or(Error::Token)?;
    pki::refuse_existing(&options.folder)?;
    options.check_hosts()?;
    let request = make_request(&options.node_name).map_err(pki::Error::from)?;
    let receiver = Receiver::new()?;
    let node = NodeId(*uuid::Uuid::now_v7().as_bytes());
    let message = JoinRequest {
        token: token.reveal().to_string(),
        certificate_request: request.der.clone().into(),
        node: Some(row(options, node)),
        keyring_public_key: receiver.public_key().to_vec().into(),
    };
    let channel = connect(address, token.ca_digest).await?;
    let mut client = JoinServiceClient::new(channel).max_decoding_message_size(16 << 20);
    let answer = client.join(message).await.map_err(|e| Error::Refused(Box::new(e)))?.into_inner();
    let (cluster, chain, roots) = checked(&answer, node, token.ca_digest)?;
    let exported = receiver.open(&answer.sealed_keyring, cluster)?;
    let settings = answer.settings.unwrap_or_default();
    let life = Incarnation(answer.incarnation.max(1));
    Ok(pki::write_node(options, &request, &chain, &roots, &|data: &Path, master: &Path| {
        keyring::import(data, master, &exported).map_err(|e| pki::Error::Keyring(e.to_string()))?;
        life::write(data, life).map_err(|source| {
            let path = data.join(life::FILE);
            pki::Error::Io { what: "write", path, source }
        })?;
        if settings.version > 0 {
            // Where it is not kept, the first start asks meta.
            let _ = crate::config::keep(data, &settings);
        }
        Ok(())
    })?)
}

pub(crate) fn row(options: &InitOptions, node: NodeId) -> NodeRow {
    let [https, grpc, peers] = options.listen;
    let host = options.advertise.first().map(String::as_str).unwrap_or_default();
    let at = |port: u16| crate::config::host_and_port(host, port);
    NodeRow {
        node: node.0.to_vec().into(),
        name: options.node_name.clone(),
        site: options.site.clone(),
        zone: options.zone.clone(),
        grpc_address: at(grpc.port()),
        peer_address: at(peers.port()),
        https_address: at(https.port()),
        software_version: env!("CARGO_PKG_VERSION").into(),
        version_max: u32::from(dtm_types::bundle::VERSION_MAX),
        ..NodeRow::default()
    }
}

async fn connect(address: &str, ca_digest: [u8; 32]) -> Result<Channel, Error> {
    let wrong = || Error::Address(address.to_owned());
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Connect {
        address: address.to_owned(),
        source,
    };
    let host = address
        .rsplit_once(':')
        .map(|(host, _)| host.trim_matches(['[', ']']))
        .ok_or_else(wrong)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong())?;
    let config = client_pinned_to(ca_digest).map_err(|e| failed(Box::new(e)))?;
    let config = Arc::new(config);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| wrong())?;
    let connector = connector(address, name, move || Arc::clone(&config));
    let endpoint = endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT);
    endpoint.connect_with_connector(connector).await.map_err(|e| failed(Box::new(e)))
}

type Checked = (ClusterId, Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>);

/// The answer is for this node, of one cluster, under the token's CA.
fn checked(answer: &JoinResponse, node: NodeId, ca_digest: [u8; 32]) -> Result<Checked, Error> {
    let certificates = |list: &[bytes::Bytes]| {
        list.iter().map(|der| der.to_vec().into()).collect::<Vec<CertificateDer<'static>>>()
    };
    let cluster =
        ClusterId::from_slice(&answer.cluster_id).ok_or(Error::Answer("no cluster id"))?;
    let (chain, roots) =
        (certificates(&answer.certificate_chain), certificates(&answer.ca_certificates));
    let leaf = chain.first().ok_or(Error::Answer("no certificate"))?;
    let own = Certificate::parse(leaf)
        .map_err(|_| Error::Answer("the certificate is not one of ours"))?;
    if own.identity != (Identity::Node { cluster, node }) {
        return Err(Error::Answer("the certificate is for another node or cluster"));
    }
    if !roots.iter().any(|root| Sha256::digest(root).as_slice() == ca_digest) {
        return Err(Error::Answer("the root certificate is not the token's"));
    }
    Ok((cluster, chain, roots))
}
