#![allow(clippy::unwrap_used)]

use super::*;
use crate::keys::ring::{HeldKey, KeyInfo};
use crate::vfs::MemVfs;
use dtm_seal::{ClusterKey, MasterKey, Secret};
use dtm_types::KeyId;

fn master(byte: u8) -> Master {
    Master::new(MasterKey::from_bytes(&mut [byte; 32]), "test")
}

/// Answers always the same byte.
struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(self.0);
    }
}

fn ring() -> Ring {
    let held = |id, current, byte| HeldKey {
        info: KeyInfo { id: KeyId([id; 16]), created_us: 1_790_000_000_000_000, current },
        key: ClusterKey::from_bytes(&mut [byte; 32]),
    };
    let mut ring =
        Ring { keys: vec![held(1, false, 0xa1), held(2, true, 0xa2)], ..Ring::default() };
    ring.secrets.insert("issuer".to_owned(), Zeroizing::new(b"der".to_vec()));
    ring
}

/// Made by an independent implementation (Python's cryptography): version 1 opens for ever.
const GOLDEN: &str = concat!(
    "44544d4b4559533001dc2c678afeeb8bee1d8fe6f6c72a1d5d04040404040404040404040404040404040404",
    "0404040404000000867b20c6da02ccc8499b1e989e8eac94bedf43b2977c5a25145eb6c24355d1a3e70b324f",
    "531166a4dec51f830930231303eba10f199a864ec1b635241d5bd86b1c0ef0ac6f0bb89d3b7a812880d330bb",
    "4fbcf626ffbbdddf6f96a05bc29b70354874d8b7e7150087347bc5bd29dd1badf4d2297f15cce445d20b6ddd",
    "c6ac43239c7eafe510a81ff322b213b5c42691bb8331ff0063dd961328dae0",
);

#[test]
fn golden() {
    assert_eq!(hex::encode(seal(&ring(), &master(3), &Fixed(4))), GOLDEN);
    let opened = open(&hex::decode(GOLDEN).unwrap(), Path::new("keyring"), &master(3)).unwrap();
    assert_eq!(opened.encode(), ring().encode());
}

#[test]
fn every_flipped_bit_is_damage_and_nothing_else() {
    let good = seal(&ring(), &master(3), &Fixed(4));
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = open(&bytes, Path::new("keyring"), &master(3)).err().expect("refused");
        let version = bit / 8 == 8;
        assert_eq!(matches!(error, Error::Version { .. }), version, "bit {bit}: {error}");
        assert_eq!(matches!(error, Error::Damaged { .. }), !version, "bit {bit}: {error}");
    }
    for cut in 0..good.len() {
        let error = open(&good[..cut], Path::new("keyring"), &master(3)).err().expect("refused");
        assert!(matches!(error, Error::Damaged { .. }), "cut at {cut}: {error}");
    }
}

/// A forger can mend the checksum but not the seal.
#[test]
fn a_forged_file_is_refused() {
    let good = seal(&ring(), &master(3), &Fixed(4));
    for at in 25..good.len() - 4 {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let covered = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..covered]).to_be_bytes();
        bytes[covered..].copy_from_slice(&crc);
        let error = open(&bytes, Path::new("keyring"), &master(3)).err().expect("refused");
        assert!(matches!(error, Error::Damaged { what: "seal" | "length", .. }), "{at}: {error}");
    }
}

#[test]
fn no_key_or_name_stands_in_clear_in_the_file() {
    let vfs = MemVfs::new(1);
    replace(&vfs, Path::new("/k"), &ring(), &master(3), &Fixed(4), false).unwrap();
    let bytes = vfs.bytes(Path::new("/k/keyring")).unwrap();
    for secret in [[0xa1u8; 8].as_slice(), &[0xa2; 8], &[3; 8], b"issuer", b"der"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{secret:?}");
    }
}

#[test]
fn a_ring_that_is_not_exactly_one_ring_is_refused() {
    let good = ring().encode().to_vec();
    for cut in 0..good.len() {
        assert!(Ring::decode(&good[..cut]).is_none(), "cut at {cut}");
    }
    assert!(Ring::decode(&[good.as_slice(), &[0]].concat()).is_none());
    let mut two_current = good.clone();
    two_current[2 + 17] = 1;
    assert!(Ring::decode(&two_current).is_none());
    let mut none_current = good.clone();
    none_current[2 + 58 + 17] = 0;
    assert!(Ring::decode(&none_current).is_none());
    let mut twice = good;
    twice[2 + 58 + 1..2 + 58 + 17].fill(1);
    assert!(Ring::decode(&twice).is_none());
}
