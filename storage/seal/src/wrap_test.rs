use super::*;
use crate::DataKey;
use proptest::prelude::*;

const CONTEXT: WrapContext<'static> = WrapContext {
    purpose: Purpose::Data,
    group: 3,
    source: "tinh-01",
    month: 2026 * 12 + 10,
    key_id: &[7; 16],
};

fn cluster_key() -> ClusterKey {
    ClusterKey::from_bytes(&mut [2; 32])
}

fn wrapped() -> [u8; WRAPPED_BYTES] {
    let key = DataKey::from_bytes(&mut [1; 32]);
    wrap_key(&cluster_key(), &[9; 16], &CONTEXT, &[3; 24], &key)
}

#[test]
fn golden() {
    assert_eq!(
        hex::encode(wrapped()),
        "01030303030303030303030303030303030303030303030303b6fd26afdd7bb3b621014cbbdcea7b4d5746e8c582ef0b3989c04bff29b15720e62911e44ca4f8cf480706ea7702e8fc"
    );
    let key: DataKey = unwrap_key(&cluster_key(), &[9; 16], &CONTEXT, &wrapped()).expect("own");
    assert_eq!(key.expose(), &[1; 32]);
}

#[test]
fn unwraps_nowhere_else() {
    let tried = |key: &ClusterKey, id: &KeyId, context: &WrapContext<'_>| {
        unwrap_key::<DataKey>(key, id, context, &wrapped()).map(|_| ())
    };
    assert_eq!(tried(&cluster_key(), &[9; 16], &CONTEXT), Ok(()));
    for context in [
        WrapContext {
            purpose: Purpose::Audit,
            ..CONTEXT
        },
        WrapContext {
            group: 4,
            ..CONTEXT
        },
        WrapContext {
            source: "tinh-02",
            ..CONTEXT
        },
        WrapContext {
            source: "",
            ..CONTEXT
        },
        WrapContext {
            month: CONTEXT.month + 1,
            ..CONTEXT
        },
        WrapContext {
            key_id: &[8; 16],
            ..CONTEXT
        },
    ] {
        assert_eq!(
            tried(&cluster_key(), &[9; 16], &context),
            Err(Error::Unauthentic)
        );
    }
    assert_eq!(
        tried(&cluster_key(), &[8; 16], &CONTEXT),
        Err(Error::Unauthentic)
    );
    let other = ClusterKey::from_bytes(&mut [3; 32]);
    assert_eq!(tried(&other, &[9; 16], &CONTEXT), Err(Error::Unauthentic));
}

#[test]
fn other_versions_and_lengths_say_so() {
    let unwrap =
        |bytes: &[u8]| unwrap_key::<DataKey>(&cluster_key(), &[9; 16], &CONTEXT, bytes).map(|_| ());
    let mut newer = wrapped();
    newer[0] = 2;
    assert_eq!(unwrap(&newer), Err(Error::WrapVersion(2)));
    assert_eq!(unwrap(&[]), Err(Error::WrapLength { found: 0 }));
    assert_eq!(
        unwrap(&wrapped()[..72]),
        Err(Error::WrapLength { found: 72 })
    );
    assert_eq!(
        unwrap(&[&wrapped()[..], &[0]].concat()),
        Err(Error::WrapLength { found: 74 })
    );
}

proptest! {
    #[test]
    fn a_changed_bit_is_refused(bit in 8usize..WRAPPED_BYTES * 8) {
        let mut bytes = wrapped();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let answer = unwrap_key::<DataKey>(&cluster_key(), &[9; 16], &CONTEXT, &bytes);
        prop_assert_eq!(answer.map(|_| ()), Err(Error::Unauthentic));
    }
}
