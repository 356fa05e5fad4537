use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use dtm_identity::Identity;
use dtm_types::DAY_US;
use dtm_types::text::Lang;

use super::*;
use crate::pki::{
    self, Authority, InitOptions, Subject, cluster_init, make_authority, make_request,
};

#[expect(clippy::disallowed_methods, reason = "certificates hold by the machine's clock")]
fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_micros()).expect("fits")
}

/// A node as `dtm cluster init` makes it, in a folder of its own.
struct Made {
    scratch: tempfile::TempDir,
    now_us: i64,
}

impl Made {
    fn new() -> Self {
        let made = Self { scratch: tempfile::tempdir().expect("a folder"), now_us: now_us() };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = InitOptions {
            folder: made.path(""),
            cluster_name: "thu".into(),
            node_name: "n1".into(),
            site: "main".into(),
            zone: "main".into(),
            advertise: vec!["127.0.0.1".into()],
            listen: [any; 3],
            operator: "lan".into(),
            ingest_groups: 1,
            production: false,
        };
        let keyring = |data: &Path, master: &Path, issuing: &pki::Issuing| {
            let made = dtm_doors::keyring::create(data, master, issuing, now_us());
            made.map_err(|e| pki::Error::Keyring(e.to_string()))
        };
        cluster_init(&options, made.now_us, &keyring).expect("made");
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join("c").join(name)
    }

    /// What `dtm config check` says, after more lines of configuration.
    fn says(&self, more: &str) -> Vec<Problem> {
        let text = fs::read_to_string(self.path("dtm.toml")).expect("reads");
        fs::write(self.path("check.toml"), format!("{text}\n{more}\n")).expect("written");
        let config = crate::config::load(&self.path("check.toml")).expect("it reads").config;
        problems(&self.path("check.toml"), &config, self.now_us)
    }

    /// The keys that are told, each with words in both languages.
    fn keys(&self, more: &str) -> Vec<String> {
        let found = self.says(more);
        for problem in &found {
            for text in [problem.tell(Lang::Vi), problem.tell(Lang::En)] {
                assert!(!text.contains("check.remedy") && !text.contains("{"), "{text}");
            }
        }
        found.into_iter().map(|problem| problem.key).collect()
    }

    /// A certificate of another authority in place of the node's, with its key.
    fn certificate(&self, authority: &Authority, identity: Identity, at_us: i64) {
        let request = make_request("x").expect("made");
        let subject = Subject { identity, names: vec!["127.0.0.1".into()], days: 30 };
        let chain = authority.issuing.sign(&request.der, &subject, at_us).expect("signed");
        fs::write(self.path("tls/node.pem"), pki::pem(&chain)).expect("written");
        fs::write(self.path("tls/node.key"), request.key_pem.as_bytes()).expect("written");
    }
}

#[test]
fn a_fresh_node_has_no_problem_and_nothing_is_written() {
    let made = Made::new();
    let count = || walk(&made.path("data"));
    made.keys("");
    let before = count();
    assert_eq!(made.keys(""), Vec::<String>::new());
    assert_eq!(count(), before, "nothing is written below the data folder");
}

/// Every path below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("reads") {
        let path = entry.expect("reads").path();
        if path.is_dir() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn everything_that_serve_would_refuse_is_told_at_once() {
    let made = Made::new();
    fs::set_permissions(made.path("keys/master.key"), fs::Permissions::from_mode(0o644))
        .expect("set");
    fs::write(made.path("tls/ca.pem"), "nothing").expect("written");
    fs::remove_file(made.path("tls/node.key")).expect("removed");
    let held = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = held.local_addr().expect("an address");
    let more = format!(
        "[telemetry]\nlog = \"dtm=loud\"\n[limits]\ndisk_reserved_bytes = {}\n",
        64_u64 << 30
    );
    let text = fs::read_to_string(made.path("dtm.toml")).expect("reads");
    let text = text.replace("https = \"127.0.0.1:0\"", &format!("https = \"{port}\""));
    fs::write(made.path("dtm.toml"), text).expect("written");
    let mut keys = made.keys(&more);
    keys.retain(|key| key != "node.data"); // where the disk has more room than is kept back
    let wanted = ["tls.key", "keys.master_key_file", "tls.ca", "node.https", "telemetry.log"];
    assert_eq!(keys, wanted);
}

#[test]
fn certificates_are_held_against_key_root_and_clock() {
    let made = Made::new();
    let node = tls::named_node(&made.path("tls/node.pem")).expect("a node");
    let identity = Identity::Node { cluster: node.0, node: node.1 };
    let good = fs::read(made.path("tls/node.key")).expect("reads");
    fs::write(made.path("tls/node.key"), make_request("x").expect("made").key_pem.as_bytes())
        .expect("written");
    assert_eq!(made.keys(""), ["tls.key"], "the key of another certificate");
    fs::write(made.path("tls/node.key"), good).expect("written");

    let late = Made { now_us: made.now_us + 4_000 * DAY_US, ..made };
    let told = late.says("");
    assert_eq!(told[0].key, "tls.certificate");
    assert!(told[0].what.key() == "check.expired", "{told:?}");
    let early = Made { now_us: late.now_us - 5_000 * DAY_US, ..late };
    assert_eq!(early.says("")[0].what.key(), "check.not_yet");

    let made = Made { now_us: now_us(), ..early };
    let authority = make_authority("other", made.now_us).expect("made");
    made.certificate(&authority, identity, made.now_us);
    let told = made.says("");
    assert_eq!(told[0].what.key(), "check.other_root", "{told:?}");
    let operator = Identity::Operator {
        cluster: node.0,
        name: "lan".into(),
        role: dtm_identity::Role::Operator,
    };
    made.certificate(&authority, operator, made.now_us);
    assert_eq!(made.keys(""), ["tls.certificate"], "no node's certificate");
}

#[test]
fn keyring_and_data_of_others_are_told() {
    let (made, other) = (Made::new(), Made::new());
    let keep = fs::read(made.path("keys/master.key")).expect("reads");
    fs::copy(other.path("keys/master.key"), made.path("keys/master.key")).expect("copied");
    let told = made.says("");
    assert_eq!((told.len(), told[0].what.key()), (1, "check.wrong_master"), "{told:?}");
    fs::write(made.path("keys/master.key"), keep).expect("written");

    fs::copy(other.path("data/genesis.toml"), made.path("data/genesis.toml")).expect("copied");
    assert_eq!(made.says("")[0].what.key(), "check.belonging");
    fs::remove_dir_all(made.path("data")).expect("removed");
    assert_eq!(made.keys(""), ["node.data"]);
}

#[test]
fn one_port_stands_once() {
    let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
    assert!(is_same(at("0.0.0.0:9443"), at("127.0.0.1:9443")));
    assert!(is_same(at("127.0.0.1:1"), at("127.0.0.1:1")));
    assert!(!is_same(at("127.0.0.1:1"), at("127.0.0.2:1")));
    assert!(!is_same(at("127.0.0.1:0"), at("127.0.0.1:0")), "another one each time");
    let made = Made::new();
    let text = fs::read_to_string(made.path("dtm.toml")).expect("reads");
    let free = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    fs::write(made.path("dtm.toml"), text.replace("127.0.0.1:0", &free.to_string()))
        .expect("written");
    assert_eq!(made.keys(""), ["node.grpc", "node.peers"]);
}
