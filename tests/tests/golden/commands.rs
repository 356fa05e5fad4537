//! Commands: each operation, and a bundle of several as it lies in the log.

use dtm_types::command::command::Op;
use dtm_types::command::{
    Actor, ActorKind, Anchor, AppendBatch, Bundle, CloseSession, Command, CountRefusals,
    DeclareLost, Genesis, OpenSession, PutKey, RaiseVersion, RefusalCount, RewrapKeys,
};
use dtm_types::format::{Form, Mode};
use dtm_types::{bundle, version_of};
use prost::Message;

use crate::file::{Golden, id};
use crate::rows::wrapped_key;
use crate::{admin, formats, ledger};

pub(crate) fn command(op: Op) -> Command {
    let actor = Actor { kind: ActorKind::Operator.into(), id: id(2) };
    Command { request_id: id(1), actor: Some(actor), op: Some(op) }
}

fn open_session() -> OpenSession {
    OpenSession {
        source: "tinh-01".into(),
        stream: "main".into(),
        dataset: "payment".into(),
        schema_version: 4,
        mode: Mode::Realtime.into(),
        form: Form::Masked.into(),
        ids_by_sequence: true,
        acked_through: 8_000,
        incarnation: 9,
        month: 24_322,
        stream_names_max: 100_000,
        quarantine_records_max: 10_000,
        quarantine_bytes_max: 67_108_864,
    }
}

/// Every operation but those of meta.
fn operations() -> Vec<(&'static str, Op)> {
    let append = AppendBatch {
        body: Some(formats::entry_body()),
        quarantine_bytes: 2_000,
        quarantine_beyond: 3,
        reported: 4,
        unmasked: 5,
    };
    let close = CloseSession {
        source: "tinh-01".into(),
        stream: "main".into(),
        session: 3,
        finished: true,
    };
    let lost = DeclareLost {
        source: "tinh-01".into(),
        stream: "main".into(),
        session: 3,
        from_sequence: 400,
        to_sequence: 500,
    };
    let count = |prefix: &str, count| RefusalCount {
        prefix: prefix.into(),
        code: "unauthenticated".into(),
        count,
    };
    let counts = vec![count("192.0.2.0/24", 3), count("other", 300)];
    vec![
        ("open_session", Op::OpenSession(open_session())),
        ("append_batch", Op::AppendBatch(append)),
        ("close_session", Op::CloseSession(close)),
        ("declare_lost", Op::DeclareLost(lost)),
        ("put_key", Op::PutKey(PutKey { key: Some(wrapped_key(1)) })),
        ("genesis", Op::Genesis(Genesis { genesis: Some(ledger::genesis()) })),
        ("count_refusals", Op::CountRefusals(CountRefusals { counts })),
        ("rewrap_keys", Op::RewrapKeys(RewrapKeys { keys: vec![wrapped_key(1), wrapped_key(2)] })),
        ("raise_version", Op::RaiseVersion(RaiseVersion { version: 2 })),
    ]
}

#[test]
fn commands_of_every_operation() {
    let mut golden = Golden::open("commands", "dtm.command.v1");
    for (name, op) in operations() {
        let command = command(op);
        assert_eq!(version_of(&command.encode_to_vec()), Some(1), "{name}");
        golden.message(&format!("Command/{name}"), &command);
    }
    let groups = vec![ledger::anchored(1), ledger::anchored(300)];
    let anchor = command(Op::Anchor(Anchor { groups, incarnation: 2 }));
    assert_eq!(version_of(&anchor.encode_to_vec()), Some(2));
    golden.message("Command/anchor", &anchor);
    for (version, name, action) in admin::actions() {
        let command = command(Op::Admin(action));
        assert_eq!(version_of(&command.encode_to_vec()), Some(version), "{name}");
        golden.message(&format!("Command/admin.{name}"), &command);
    }
    let commands = operations().into_iter().take(2).map(|(_, op)| command(op)).collect();
    let whole = Bundle { time_us: 1_795_000_000_000_001, node: id(2), commands };
    golden.message("Bundle", &whole);
    golden.close();
}

#[test]
fn a_bundle_as_it_lies_in_the_log() {
    let mut golden = Golden::open("bundle", "bytes");
    for version in [bundle::VERSION, bundle::VERSION_MAX] {
        let mut builder = bundle::Builder::of_version(version, 1_795_000_000_000_001, &[2; 16], 0);
        let commands: Vec<Command> =
            operations().into_iter().skip(2).map(|(_, op)| command(op)).collect();
        commands.iter().for_each(|command| builder.push(&command.encode_to_vec()));
        let kept = golden.bytes(&format!("bundle/{version}"), builder.finish());
        assert_eq!(kept[0], version);
        assert_eq!(bundle::decode(&kept).unwrap().commands, commands, "it opens");
    }
    golden.close();
}
