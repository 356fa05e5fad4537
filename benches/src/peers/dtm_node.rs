//! A node of ours with parts left out, to measure what each costs (W6). The parts are replaced at
//! the node's seams by the fakes below; the product has no such switch.
//!
//! What stays in every case: once-only (resend tags, cursors), the salts, the leaf of each batch in
//! apply, compression, the log and its syncs. Apply has no seam for the leaf, on purpose: a replica
//! that left it out would part from the others. Its price is in `benches/micro.rs` (`leaf`).

use std::io;
use std::path::Path;
use std::sync::Arc;

use dtm_actors::{Full, KeyVault, Treatment, VaultError};
use dtm_catalog::{Accepted, CompiledSchema, MaskKey, Outcome, Scratch};
use dtm_cluster::{BoxIo, PeerTls};
use dtm_ledger::{Hash, MerkleRoot, RecordHash};
use dtm_node::seams::Seams;
use dtm_node::tls::{TlsWire, Wire, Wired};
use dtm_node::{config, serve};
use dtm_seal::{BatchCipher, DataKey, Nonce, SourceKey, Tag};
use dtm_types::format::WrappedKey;
use dtm_types::{GroupId, Month, NodeId, SourceId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// First byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A part that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// TLS of the sources and between nodes.
    Tls,
    /// Encryption of batches.
    Seal,
    /// The check of each record against its schema.
    Check,
    /// Record hashes, their root, the digest of the ciphertext.
    Digests,
}

impl Part {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Seal => "seal",
            Self::Check => "check",
            Self::Digests => "digests",
        }
    }
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// What a node of the product would say, in words.
pub async fn serve(file: &Path, without: &[Part]) -> Result<(), String> {
    let config = config::load(file).map_err(|error| error.to_string())?;
    let mut seams = Seams::default();
    let (check, digests) = (without.contains(&Part::Check), without.contains(&Part::Digests));
    seams.treatment = Arc::new(Cut { check, digests });
    if without.contains(&Part::Seal) {
        seams.vault = |vault| Arc::new(OpenVault(vault));
    }
    if without.contains(&Part::Tls) {
        seams.clients = Arc::new(PlainWire);
        seams.peers = |own, tls| Arc::new(PlainPeers { own, tls });
    }
    let ended = serve::run_with(config, seams).await;
    ended.map(|_| ()).map_err(|error| error.to_string())
}

/// Leaves checks and digests out.
struct Cut {
    check: bool,
    digests: bool,
}

impl Treatment for Cut {
    fn check(&self, schema: &CompiledSchema, payload: &[u8], scratch: &mut Scratch) -> Outcome {
        if self.check {
            return Outcome::Accepted { form: Accepted::Same, warnings: Vec::new() };
        }
        Full.check(schema, payload, scratch)
    }

    fn record_hash(&self, salt: &[u8; 16], content: &[u8]) -> Hash {
        if self.digests { Hash::default() } else { RecordHash::of(salt, content).0 }
    }

    fn record_root(&self, hashes: &[u8]) -> Hash {
        if self.digests { MerkleRoot::of([]).0 } else { Full.record_root(hashes) }
    }

    fn text_digest(&self, text: &[u8]) -> Hash {
        if self.digests { Hash::default() } else { Full.text_digest(text) }
    }
}

/// Keys as they are, batches in clear.
struct OpenVault(Arc<dyn KeyVault>);

impl KeyVault for OpenVault {
    fn new_data_key(&self, group: GroupId, source: &SourceId, month: Month) -> WrappedKey {
        self.0.new_data_key(group, source, month)
    }

    fn new_source_key(&self, group: GroupId, source: &SourceId) -> WrappedKey {
        self.0.new_source_key(group, source)
    }

    fn new_audit_key(&self, group: GroupId, month: Month) -> WrappedKey {
        self.0.new_audit_key(group, month)
    }

    fn open_data_key(&self, group: GroupId, row: &WrappedKey) -> Result<DataKey, VaultError> {
        self.0.open_data_key(group, row)
    }

    fn batch_cipher(&self, _key: &DataKey) -> Box<dyn BatchCipher> {
        Box::new(NoCipher)
    }

    fn open_source_key(&self, group: GroupId, row: &WrappedKey) -> Result<SourceKey, VaultError> {
        self.0.open_source_key(group, row)
    }

    fn mask_key(&self) -> Arc<MaskKey> {
        self.0.mask_key()
    }
}

struct NoCipher;

impl BatchCipher for NoCipher {
    fn seal_batch(&self, _: &Nonce, _: &[u8], _: &mut [u8]) -> Result<Tag, dtm_seal::Error> {
        Ok(Tag::default())
    }

    fn open_batch(
        &self,
        _: &Nonce,
        _: &[u8],
        _: &mut [u8],
        _: &Tag,
    ) -> Result<(), dtm_seal::Error> {
        Ok(())
    }
}

/// TLS for whoever begins with it (the operator), nothing for the others (the sources).
struct PlainWire;

impl Wire for PlainWire {
    fn accept(
        &self,
        tcp: TcpStream,
        config: Arc<ServerConfig>,
    ) -> BoxFuture<'static, io::Result<Wired>> {
        async move {
            let mut first = [0];
            if tcp.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE {
                return TlsWire.accept(tcp, config).await;
            }
            Ok(Wired { io: Box::new(tcp), certificate: None })
        }
        .boxed()
    }
}

/// Peers tell who they are and are believed.
struct PlainPeers {
    own: NodeId,
    tls: Arc<dyn PeerTls>,
}

impl PeerTls for PlainPeers {
    fn server(&self) -> Arc<ServerConfig> {
        self.tls.server()
    }

    fn client(&self) -> Arc<ClientConfig> {
        self.tls.client()
    }

    fn server_name(&self, node: NodeId) -> ServerName<'static> {
        self.tls.server_name(node)
    }

    fn node_of(&self, certificate: &[u8]) -> Option<NodeId> {
        self.tls.node_of(certificate)
    }

    fn connect(&self, _node: NodeId, mut tcp: TcpStream) -> BoxFuture<'_, io::Result<BoxIo>> {
        let own = self.own.0;
        async move {
            tcp.write_all(&own).await?;
            Ok::<BoxIo, io::Error>(Box::new(tcp))
        }
        .boxed()
    }

    fn accept(&self, mut tcp: TcpStream) -> BoxFuture<'_, io::Result<(BoxIo, NodeId)>> {
        async move {
            let mut node = [0; 16];
            tcp.read_exact(&mut node).await?;
            Ok::<(BoxIo, NodeId), io::Error>((Box::new(tcp), NodeId(node)))
        }
        .boxed()
    }
}
