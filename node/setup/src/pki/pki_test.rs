use std::fs;
use std::os::unix::fs::PermissionsExt;

use dtm_identity::{Caller, Certificate, Identity, Role};
use dtm_types::{ClusterId, NodeId, SourceId};

use super::*;

const NOW_US: i64 = 1_795_000_000_000_000;
const CLUSTER: ClusterId = ClusterId([7; 16]);

fn options(folder: &std::path::Path) -> InitOptions {
    InitOptions {
        folder: folder.to_owned(),
        cluster_name: "thử".into(),
        node_name: "n1".into(),
        site: "main".into(),
        zone: "a".into(),
        advertise: vec!["localhost".into(), "127.0.0.1".into()],
        listen: [8443, 9443, 9444].map(|port| ([127, 0, 0, 1], port).into()),
        operator: "lan".into(),
        ingest_groups: 12,
        production: false,
    }
}

fn keyring(_: &std::path::Path, master: &std::path::Path, _: &Issuing) -> Result<(), Error> {
    write_private(master, b"00")
}

#[test]
fn a_new_cluster_has_closed_files_and_a_configuration_that_reads() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = scratch.path().join("c");
    let made = cluster_init(&options(&folder), NOW_US, &keyring).expect("made");
    let config = crate::config::load(&made.config).expect("reads").config;
    crate::config::check_files(&made.config, &config).expect("files hold");
    assert_eq!(config.node.advertise, ["localhost", "127.0.0.1"]);
    let genesis = Genesis::read(&config.node.data).expect("reads").expect("is there");
    assert_eq!(genesis.cluster_id, made.cluster.to_string());
    for (file, mode) in [
        ("", 0o700),
        ("tls", 0o700),
        ("tls/node.key", 0o600),
        ("keys", 0o700),
        ("data", 0o700),
        ("operator/lan.key", 0o600),
        ("root-ca", 0o700),
        ("root-ca/root.key", 0o600),
    ] {
        let found = fs::metadata(folder.join(file)).expect("is there").permissions().mode();
        assert_eq!(found & 0o777, mode, "{file}");
    }
    let operator = read_certificates(&made.operator_files[1]).expect("reads");
    let caller = Caller::from_certificate(&operator[0], made.cluster).expect("ours");
    assert!(matches!(caller, Caller::Operator { role: Role::Operator, .. }));
}

#[test]
fn a_cluster_is_never_overwritten_and_refused_names_write_nothing() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = scratch.path().join("c");
    cluster_init(&options(&folder), NOW_US, &keyring).expect("made");
    assert!(matches!(cluster_init(&options(&folder), NOW_US, &keyring), Err(Error::Exists { .. })));
    let other = scratch.path().join("d");
    let bad = InitOptions { operator: "Lan & co".into(), ..options(&other) };
    assert!(matches!(cluster_init(&bad, NOW_US, &keyring), Err(Error::Name(_))));
    for name in ["", "n1:9443"] {
        let bad = InitOptions { advertise: vec!["n1".into(), name.into()], ..options(&other) };
        assert!(matches!(cluster_init(&bad, NOW_US, &keyring), Err(Error::Host(_))), "{name}");
    }
    assert!(!other.exists());
}

#[test]
fn more_groups_than_a_node_holds_are_refused_before_anything_starts() {
    let scratch = tempfile::tempdir().expect("a folder");
    let options = InitOptions { ingest_groups: 255, ..options(&scratch.path().join("c")) };
    let made = cluster_init(&options, NOW_US, &keyring).expect("made");
    let config = crate::config::load(&made.config).expect("reads").config;
    let path = config.node.data.join(Genesis::FILE);
    assert!(Genesis::read(&config.node.data).expect("reads").is_some());
    let text = std::fs::read_to_string(&path).expect("reads");
    std::fs::write(&path, text.replace("ingest_groups = 255", "ingest_groups = 256")).expect("put");
    assert!(matches!(Genesis::read(&config.node.data), Err(Error::Malformed { .. })));
}

#[test]
fn a_request_decides_nothing_but_its_key() {
    let authority = make_authority("t", NOW_US).expect("made");
    let mut params = rcgen::CertificateParams::new(vec!["evil".to_owned()]).expect("a name");
    let name = "dtm://cluster/07070707-0707-0707-0707-070707070707/operator/root?role=operator";
    params.subject_alt_names.push(rcgen::SanType::URI(name.try_into().expect("ascii")));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    let request = params.serialize_request(&key).expect("made");
    let source = SourceId::parse("tinh-01").expect("a code");
    let subject = Subject {
        identity: Identity::Source { cluster: CLUSTER, source },
        names: Vec::new(),
        days: 30,
    };
    let chain = authority.issuing.sign(request.der(), &subject, NOW_US).expect("signed");
    let facts = Certificate::parse(&chain[0]).expect("not an issuer, one name");
    assert_eq!(facts.identity, subject.identity);
    assert_eq!(facts.not_after_us, NOW_US + 30 * dtm_types::DAY_US);
}

#[test]
fn forged_and_damaged_requests_are_refused() {
    let authority = make_authority("t", NOW_US).expect("made");
    let identity = Identity::Node { cluster: CLUSTER, node: NodeId([1; 16]) };
    let request = make_request("n").expect("made").der;
    for index in [request.len() - 1, request.len() / 2] {
        let mut damaged = request.clone();
        damaged[index] ^= 1;
        assert!(
            authority.issuing.sign_node(&damaged, identity.clone(), &[], NOW_US).is_err(),
            "{index}"
        );
    }
    assert!(authority.issuing.sign_node(&[0; 20_000], identity, &[], NOW_US).is_err());
}

#[test]
fn the_issuing_key_survives_the_keyring() {
    let authority = make_authority("t", NOW_US).expect("made");
    let secret = authority.issuing.to_secret();
    let again = Issuing::from_secret(&secret).expect("reads back");
    assert_eq!(again.certificate(), authority.issuing.certificate());
    assert!(Issuing::from_secret(&secret[..secret.len() - 1]).is_none());
    assert!(Issuing::from_secret(b"").is_none());
}

#[test]
fn no_certificate_outlives_its_issuer_and_serials_differ() {
    let authority = make_authority("t", NOW_US).expect("made");
    let identity = Identity::Node { cluster: CLUSTER, node: NodeId([1; 16]) };
    let subject = Subject { identity, names: vec!["n1".into()], days: 3_650 };
    let request = make_request("n").expect("made");
    let sign = || {
        Issuing::facts(&authority.issuing.sign(&request.der, &subject, NOW_US).expect("signed"))
            .expect("facts")
    };
    let (one, two) = (sign(), sign());
    assert_eq!(one.not_after_us, NOW_US + i64::from(ISSUING_DAYS) * dtm_types::DAY_US);
    assert_ne!(one.serial, two.serial);
}
