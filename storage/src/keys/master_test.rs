#![allow(clippy::unwrap_used)]

use super::*;
use dtm_machine::seams::SeededEntropy;
use std::path::PathBuf;

fn file(dir: &Path, text: &[u8], mode: u32) -> PathBuf {
    let path = dir.join("master.key");
    drop(std::fs::remove_file(&path));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).unwrap();
    file.write_all(text).unwrap();
    // Not subject to the umask of whoever runs the tests.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn reads_hexadecimal_and_base64() {
    let dir = tempfile::tempdir().unwrap();
    let key: [u8; 32] = std::array::from_fn(|i| i as u8 * 7);
    for text in [
        hex::encode(key),
        hex::encode_upper(key),
        format!("{}\n", hex::encode(key)),
        format!(" {}\r\n", STANDARD.encode(key)),
        STANDARD.encode(key),
    ] {
        for mode in [0o600, 0o400] {
            let master = Master::read(&file(dir.path(), text.as_bytes(), mode)).unwrap();
            assert_eq!(master.key.expose(), &key);
        }
    }
}

#[test]
fn a_file_open_to_others_is_refused_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o644, 0o640, 0o604, 0o660, 0o602, 0o601] {
        let path = file(dir.path(), hex::encode([1; 32]).as_bytes(), mode);
        let error = Master::read(&path).unwrap_err();
        assert!(matches!(&error, Error::MasterExposed { mode: m, .. } if *m == mode), "{error}");
        assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
    }
}

#[test]
fn what_is_no_key_is_refused_without_showing_it() {
    let dir = tempfile::tempdir().unwrap();
    let hex = hex::encode([0xabu8; 32]);
    for text in [
        String::new(),
        "\n".to_owned(),
        hex[..63].to_owned(),
        format!("{hex}0"),
        format!("{}g", &hex[..63]),
        format!("{hex}\n{hex}"),
        STANDARD.encode([0xab; 31]),
        STANDARD.encode([0xab; 33]),
        STANDARD.encode([0xab; 32]).replace('=', "!"),
        format!("{hex}{}", " ".repeat(1_000)) + "x",
        "x".repeat(100_000),
    ] {
        let error = Master::read(&file(dir.path(), text.as_bytes(), 0o600)).unwrap_err();
        assert!(matches!(error, Error::MasterMalformed { .. }), "{text:.80}: {error}");
        assert!(!error.to_string().contains("abab"), "{error}");
    }
    let error = Master::read(dir.path()).unwrap_err();
    assert!(matches!(error, Error::MasterMalformed { .. }), "{error}");
    let error = Master::read(&dir.path().join("absent")).unwrap_err();
    assert!(matches!(error, Error::MasterMissing { .. }), "{error}");
    assert!(error.to_string().contains("absent"), "{error}");
}

#[test]
fn a_new_file_is_private_readable_again_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    let entropy = SeededEntropy::new(7);
    let made = Master::create(&path, &entropy).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Master::read(&path).unwrap().key.expose(), made.key.expose());
    assert_ne!(made.key.expose(), &[0; 32]);

    let error = Master::create(&path, &entropy).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. }
        if source.kind() == io::ErrorKind::AlreadyExists));
    assert!(format!("{made:?}").starts_with("Master { key: MasterKey(…), origin"));
}
