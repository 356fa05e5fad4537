//! `dtm cluster init`: everything that the first node of a cluster needs, in one folder.
//!
//! ```text
//!  FOLDER/dtm.toml                 configuration
//!  FOLDER/tls/{node.pem,node.key,ca.pem}
//!  FOLDER/keys/master.key          seals the keyring; copy to a safe
//!  FOLDER/data/                    log, state, keyring, genesis.toml
//!  FOLDER/operator/NAME.{pem,key}  first operator
//!  FOLDER/root-ca/root.{pem,key}   take offline
//! ```

use std::path::{Path, PathBuf};

use dtm_identity::{Identity, Role, operator_name_is_valid};
use dtm_types::{CALLER_DAYS_MAX, ClusterId, NodeId};
use rustls_pki_types::CertificateDer;

use super::files::{make_folder, write_private, write_public};
use super::{
    Authority, Error, Genesis, Issuing, NODE_DAYS, Request, Subject, make_authority, make_request,
    pem,
};

/// What to make.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// Where; made if it is not there, must not hold a cluster.
    pub folder: PathBuf,
    /// Name of the cluster.
    pub cluster_name: String,
    /// Name of the node.
    pub node_name: String,
    /// Its site.
    pub site: String,
    /// Its zone.
    pub zone: String,
    /// Names and addresses it is reached by; the first is told to others.
    pub advertise: Vec<String>,
    /// Listening addresses: HTTPS, gRPC, peers.
    pub listen: [std::net::SocketAddr; 3],
    /// First operator.
    pub operator: String,
    /// Ingest groups.
    pub ingest_groups: u32,
    /// What destroys takes two people.
    pub production: bool,
}

impl InitOptions {
    /// Whether the node can be reached by what it is to advertise.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn check_hosts(&self) -> Result<(), Error> {
        let wrong = self.advertise.iter().find(|name| !crate::config::is_host(name));
        wrong.map_or(Ok(()), |name| Err(Error::Host(name.clone())))
    }
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Initialised {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The configuration file.
    pub config: PathBuf,
    /// Root certificate, operator's certificate and key: for a context.
    pub operator_files: [PathBuf; 3],
    /// To take offline.
    pub root_folder: PathBuf,
    /// To copy to a safe.
    pub master_key: PathBuf,
}

/// Makes the keyring: gets the keyring's folder, the master key file to make, and the issuing
/// certificate with its key to keep in it.
pub type MakeKeyring<'a> = &'a dyn Fn(&Path, &Path, &Issuing) -> Result<(), Error>;

/// Makes a cluster of one node that was never started. Nothing is overwritten. Durable when it
/// returns.
///
/// # Errors
/// [`Error::Exists`] where the folder holds a cluster, [`Error::Name`], [`Error::Io`],
/// [`Error::Keyring`].
pub fn cluster_init(
    options: &InitOptions,
    now_us: i64,
    make_keyring: MakeKeyring<'_>,
) -> Result<Initialised, Error> {
    refuse_existing(&options.folder)?;
    if !operator_name_is_valid(&options.operator) {
        return Err(Error::Name(options.operator.clone()));
    }
    options.check_hosts()?;
    let cluster = ClusterId(*uuid::Uuid::now_v7().as_bytes());
    let node = NodeId(*uuid::Uuid::now_v7().as_bytes());
    let authority = make_authority(&options.cluster_name, now_us)?;
    // All that can be refused is made before the first file is written.
    let (node_request, node_chain) = node_certificate(options, &authority, cluster, node, now_us)?;
    let (operator_request, operator_chain) =
        operator_certificate(options, &authority, cluster, now_us)?;
    let facts = Issuing::facts(&operator_chain)?;
    let genesis = Genesis {
        cluster_id: cluster.to_string(),
        cluster_name: options.cluster_name.clone(),
        node_id: node.to_string(),
        ingest_groups: options.ingest_groups,
        operator_name: options.operator.clone(),
        operator_certificate_digest: hex::encode(facts.digest),
        operator_not_after_us: facts.not_after_us,
        production: options.production,
    };

    let [operator, root_folder] = ["operator", "root-ca"].map(|name| options.folder.join(name));
    for path in [&options.folder, &operator, &root_folder] {
        make_folder(path)?;
    }
    write_private(&root_folder.join("root.key"), authority.root_key.as_bytes())?;
    write_public(&root_folder.join("root.pem"), pem([&authority.root]).as_bytes())?;
    let operator_pem = operator.join(format!("{}.pem", options.operator));
    let operator_key = operator.join(format!("{}.key", options.operator));
    write_private(&operator_key, operator_request.key_pem.as_bytes())?;
    write_public(&operator_pem, pem(&operator_chain).as_bytes())?;
    let roots = [authority.root.clone()];
    let config = write_node(options, &node_request, &node_chain, &roots, &|data, master| {
        make_keyring(data, master, &authority.issuing)?;
        genesis.write(data)
    })?;
    let ca = options.folder.join("tls/ca.pem");
    let master_key = options.folder.join("keys/master.key");
    Ok(Initialised {
        cluster,
        node,
        config,
        operator_files: [ca, operator_pem, operator_key],
        root_folder,
        master_key,
    })
}

/// Refuses a folder that holds a node or a root already.
///
/// # Errors
/// [`Error::Exists`].
pub fn refuse_existing(folder: &Path) -> Result<(), Error> {
    for name in ["dtm.toml", "tls", "keys", "data", "root-ca"] {
        let path = folder.join(name);
        if path.exists() {
            return Err(Error::Exists { path });
        }
    }
    Ok(())
}

/// Writes the files of one node; `make_keys` gets the data folder and the master key file to make.
/// The configuration comes last: with it the folder counts as a node. Returns its path.
///
/// # Errors
/// [`Error::Exists`], [`Error::Io`], and those of `make_keys`.
pub fn write_node(
    options: &InitOptions,
    request: &Request,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    make_keys: &dyn Fn(&Path, &Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let [tls, keys, data] = ["tls", "keys", "data"].map(|name| options.folder.join(name));
    for path in [&options.folder, &tls, &keys, &data] {
        make_folder(path)?;
    }
    write_public(&tls.join("ca.pem"), pem(roots).as_bytes())?;
    write_private(&tls.join("node.key"), request.key_pem.as_bytes())?;
    write_public(&tls.join("node.pem"), pem(chain).as_bytes())?;
    make_keys(&data, &keys.join("master.key"))?;
    let config = options.folder.join("dtm.toml");
    write_public(&config, config_text(options).as_bytes())?;
    Ok(config)
}

type Signed = (Request, Vec<CertificateDer<'static>>);

fn node_certificate(
    options: &InitOptions,
    authority: &Authority,
    cluster: ClusterId,
    node: NodeId,
    now_us: i64,
) -> Result<Signed, Error> {
    let request = make_request(&options.node_name)?;
    let subject = Subject {
        identity: Identity::Node { cluster, node },
        names: options.advertise.clone(),
        days: NODE_DAYS,
    };
    let chain = authority.issuing.sign(&request.der, &subject, now_us)?;
    Ok((request, chain))
}

fn operator_certificate(
    options: &InitOptions,
    authority: &Authority,
    cluster: ClusterId,
    now_us: i64,
) -> Result<Signed, Error> {
    let request = make_request(&options.operator)?;
    let identity =
        Identity::Operator { cluster, name: options.operator.clone(), role: Role::Operator };
    let subject = Subject { identity, names: Vec::new(), days: CALLER_DAYS_MAX };
    let chain = authority.issuing.sign(&request.der, &subject, now_us)?;
    Ok((request, chain))
}

/// The configuration of a new node. `docs/config.md` has the keys that are not in it.
fn config_text(options: &InitOptions) -> String {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let names: Vec<String> = options.advertise.iter().map(|name| text(name)).collect();
    let [https, grpc, peers] = options.listen;
    format!(
        "# Every key: dtm config docs\n[node]\nname = {}\nsite = {}\nzone = {}\nadvertise = [{}]\n\
         https = \"{https}\"\ngrpc = \"{grpc}\"\npeers = \"{peers}\"\n",
        text(&options.node_name),
        text(&options.site),
        text(&options.zone),
        names.join(", "),
    )
}
