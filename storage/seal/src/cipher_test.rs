use super::*;
use crate::{DataKey, Secret};
use proptest::prelude::*;

/// The vectors of C2SP XAES-256-GCM, with the carry bit clear and set.
#[test]
fn official_vectors() {
    let nonce = *b"ABCDEFGHIJKLMNOPQRSTUVWX";
    for (byte, header, batch_key, sealed) in [
        (
            1u8,
            "",
            "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
            "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
        ),
        (
            3,
            "c2sp.org/XAES-256-GCM",
            "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        ),
    ] {
        let cipher = Xaes256Gcm::new(&[byte; 32]);
        assert_eq!(hex::encode(cipher.batch_key(&nonce).as_slice()), batch_key);
        let mut text = *b"XAES-256-GCM";
        let tag = cipher.seal_batch(&nonce, header.as_bytes(), &mut text).expect("short");
        assert_eq!(hex::encode([&text[..], &tag[..]].concat()), sealed);
        cipher.open_batch(&nonce, header.as_bytes(), &mut text, &tag).expect("own bytes");
        assert_eq!(&text, b"XAES-256-GCM");
    }
}

/// The accumulated test of C2SP XAES-256-GCM: 10,000 random messages, one hash over all.
#[test]
fn official_accumulated_vector() {
    let mut random = Shake128::default();
    random.finish_absorbing();
    let mut hash = Shake128::default();
    for _ in 0..10_000 {
        let (key, nonce) = (random.array::<32>(), random.array::<24>());
        let [length] = random.array::<1>();
        let mut text = random.bytes(usize::from(length));
        let [length] = random.array::<1>();
        let header = random.bytes(usize::from(length));
        let plain = text.clone();

        let cipher = Xaes256Gcm::new(&key);
        let tag = cipher.seal_batch(&nonce, &header, &mut text).expect("short");
        hash.absorb(&text);
        hash.absorb(&tag);
        cipher.open_batch(&nonce, &header, &mut text, &tag).expect("own bytes");
        assert_eq!(text, plain);
    }
    hash.finish_absorbing();
    assert_eq!(
        hex::encode(hash.array::<32>()),
        "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
    );
}

#[test]
fn bytes_sealed_by_this_build_are_golden() {
    let mut text = *b"{\"maHoSo\":\"000.00.00.G01\"}";
    let cipher = DataKey::from_bytes(&mut [1; 32]).cipher();
    let tag = cipher.seal_batch(&[2; 24], b"header", &mut text).expect("short");
    assert_eq!(
        hex::encode([&text[..], &tag[..]].concat()),
        "d97d01ab055871ff96c3ad11e867c057503fc0b44bc63baa2a40969c52547ae8cb00791648a1b3165520"
    );
}

#[test]
fn a_failed_opening_leaves_the_sealed_bytes() {
    let cipher = Xaes256Gcm::new(&[9; 32]);
    let mut text = vec![5u8; 10_000];
    let tag = cipher.seal_batch(&[1; 24], b"a", &mut text).expect("short");
    let sealed = text.clone();
    let answer = cipher.open_batch(&[1; 24], b"b", &mut text, &tag);
    assert_eq!(answer, Err(Error::Unauthentic));
    assert_eq!(text, sealed);
}

proptest! {
    // holds: SEC-1
    #[test]
    fn what_was_altered_is_never_opened(
        key: [u8; 32],
        nonce: [u8; 24],
        header in prop::collection::vec(any::<u8>(), 0..300),
        plain in prop::collection::vec(any::<u8>(), 0..5_000),
        place: prop::sample::Index,
        bit in 0u8..8,
    ) {
        let cipher = Xaes256Gcm::new(&key);
        let mut sealed = plain.clone();
        let tag = cipher.seal_batch(&nonce, &header, &mut sealed).expect("short");
        let open = |key: &[u8; 32], nonce: &Nonce, header: &[u8], sealed: &[u8], tag: &Tag| {
            let mut text = sealed.to_vec();
            Xaes256Gcm::new(key).open_batch(nonce, header, &mut text, tag).map(|()| text)
        };
        prop_assert_eq!(open(&key, &nonce, &header, &sealed, &tag), Ok(plain));

        let refused = Err(Error::Unauthentic);
        let bent = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = place.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes
        };
        let other_key: [u8; 32] = bent(&key).try_into().expect("32");
        prop_assert_eq!(open(&other_key, &nonce, &header, &sealed, &tag), refused.clone());
        let other_nonce: Nonce = bent(&nonce).try_into().expect("24");
        prop_assert_eq!(open(&key, &other_nonce, &header, &sealed, &tag), refused.clone());
        let other_tag: Tag = bent(&tag).try_into().expect("16");
        prop_assert_eq!(open(&key, &nonce, &header, &sealed, &other_tag), refused.clone());
        if !header.is_empty() {
            prop_assert_eq!(open(&key, &nonce, &bent(&header), &sealed, &tag), refused.clone());
        }
        if !sealed.is_empty() {
            prop_assert_eq!(open(&key, &nonce, &header, &bent(&sealed), &tag), refused.clone());
            let shorter = &sealed[..sealed.len() - 1];
            prop_assert_eq!(open(&key, &nonce, &header, shorter, &tag), refused);
        }
    }

    /// What makes a repeated nonce impossible while the 24 bytes differ: a difference in the
    /// first 12 gives another AES-GCM key, one in the last 12 another AES-GCM nonce. So the same
    /// plaintext never looks the same twice, nor does its key stream repeat.
    // holds: SEC-1
    #[test]
    fn two_nonces_never_share_key_and_inner_nonce(
        key: [u8; 32],
        nonce: [u8; 24],
        bit in 0usize..192,
        plain in prop::collection::vec(any::<u8>(), 16..2_000),
    ) {
        let cipher = Xaes256Gcm::new(&key);
        let mut other = nonce;
        other[bit / 8] ^= 1 << (bit % 8);
        let (first, second) = (cipher.batch_key(&nonce), cipher.batch_key(&other));
        prop_assert_ne!((&*first, &nonce[12..]), (&*second, &other[12..]));
        prop_assert_eq!(*first != *second, bit < 96);

        let (mut one, mut two) = (plain.clone(), plain);
        let first_tag = cipher.seal_batch(&nonce, b"", &mut one).expect("short");
        let second_tag = cipher.seal_batch(&other, b"", &mut two).expect("short");
        prop_assert_ne!(first_tag, second_tag);
        // No block of 16 bytes at the same place is equal (chance 2^-128 each).
        for (a, b) in one.chunks_exact(16).zip(two.chunks_exact(16)) {
            prop_assert_ne!(a, b);
        }
    }
}

/// SHAKE-128 (FIPS 202), slow and plain, for the accumulated test only.
#[derive(Default)]
struct Shake128 {
    lanes: [u64; 25],
    at: usize,
}

impl Shake128 {
    const RATE: usize = 168;

    fn absorb(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.mix(byte);
            self.at += 1;
            self.permute_when_full();
        }
    }

    fn finish_absorbing(&mut self) {
        self.mix(0x1f);
        self.at = Self::RATE - 1;
        self.mix(0x80);
        self.at = Self::RATE;
        self.permute_when_full();
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| {
                let byte = (self.lanes[self.at / 8] >> (self.at % 8 * 8)) as u8;
                self.at += 1;
                self.permute_when_full();
                byte
            })
            .collect()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.bytes(N).try_into().expect("as many as asked for")
    }

    fn mix(&mut self, byte: u8) {
        self.lanes[self.at / 8] ^= u64::from(byte) << (self.at % 8 * 8);
    }

    fn permute_when_full(&mut self) {
        if self.at < Self::RATE {
            return;
        }
        self.at = 0;
        let a = &mut self.lanes;
        let mut lfsr = 1u8;
        for _ in 0..24 {
            let column: [u64; 5] = std::array::from_fn(|x| (0..5).fold(0, |c, y| c ^ a[x + 5 * y]));
            for (i, lane) in a.iter_mut().enumerate() {
                *lane ^= column[(i + 4) % 5] ^ column[(i + 1) % 5].rotate_left(1);
            }
            let (mut x, mut y, mut moving) = (1, 0, a[1]);
            for t in 1..=24u32 {
                (x, y) = (y, (2 * x + 3 * y) % 5);
                let turned = moving.rotate_left(t * (t + 1) / 2 % 64);
                moving = std::mem::replace(&mut a[x + 5 * y], turned);
            }
            for row in a.chunks_exact_mut(5) {
                let old: [u64; 5] = std::array::from_fn(|x| row[x]);
                for (x, lane) in row.iter_mut().enumerate() {
                    *lane = old[x] ^ (!old[(x + 1) % 5] & old[(x + 2) % 5]);
                }
            }
            for j in 0..7 {
                if lfsr & 1 == 1 {
                    a[0] ^= 1 << ((1u32 << j) - 1);
                }
                lfsr = (lfsr << 1) ^ ((lfsr >> 7) * 0x71);
            }
        }
    }
}
