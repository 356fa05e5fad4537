//! The doors against real handshakes on loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dtm_cluster::PeerTls;
use dtm_identity::{Caller, Identity};
use dtm_types::{ClusterId, DAY_US, NodeId, SourceId};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::Digest as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config;
use crate::pki::{self, Authority, Request, Subject, make_authority, make_request};

const CLUSTER: ClusterId = ClusterId([7; 16]);

#[expect(clippy::disallowed_methods, reason = "certificates hold by the machine's clock")]
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_micros()).expect("fits")
}

type Held = (Vec<CertificateDer<'static>>, Request);

fn issue(
    authority: &Authority,
    identity: Identity,
    names: &[&str],
    now_us: i64,
    days: u32,
) -> Held {
    let request = make_request("x").expect("made");
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let subject = Subject { identity, names, days };
    (authority.issuing.sign(&request.der, &subject, now_us).expect("signed"), request)
}

fn node(number: u8) -> Identity {
    Identity::Node { cluster: CLUSTER, node: NodeId([number; 16]) }
}

fn source() -> Identity {
    Identity::Source { cluster: CLUSTER, source: SourceId::parse("tinh-01").expect("a code") }
}

fn put(folder: &Path, authority: &Authority, held: &Held) -> config::Tls {
    let replace = |name: &str, text: &[u8]| {
        let path = folder.join(name);
        fs::write(folder.join("next"), text).expect("written");
        fs::rename(folder.join("next"), &path).expect("moved");
        path
    };
    let text = "[node]\nname = \"n\"\nadvertise = [\"n\"]\n";
    let mut tls = config::parse(Path::new("t"), text, []).expect("reads").tls;
    tls.certificate = replace("node.pem", pki::pem(&held.0).as_bytes());
    tls.key = replace("node.key", held.1.key_pem.as_bytes());
    tls.ca = replace("ca.pem", pki::pem([&authority.root]).as_bytes());
    tls
}

fn client(authority: &Authority, held: Option<&Held>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.root.clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("versions")
        .with_root_certificates(roots);
    Arc::new(match held {
        None => builder.with_no_client_auth(),
        Some((chain, request)) => {
            let key = PrivateKeyDer::from_pem_slice(request.key_pem.as_bytes()).expect("a key");
            builder.with_client_auth_cert(chain.clone(), key).expect("fits")
        }
    })
}

/// Connects and waits for the door's verdict: in TLS 1.3 a refused client certificate shows only
/// with the first read.
async fn verdict(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Result<(), String> {
    let mut tls = shaken(address, name, config).await?;
    tls.write_all(b"hello").await.map_err(|e| e.to_string())?;
    let mut answer = [0; 2];
    tls.read_exact(&mut answer).await.map(|_| ()).map_err(|e| e.to_string())
}

/// A connection after its handshake.
async fn shaken(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let tcp = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(config).connect(name, tcp).await.map_err(|e| e.to_string())
}

/// A door that answers "ok" and notes who called.
async fn open(
    tls: &config::Tls,
    door: Door,
) -> (SocketAddr, Arc<Material>, tokio::sync::mpsc::Receiver<String>, CancellationToken) {
    let material = Material::load(tls).expect("loads");
    let mut options = ListenOptions::from(tls);
    options.handshake_timeout = Duration::from_millis(400);
    options.per_address_max = 3;
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), door, Arc::clone(&material), options)
        .await
        .expect("binds");
    let address = listener.address().expect("bound");
    let token = CancellationToken::new();
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    let mut incoming = listener.run(token.clone());
    tokio::spawn(async move {
        while let Some(Ok(mut io)) = incoming.next().await {
            let caller =
                io.info().caller(CLUSTER).map_or_else(|e| e.to_string(), |c| c.to_string());
            let _ = sender.send(caller).await;
            tokio::spawn(async move {
                let _ = io.write_all(b"ok").await;
                let mut rest = [0; 64];
                while matches!(io.read(&mut rest).await, Ok(n) if n > 0) {}
            });
        }
    });
    (address, material, receiver, token)
}

/// The peers' port as the cluster takes its connections: answers "ok" and notes which node called.
async fn open_to_peers(tls: &config::Tls) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let peers = Peers::new(Material::load(tls).expect("loads"));
    let tcp = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let address = tcp.local_addr().expect("bound");
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = tcp.accept().await {
            let Ok((mut io, node)) = peers.accept(tcp).await else { continue };
            let _ = sender.send(format!("node {node}")).await;
            tokio::spawn(async move {
                let _ = io.write_all(b"ok").await;
                let mut rest = [0; 64];
                while matches!(io.read(&mut rest).await, Ok(n) if n > 0) {}
            });
        }
    });
    (address, receiver)
}

#[tokio::test]
async fn the_peers_door_takes_nodes_of_this_cluster_only() {
    let scratch = tempfile::tempdir().expect("a folder");
    let authority = make_authority("ours", now_us()).expect("made");
    let other = make_authority("theirs", now_us()).expect("made");
    let own = issue(&authority, node(1), &["localhost"], now_us(), 30);
    let tls = put(scratch.path(), &authority, &own);
    let (address, mut callers) = open_to_peers(&tls).await;

    let good = issue(&authority, node(2), &["n2"], now_us(), 30);
    verdict(address, "localhost", client(&authority, Some(&good))).await.expect("a peer");
    assert_eq!(callers.recv().await.expect("noted"), format!("node {}", NodeId([2; 16])));

    let foreign_cluster = Identity::Node { cluster: ClusterId([8; 16]), node: NodeId([2; 16]) };
    for (why, held) in [
        ("no certificate", None),
        ("a source", Some(issue(&authority, source(), &[], now_us(), 30))),
        ("another CA", Some(issue(&other, node(2), &["n2"], now_us(), 30))),
        ("another cluster", Some(issue(&authority, foreign_cluster, &["n2"], now_us(), 30))),
        ("expired", Some(issue(&authority, node(2), &["n2"], now_us() - 40 * DAY_US, 30))),
        ("not yet valid", Some(issue(&authority, node(2), &["n2"], now_us() + 2 * DAY_US, 30))),
    ] {
        let found = verdict(address, "localhost", client(&authority, held.as_ref())).await;
        assert!(found.is_err(), "{why} came in");
    }
    assert!(callers.try_recv().is_err(), "none of them was handed on");
    let wrong_name = verdict(address, "elsewhere", client(&authority, Some(&good))).await;
    assert!(wrong_name.expect_err("refused by the client").contains("certificate"));
}

#[tokio::test]
async fn the_grpc_door_takes_callers_without_a_certificate_but_no_foreign_one() {
    let scratch = tempfile::tempdir().expect("a folder");
    let authority = make_authority("ours", now_us()).expect("made");
    let other = make_authority("theirs", now_us()).expect("made");
    let tls =
        put(scratch.path(), &authority, &issue(&authority, node(1), &["localhost"], now_us(), 30));
    let (address, _, mut callers, _token) = open(&tls, Door::Grpc).await;
    verdict(address, "localhost", client(&authority, None)).await.expect("anonymous so far");
    assert_eq!(callers.recv().await.expect("noted"), Caller::Anonymous.to_string());
    let held = issue(&authority, source(), &[], now_us(), 30);
    verdict(address, "localhost", client(&authority, Some(&held))).await.expect("a source");
    assert_eq!(callers.recv().await.expect("noted"), "source tinh-01");
    let foreign = issue(&other, source(), &[], now_us(), 30);
    assert!(verdict(address, "localhost", client(&authority, Some(&foreign))).await.is_err());
}

#[tokio::test]
async fn certificates_are_replaced_while_connections_go_on() {
    let scratch = tempfile::tempdir().expect("a folder");
    let authority = make_authority("ours", now_us()).expect("made");
    let tls =
        put(scratch.path(), &authority, &issue(&authority, node(1), &["old.test"], now_us(), 30));
    let (address, material, _callers, token) = open(&tls, Door::Grpc).await;
    let watching =
        tokio::spawn(watch(Arc::clone(&material), Duration::from_millis(20), token.clone()));
    verdict(address, "old.test", client(&authority, None)).await.expect("the old name");

    put(scratch.path(), &authority, &issue(&authority, node(1), &["renewed.test"], now_us(), 60));
    let mut renewed = Err(String::new());
    for _ in 0..200 {
        renewed = verdict(address, "renewed.test", client(&authority, None)).await;
        if renewed.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    renewed.expect("the new name within 4 s");

    // Another node's certificate, or half a file, changes nothing.
    put(scratch.path(), &authority, &issue(&authority, node(2), &["other.test"], now_us(), 30));
    assert!(material.reload().is_err());
    fs::write(&tls.certificate, "-----BEGIN CERT").expect("written");
    assert!(material.reload().is_err());
    verdict(address, "renewed.test", client(&authority, None))
        .await
        .expect("still the last good one");
    token.cancel();
    watching.await.expect("ends");
}

#[tokio::test]
async fn a_renewed_pair_is_in_use_at_once_and_one_that_does_not_hold_changes_nothing() {
    let scratch = tempfile::tempdir().expect("a folder");
    let authority = make_authority("ours", now_us()).expect("made");
    let held = issue(&authority, node(1), &["old.test"], now_us(), 30);
    let tls = put(scratch.path(), &authority, &held);
    let (address, material, _callers, _token) = open(&tls, Door::Grpc).await;
    assert!(material.is_issued_by(authority.issuing.certificate()));
    let mut before = shaken(address, "old.test", client(&authority, None)).await.expect("shakes");
    // Who is silent after the handshake would be dropped.
    before.write_all(b"hello").await.expect("written");
    before.read_exact(&mut [0; 2]).await.expect("answered");

    let other = make_authority("theirs", now_us()).expect("made");
    assert!(!material.is_issued_by(other.issuing.certificate()));
    let renewed = issue(&authority, node(1), &["renewed.test"], now_us(), 60);
    for (why, (chain, request)) in [
        ("another node", issue(&authority, node(2), &["renewed.test"], now_us(), 30)),
        ("another root", issue(&other, node(1), &["renewed.test"], now_us(), 30)),
        ("another key", (renewed.0.clone(), make_request("x").expect("made"))),
    ] {
        let refused = material.renew(&request.key_pem, &chain).expect_err(why).to_string();
        assert!(refused.starts_with("tls."), "{why}: {refused}");
        let key = fs::read_to_string(&tls.key).expect("a key");
        assert_eq!(key, *held.1.key_pem, "{why}: nothing was written");
    }
    verdict(address, "old.test", client(&authority, None)).await.expect("still the old one");

    material.renew(&renewed.1.key_pem, &renewed.0).expect("renewed");
    let facts = pki::Issuing::facts(&renewed.0).expect("ours");
    assert_eq!(material.own(), facts);
    verdict(address, "renewed.test", client(&authority, None)).await.expect("at once");
    assert!(verdict(address, "old.test", client(&authority, None)).await.is_err());
    before.write_all(b"hello").await.expect("a connection of before goes on");
    let mut answer = [0; 1];
    let ended = tokio::time::timeout(Duration::from_millis(200), before.read(&mut answer)).await;
    assert!(ended.is_err(), "it is open still: {ended:?}");
    assert_eq!(Material::load(&tls).expect("after a restart").own(), facts);
}

#[tokio::test]
async fn a_caller_that_says_nothing_after_its_handshake_is_dropped() {
    let scratch = tempfile::tempdir().expect("a folder");
    let authority = make_authority("ours", now_us()).expect("made");
    let tls =
        put(scratch.path(), &authority, &issue(&authority, node(1), &["localhost"], now_us(), 30));
    let (address, _, _callers, _token) = open(&tls, Door::Grpc).await;
    let mut silent =
        shaken(address, "localhost", client(&authority, None)).await.expect("shakes hands");
    let mut talking =
        shaken(address, "localhost", client(&authority, None)).await.expect("shakes hands");
    talking.write_all(b"hello").await.expect("written");
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), silent.read_to_end(&mut answer));
    let _ = closed.await.expect("dropped after the timeout");
    let open = tokio::time::timeout(Duration::from_millis(400), talking.read_to_end(&mut answer));
    assert!(open.await.is_err(), "who has said something stays");
}

#[tokio::test]
async fn silent_connections_are_dropped_and_do_not_take_all_places() {
    let scratch = tempfile::tempdir().expect("a folder");
    let authority = make_authority("ours", now_us()).expect("made");
    let tls =
        put(scratch.path(), &authority, &issue(&authority, node(1), &["localhost"], now_us(), 30));
    let (address, _, _callers, _token) = open(&tls, Door::Grpc).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(address).await.expect("connects"));
    }
    assert!(
        verdict(address, "localhost", client(&authority, None)).await.is_err(),
        "all places of the address are taken"
    );
    for tcp in &mut silent {
        let mut rest = [0; 8];
        let closed = tokio::time::timeout(Duration::from_secs(5), tcp.read(&mut rest)).await;
        assert!(
            matches!(closed.expect("within 5 s"), Ok(0) | Err(_)),
            "dropped after the handshake timeout"
        );
    }
    let mut again = Err(String::new());
    for _ in 0..100 {
        again = verdict(address, "localhost", client(&authority, None)).await;
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    again.expect("places were given back");
}

#[tokio::test]
async fn a_node_that_joins_trusts_the_root_of_its_token_only() {
    let scratch = tempfile::tempdir().expect("a folder");
    let authority = make_authority("ours", now_us()).expect("made");
    let tls =
        put(scratch.path(), &authority, &issue(&authority, node(1), &["localhost"], now_us(), 30));
    let (address, _, _callers, _token) = open(&tls, Door::Grpc).await;
    let pinned = |root: &CertificateDer<'static>| {
        let digest = <[u8; 32]>::from(sha2::Sha256::digest(root));
        Arc::new(client_pinned_to(digest).expect("versions"))
    };
    verdict(address, "localhost", pinned(&authority.root)).await.expect("the cluster of the token");
    let other = make_authority("theirs", now_us()).expect("made");
    assert!(verdict(address, "localhost", pinned(&other.root)).await.is_err(), "another cluster");
    assert!(verdict(address, "elsewhere", pinned(&authority.root)).await.is_err(), "another name");
    // An end certificate of the right digest is no root.
    let (chain, _) = issue(&authority, node(3), &["localhost"], now_us(), 30);
    assert!(verdict(address, "localhost", pinned(&chain[0])).await.is_err());
}
