//! Salts, hashes, tags, fingerprints, tokens, seals and wrapped keys under fixed keys.

use dtm_ledger::{MerkleRoot, RecordHash};
use dtm_seal::{
    BatchCipher, ClusterKey, DataKey, MasterKey, Secret, SourceKey, WrapContext, unwrap_key,
    wrap_key,
};
use dtm_types::format::KeyPurpose;
use dtm_types::{GroupId, KeyId, Month, SourceId, StreamKey};

use crate::file::Golden;

const CONTENT: &[u8] = b"{\"n\":1}";

#[test]
fn what_is_made_of_a_record() {
    let mut golden = Golden::open("formulas", "bytes");
    let data = DataKey::from_bytes(&mut [1; 32]);
    let source = SourceKey::from_bytes(&mut [2; 32]);
    let stream = StreamKey::parse("tinh-01", "main").unwrap();
    let long = StreamKey::parse("tinh-01", &"x".repeat(100)).unwrap();
    let salt = data.salt_key().salt(&stream, 258);
    golden.bytes("salt", salt.to_vec());
    golden.bytes("salt/long", data.salt_key().salt(&long, 1 << 52).to_vec());
    let hashes = [1, 2, 3].map(|n| RecordHash::of(&salt, &[CONTENT, &[n]].concat()).0);
    golden.bytes("record_hash", RecordHash::of(&salt, CONTENT).0.to_vec());
    golden.bytes("record_root/1", MerkleRoot::of([hashes[0]]).0.to_vec());
    golden.bytes("record_root/3", MerkleRoot::of(hashes).0.to_vec());
    golden.bytes("resend_tag", source.tag_key().resend_tag(CONTENT).to_vec());
    let fingerprints = source.fingerprint_key();
    golden.bytes("fingerprint", fingerprints.fingerprint("payment", "M-1").to_vec());
    // As a session makes it (actors/src/batch/keys.rs).
    let token = fingerprints.fingerprint("\0ack", "tinh-01/main\x003\x00258");
    golden.bytes("ack_token", token.to_vec());
    golden.bytes("master_check", MasterKey::from_bytes(&mut [3; 32]).check_value().to_vec());
    golden.close();
}

#[test]
fn what_is_sealed_and_wrapped_opens() {
    let mut golden = Golden::open("seals", "bytes");
    let data = DataKey::from_bytes(&mut [1; 32]);
    let nonce: [u8; 24] = std::array::from_fn(|at| at as u8);
    let mut text = CONTENT.to_vec();
    let tag = data.cipher().seal_batch(&nonce, b"header A", &mut text).unwrap();
    let kept_text = golden.bytes("sealed", text);
    let kept_tag = golden.bytes("tag", tag.to_vec());
    let (mut text, tag) = (kept_text.to_vec(), kept_tag.as_ref().try_into().unwrap());
    data.cipher().open_batch(&nonce, b"header A", &mut text, &tag).unwrap();
    assert_eq!(text, CONTENT);

    let (source, key_id) = (SourceId::parse("tinh-01").unwrap(), KeyId([6; 16]));
    let cluster = ClusterKey::from_bytes(&mut [4; 32]);
    for (name, purpose, source, month) in [
        ("data", KeyPurpose::Data, Some(&source), Month(24_322)),
        ("source", KeyPurpose::Source, Some(&source), Month(0)),
        ("audit", KeyPurpose::Audit, None, Month(24_322)),
        ("backup", KeyPurpose::Backup, None, Month(0)),
    ] {
        let context = WrapContext { purpose, group: GroupId(7), source, month, key_id };
        let wrapped = wrap_key(&cluster, KeyId([5; 16]), &context, &nonce, &data);
        let kept = golden.bytes(&format!("wrapped/{name}"), wrapped.to_vec());
        let opened: DataKey = unwrap_key(&cluster, KeyId([5; 16]), &context, &kept).unwrap();
        assert_eq!(opened.expose(), data.expose());
    }
    golden.close();
}
