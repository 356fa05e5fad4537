use super::*;
use crate::DataKey;
use proptest::prelude::*;
use std::sync::LazyLock;

const ID: KeyId = KeyId([9; 16]);

static SOURCE: LazyLock<SourceId> = LazyLock::new(|| SourceId::parse("tinh-01").expect("a code"));
static CONTEXT: LazyLock<WrapContext<'static>> = LazyLock::new(|| WrapContext {
    purpose: KeyPurpose::Data,
    group: GroupId(3),
    source: Some(&SOURCE),
    month: Month(2026 * 12 + 10),
    key_id: KeyId([7; 16]),
});

fn cluster_key() -> ClusterKey {
    ClusterKey::from_bytes(&mut [2; 32])
}

fn wrapped() -> [u8; WRAPPED_BYTES] {
    let key = DataKey::from_bytes(&mut [1; 32]);
    wrap_key(&cluster_key(), ID, &CONTEXT, &[3; 24], &key)
}

/// From an independent implementation (Python's cryptography).
#[test]
fn golden() {
    let expected = concat!(
        "01030303030303030303030303030303030303030303030303b6fd26afdd7bb3b621014cbbdcea7b4d",
        "5746e8c582ef0b3989c04bff29b15720e62911e44ca4f8cf480706ea7702e8fc"
    );
    assert_eq!(hex::encode(wrapped()), expected);
    let key: DataKey = unwrap_key(&cluster_key(), ID, &CONTEXT, &wrapped()).expect("own");
    assert_eq!(key.expose(), &[1; 32]);
}

#[test]
fn unwraps_nowhere_else() {
    let tried = |key: &ClusterKey, id: KeyId, context: &WrapContext<'_>| {
        unwrap_key::<DataKey>(key, id, context, &wrapped()).map(|_| ())
    };
    assert_eq!(tried(&cluster_key(), ID, &CONTEXT), Ok(()));
    let other = SourceId::parse("tinh-02").expect("a code");
    for context in [
        WrapContext { purpose: KeyPurpose::Audit, ..*CONTEXT },
        WrapContext { purpose: KeyPurpose::Unspecified, ..*CONTEXT },
        WrapContext { group: GroupId(4), ..*CONTEXT },
        WrapContext { source: Some(&other), ..*CONTEXT },
        WrapContext { source: None, ..*CONTEXT },
        WrapContext { month: Month(CONTEXT.month.0 + 1), ..*CONTEXT },
        WrapContext { key_id: KeyId([8; 16]), ..*CONTEXT },
    ] {
        assert_eq!(tried(&cluster_key(), ID, &context), Err(Error::Unauthentic));
    }
    assert_eq!(tried(&cluster_key(), KeyId([8; 16]), &CONTEXT), Err(Error::Unauthentic));
    let other = ClusterKey::from_bytes(&mut [3; 32]);
    assert_eq!(tried(&other, ID, &CONTEXT), Err(Error::Unauthentic));
}

#[test]
fn other_versions_and_lengths_say_so() {
    let unwrap =
        |bytes: &[u8]| unwrap_key::<DataKey>(&cluster_key(), ID, &CONTEXT, bytes).map(|_| ());
    let mut newer = wrapped();
    newer[0] = 2;
    assert_eq!(unwrap(&newer), Err(Error::WrapVersion(2)));
    assert_eq!(unwrap(&[]), Err(Error::WrapLength { found: 0 }));
    assert_eq!(unwrap(&wrapped()[..72]), Err(Error::WrapLength { found: 72 }));
    assert_eq!(unwrap(&[&wrapped()[..], &[0]].concat()), Err(Error::WrapLength { found: 74 }));
}

proptest! {
    #[test]
    fn a_changed_bit_is_refused(bit in 8usize..WRAPPED_BYTES * 8) {
        let mut bytes = wrapped();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let answer = unwrap_key::<DataKey>(&cluster_key(), ID, &CONTEXT, &bytes);
        prop_assert_eq!(answer.map(|_| ()), Err(Error::Unauthentic));
    }
}
