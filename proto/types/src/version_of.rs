//! Which version of a group a command needs: asked before it enters a log, since every node that
//! does not know what it holds would stop the group there, or drop what it does not know and part
//! from the others.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::bundle;

include!("generated/versions.rs");

const _: () = assert!(NEWEST == bundle::VERSION_MAX, "each version has its fields in the list");

/// `Command` in the table.
const COMMAND: usize = 0;

/// The lowest version of a group that may hold the encoded
/// [`Command`](crate::command::Command): that of the newest field in it. `None` where it is not one
/// operation, or holds anything that this software does not know. Bytes within it (sealed content,
/// headers) are not looked into: what they hold has versions of its own.
// Hot path: every command that is proposed.
pub fn version_of(command: &[u8]) -> Option<u8> {
    if command.is_empty() { None } else { version_in(COMMAND, command) }
}

/// The table has no loop, so the depth is bounded by the contracts.
fn version_in(message: usize, mut rest: &[u8]) -> Option<u8> {
    let fields = MESSAGES[message];
    let (mut newest, mut chosen) = (bundle::VERSION, 0);
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).ok()?;
        let &(_, version, within, is_choice) = fields.iter().find(|field| field.0 == tag)?;
        newest = newest.max(version);
        chosen += u32::from(is_choice);
        if within == 0 {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).ok()?;
            continue;
        }
        if wire_type != WireType::LengthDelimited {
            return None;
        }
        let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
        let (body, behind) = rest.split_at_checked(length)?;
        newest = newest.max(version_in(within, body)?);
        rest = behind;
    }
    let has_choices = fields.iter().any(|field| field.3);
    (chosen == u32::from(has_choices)).then_some(newest)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::command::{
        Actor, Admin, AppendBatch, ClusterRow, Command, GroupRow, NodeRow, PutSettings,
        RaiseVersion, ReplicaRow, RotateClusterKey, TransferLeader, admin, command::Op,
    };
    use crate::format::EntryBody;

    /// SHA-256 of the lines of each version that was closed.
    const CLOSED: [(u8, &str); 1] =
        [(1, "0eeb686cf7d40bd0b7b86d40c150c60dcb2de2142826d9f5b30a70bf85a683dd")];

    fn command(op: Option<Op>) -> Vec<u8> {
        let actor = Some(Actor { kind: 1, id: vec![1; 16].into() });
        Command { request_id: vec![2; 16].into(), actor, op }.encode_to_vec()
    }

    fn field(tag: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::bytes::encode(tag, &body.to_vec(), &mut bytes);
        bytes
    }

    #[test]
    fn what_was_there_from_the_beginning_is_of_version_one() {
        let raise = Op::RaiseVersion(RaiseVersion { version: 2 });
        assert_eq!(version_of(&command(Some(raise))), Some(1));
        let admin = |op| Admin { expected_version: Some(3), op, ..Admin::default() };
        let replicas = vec![ReplicaRow { replica: 7, ..ReplicaRow::default() }; 3];
        let group = GroupRow { group: 1, replicas, next_replica_id: 8 };
        let put = admin(Some(admin::Op::PutGroup(group)));
        assert_eq!(version_of(&command(Some(Op::Admin(put)))), Some(1));
        let body = Some(EntryBody { sealed: vec![0xff; 99].into(), ..EntryBody::default() });
        let append = AppendBatch { body, unmasked: 1, ..AppendBatch::default() };
        assert_eq!(version_of(&command(Some(Op::AppendBatch(append)))), Some(1));
        assert_eq!(version_of(&command(Some(Op::Admin(admin(None))))), None, "an empty action");
        assert_eq!((version_of(&command(None)), version_of(b"")), (None, None), "empty");
    }

    #[test]
    fn operations_that_came_later_wait_for_their_version() {
        let admin = |op| Op::Admin(Admin { op: Some(op), ..Admin::default() });
        let transfer = TransferLeader { groups: vec![1, 300], to: vec![3; 16].into() };
        let transfer = admin(admin::Op::TransferLeader(transfer));
        let rotate = admin(admin::Op::RotateClusterKey(RotateClusterKey::default()));
        let pending =
            ClusterRow { pending_cluster_key_id: vec![3; 16].into(), ..Default::default() };
        let pending = admin(admin::Op::PutCluster(pending));
        let settings = admin(admin::Op::PutSettings(PutSettings::default()));
        for op in [transfer, rotate, pending, settings] {
            assert_eq!(version_of(&command(Some(op.clone()))), Some(2), "{op:?}");
        }
        let row = admin(admin::Op::PutCluster(ClusterRow::default()));
        assert_eq!(version_of(&command(Some(row))), Some(1));
    }

    #[test]
    fn every_operation_of_the_contract_is_known_and_nothing_beyond() {
        let choices = |of: usize| MESSAGES[of].iter().filter(|field| field.3).copied();
        let admin = choices(COMMAND).find(|&(tag, ..)| tag == 15).expect("admin").2;
        for (tag, version, ..) in choices(COMMAND).filter(|field| field.2 != admin) {
            assert_eq!(version_of(&field(tag, b"")), Some(version));
            assert!(Command::decode(&*field(tag, b"")).expect("decodes").op.is_some(), "{tag}");
            let twice = [field(tag, b""), field(tag, b"")].concat();
            assert_eq!(version_of(&twice), None, "two operations");
        }
        for (tag, version, ..) in choices(admin) {
            let action = field(tag, b"");
            assert_eq!(version_of(&field(15, &action)), Some(version));
            assert!(Admin::decode(&*action).expect("decodes").op.is_some(), "{tag}");
        }
        assert_eq!(version_of(&field(99, b"x")), None);
        assert_eq!(version_of(&field(15, &field(99, b""))), None);
    }

    #[test]
    fn a_field_of_a_later_release_is_found_however_deep() {
        let put = |row: Vec<u8>| field(15, &field(16, &row));
        let row = NodeRow { name: "a".into(), ..NodeRow::default() }.encode_to_vec();
        assert_eq!(version_of(&put(row.clone())), Some(1));
        let newer = [row, field(99, b"of a later release")].concat();
        assert_eq!(version_of(&put(newer.clone())), None);
        for cut in 0..newer.len() {
            let _ = version_of(&put(newer.clone())[..cut]);
        }
    }

    #[test]
    fn the_lines_of_closed_versions_stay() {
        let list = include_str!("../../versions.txt");
        let mut sections = list.split("\nversion ").skip(1);
        for (version, digest) in CLOSED {
            let section = sections.next().expect("listed");
            let (number, lines) = section.split_once('\n').expect("lines");
            assert_eq!(number, version.to_string());
            let mut lines: Vec<&str> = lines.lines().filter(|l| l.starts_with("dtm.")).collect();
            lines.sort_unstable();
            let found = hex::encode(Sha256::digest(lines.join("\n")));
            assert_eq!(found, digest, "version {version} is closed: open a new one");
        }
    }
}
