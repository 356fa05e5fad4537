//! Whether this software knows a command: asked before it enters a log, since every node that does
//! not know it would stop the group there.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// `request_id` and `actor` of a command, then its operations.
const COMMAND_PLAIN: std::ops::RangeInclusive<u32> = 1..=2;
const COMMAND_OPS: std::ops::RangeInclusive<u32> = 10..=19;
const ADMIN: u32 = 15;
const ADMIN_PLAIN: std::ops::RangeInclusive<u32> = 1..=3;
const ADMIN_OPS: std::ops::RangeInclusive<u32> = 10..=25;

/// True when the encoded [`Command`](crate::command::Command) holds one operation that this software
/// knows and nothing that it does not know. Walks over the outermost fields only.
// Hot path: every command that is proposed.
pub fn is_known(command: &[u8]) -> bool {
    match operation(command, COMMAND_PLAIN, COMMAND_OPS) {
        Some((ADMIN, admin)) => operation(admin, ADMIN_PLAIN, ADMIN_OPS).is_some(),
        found => found.is_some(),
    }
}

/// The one operation of a message, with its bytes.
fn operation(
    mut rest: &[u8],
    plain: std::ops::RangeInclusive<u32>,
    ops: std::ops::RangeInclusive<u32>,
) -> Option<(u32, &[u8])> {
    let mut found = None;
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest).ok()?;
        if ops.contains(&tag) {
            if wire_type != WireType::LengthDelimited || found.is_some() {
                return None;
            }
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let (body, behind) = rest.split_at_checked(length)?;
            (found, rest) = (Some((tag, body)), behind);
        } else if plain.contains(&tag) {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).ok()?;
        } else {
            return None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::command::{Actor, Admin, Command, NodeRow, RaiseVersion, admin, command::Op};

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
    fn what_this_software_writes_is_known() {
        assert!(is_known(&command(Some(Op::RaiseVersion(RaiseVersion { version: 2 })))));
        let admin = |op| Admin { expected_version: Some(3), op, ..Admin::default() };
        let put = admin(Some(admin::Op::PutNode(NodeRow::default())));
        assert!(is_known(&command(Some(Op::Admin(put)))));
        assert!(!is_known(&command(Some(Op::Admin(admin(None))))), "an empty action");
        assert!(!is_known(&command(None)) && !is_known(b""), "an empty command");
    }

    #[test]
    fn every_number_of_the_contract_is_known_and_none_beyond() {
        for tag in COMMAND_OPS.filter(|tag| *tag != ADMIN) {
            assert!(is_known(&field(tag, b"")));
            // A number that the generated code does not know would decode to no operation.
            assert!(Command::decode(&*field(tag, b"")).expect("decodes").op.is_some(), "{tag}");
        }
        for tag in ADMIN_OPS {
            let action = field(tag, b"");
            assert!(is_known(&field(ADMIN, &action)));
            assert!(Admin::decode(&*action).expect("decodes").op.is_some(), "{tag}");
        }
        let (next, next_admin) = (COMMAND_OPS.end() + 1, ADMIN_OPS.end() + 1);
        assert!(!is_known(&field(next, b"x")) && !is_known(&field(ADMIN, &field(next_admin, b""))));
        let newer = Command::decode(&*field(next, b"")).expect("decodes");
        assert!(newer.op.is_none(), "the contract has {next}: widen COMMAND_OPS");
        let admin = Admin::decode(&*field(next_admin, b"")).expect("decodes");
        assert!(admin.op.is_none(), "the contract has {next_admin}: widen ADMIN_OPS");
        let mut newer = command(Some(Op::RaiseVersion(RaiseVersion::default())));
        newer.extend(field(3, b"a field of a later release"));
        assert!(!is_known(&newer));
        for cut in 1..newer.len() {
            let _ = is_known(&newer[..cut]);
        }
    }
}
