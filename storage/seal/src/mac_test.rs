use crate::{DataKey, Secret, SourceKey};
use dtm_types::StreamKey;
use proptest::prelude::*;

fn key(source: &str, stream: &str) -> StreamKey {
    StreamKey::parse(source, stream).expect("allowed names")
}

fn data_key() -> DataKey {
    DataKey::from_bytes(&mut [1; 32])
}

fn source_key() -> SourceKey {
    SourceKey::from_bytes(&mut [1; 32])
}

/// From an independent implementation (Python's hmac module).
#[test]
fn golden() {
    let salts = data_key().salt_key();
    let salt = |source, stream, sequence| hex::encode(salts.salt(&key(source, stream), sequence));
    assert_eq!(salt("tinh-01", "door.n1", 1), "9a1912e50ec05755e032731ae291a353");
    let long = "x".repeat(64);
    assert_eq!(salt("tinh-01", &long, 1 << 63), "661d889f7305503cf53a1597cadcbe62");
    let tag = source_key().tag_key().resend_tag(b"{\"a\":1}");
    assert_eq!(hex::encode(tag), "da7126d74c038403dcbda1a7d0ede9f3");
    let fingerprint = source_key().fingerprint_key().fingerprint("payment", "M-1");
    assert_eq!(hex::encode(fingerprint), "ba5cd812e1aaeac310c8fdc1faefa789");
}

#[test]
fn names_do_not_run_into_each_other() {
    let salts = data_key().salt_key();
    assert_ne!(salts.salt(&key("ab", "c"), 1), salts.salt(&key("a", "bc"), 1));
    let fingerprints = source_key().fingerprint_key();
    assert_ne!(fingerprints.fingerprint("ab", "c"), fingerprints.fingerprint("a", "bc"));
}

proptest! {
    #[test]
    fn salts_differ_by_key_source_stream_and_sequence(
        source in "[a-z0-9][a-z0-9.-]{0,62}",
        stream in "[a-z0-9.-]{1,127}",
        sequence: u64,
    ) {
        let salts = data_key().salt_key();
        let of = |source: &str, stream: &str| salts.salt(&key(source, stream), sequence);
        let salt = of(&source, &stream);
        prop_assert_eq!(salts.stream(&key(&source, &stream)).salt(sequence), salt);
        prop_assert_ne!(salts.salt(&key(&source, &stream), sequence ^ 1), salt);
        prop_assert_ne!(of(&format!("{source}x"), &stream), salt);
        prop_assert_ne!(of(&source, &format!("{stream}x")), salt);
        let other = DataKey::from_bytes(&mut [2; 32]).salt_key();
        prop_assert_ne!(other.salt(&key(&source, &stream), sequence), salt);
    }

    #[test]
    fn resend_tags_tell_content_apart(
        content in prop::collection::vec(any::<u8>(), 1..3_000),
        place: prop::sample::Index,
    ) {
        let tags = source_key().tag_key();
        let mut other = content.clone();
        other[place.index(content.len())] ^= 1;
        prop_assert_eq!(tags.resend_tag(&content), tags.resend_tag(&content));
        prop_assert_ne!(tags.resend_tag(&content), tags.resend_tag(&other));
    }
}
