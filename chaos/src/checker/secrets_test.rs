//! SEC-1: a canary is found wherever it lies, and a nonce that comes twice is named.

use dtm_types::StreamKey;
use dtm_types::command::Command;
use dtm_types::command::command::Op;
use dtm_types::format::{EntryBody, HeaderA};
use prost::Message;

use super::{Breach, Canaries, Nonces};
use crate::sandbox::commands;

fn canaries() -> Canaries {
    let mut canaries = Canaries::default();
    canaries.add("the name", "Nguyễn Văn Bí Mật".as_bytes());
    canaries
}

// holds: SEC-1
#[test]
fn a_canary_is_found_in_any_file_and_any_shape() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("clean"), vec![b'N'; 3 << 20]).unwrap();
    let canaries = canaries();
    let clean = canaries.search_folder(folder.path()).unwrap();
    assert_eq!((clean.files, clean.bytes, clean.breaches), (1, 3 << 20, vec![]));
    let secret = "Nguyễn Văn Bí Mật".as_bytes();
    // Over the edge of what is read at once.
    let split = [&vec![b'x'; (1 << 20) - 5][..], secret].concat();
    std::fs::write(path.join("split"), split).unwrap();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(path.join("hex"), format!("key={hex};")).unwrap();
    std::fs::write(path.join("Nguyễn Văn Bí Mật"), "empty").unwrap();
    let found = canaries.search_folder(folder.path()).unwrap();
    assert_eq!(found.breaches.len(), 3, "{:?}", found.breaches);
    let shown = format!("{:?}", found.breaches.iter().find(|b| format!("{b}").contains("split")));
    assert!(!shown.contains("Bí Mật"), "the secret is not shown: {shown}");
    assert!(canaries.search_bytes("metrics", b"nothing").is_none());
}

fn body(first: u64) -> EntryBody {
    let stream = StreamKey::parse("a", "s").unwrap();
    let command = Command::decode(commands::batch(&stream, 1, first, 2)).unwrap();
    let Some(Op::AppendBatch(append)) = command.op else { panic!("a batch") };
    append.body.unwrap()
}

fn with_nonce(mut body: EntryBody, nonce: &[u8; 24]) -> EntryBody {
    let mut header = HeaderA::decode(body.header_a.clone()).unwrap();
    header.nonce = nonce.to_vec().into();
    body.header_a = header.encode_to_vec().into();
    body
}

// holds: SEC-1
#[test]
fn a_nonce_twice_under_one_key_is_named() {
    let mut nonces = Nonces::default();
    for first in [1, 3, 5, 5, 1] {
        nonces.sealed(&body(first));
    }
    assert_eq!((nonces.seen(), nonces.breaches().len()), (3, 0), "one batch seen twice is one");
    nonces.sealed(&with_nonce(body(7), &[9; 24]));
    nonces.sealed(&with_nonce(body(9), &[9; 24]));
    assert!(matches!(nonces.breaches(), [Breach::NonceTwice { .. }]));
}
