//! Renewals: when they are due, and what a crash in the middle of one leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dtm_identity::{Certificate, Identity};
use dtm_types::{ClusterId, DAY_US, NodeId};

use super::*;

const NOW_US: i64 = 1_800_000_000_000_000;

fn identity() -> Identity {
    Identity::Node { cluster: ClusterId([7; 16]), node: NodeId([1; 16]) }
}

fn own(not_before_us: i64, not_after_us: i64) -> Certificate {
    Certificate {
        identity: identity(),
        digest: [0; 32],
        serial: vec![1],
        not_before_us,
        not_after_us,
    }
}

#[test]
fn a_certificate_is_due_when_its_share_is_left_and_never_where_the_share_is_zero() {
    let held = own(0, 300 * DAY_US);
    assert!(!is_due(&held, 33, 200 * DAY_US), "33.3 % are left");
    assert!(is_due(&held, 33, 201 * DAY_US));
    assert!(is_due(&held, 33, 400 * DAY_US), "it has ended");
    assert!(!is_due(&held, 0, 400 * DAY_US), "never by itself");
    assert!(is_due(&own(i64::MIN, i64::MAX), 1, i64::MAX), "no sum is too large");
}

#[test]
fn a_pair_is_replaced_whole_and_completed_after_a_crash_at_any_step() {
    let scratch = tempfile::tempdir().expect("a folder");
    let path = |name: &str| scratch.path().join(name);
    let (certificate, key) = (path("node.pem"), path("node.key"));
    let authority = make_authority("ours", NOW_US).expect("made");
    let made = || {
        let request = make_request("n1").expect("made");
        let names = ["n1".to_owned()];
        let chain = authority.issuing.sign_node(&request.der, identity(), &names, NOW_US);
        (request, chain.expect("signed"))
    };
    let ((old, old_chain), (new, chain)) = (made(), made());
    let holds_new = || {
        assert_eq!(fs::read_to_string(&key).expect("a key").trim(), new.key_pem.trim());
        assert_eq!(read_certificates(&certificate).expect("a chain"), chain);
        let mode = fs::metadata(&key).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "a key is nobody else's");
        assert!(!path("node.key.renewed").exists() && !path("node.key.new").exists());
        assert!(!complete(&certificate, &key).expect("looks"), "it is done once");
    };
    write_private(&key, old.key_pem.as_bytes()).expect("written");
    write_public(&certificate, pem(&old_chain).as_bytes()).expect("written");
    replace_pair(&certificate, &key, &new.key_pem, &chain).expect("replaced");
    holds_new();

    // The file of the renewal is there; nothing, the key, or both were replaced. What a write left
    // half done beside them does not matter.
    for (key_pem, held) in
        [(&old.key_pem, &old_chain), (&new.key_pem, &old_chain), (&new.key_pem, &chain)]
    {
        fs::write(&key, key_pem.as_bytes()).expect("written");
        fs::write(&certificate, pem(held)).expect("written");
        fs::write(path("node.key.new"), "half").expect("written");
        let both = format!("{}{}", *new.key_pem, pem(&chain));
        fs::write(path("node.key.renewed"), both).expect("written");
        assert!(complete(&certificate, &key).expect("completed"));
        holds_new();
    }

    for damaged in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        fs::write(path("node.key.renewed"), damaged).expect("written");
        let refused = complete(&certificate, &key).expect_err("no renewal").to_string();
        assert!(refused.contains("node.key.renewed"), "{refused}");
    }
    assert_eq!(read_certificates(&certificate).expect("a chain"), chain, "untouched");
}
