//! The entries of two logs: a little of everything that a group goes through.

use bytes::Bytes;
use dtm_types::command::admin::Op as Action;
use dtm_types::command::command::Op;
use dtm_types::command::{
    Actor, ActorKind, Admin, Anchor, AppendBatch, BootNode, CloseSession, ClusterRow, Command,
    CountRefusals, DatasetRow, DeclareLost, DenyApproval, Genesis, GrantApproval, GroupRow,
    JoinTokenRow, NodeRow, OpenSession, OperatorRow, PutKey, PutSettings, RaiseVersion,
    RefusalCount, RemoveNode, ReplicaRow, RequestApproval, ResendQuarantined, RevokeOperator,
    RevokeSourceCertificate, RevokeSourceKey, RewrapKeys, RotateClusterKey, SettingChange,
    SourceCertificateRow, SourceKeyRow, SourceRow, TransferLeader, UseJoinToken,
};
use dtm_types::format::{self, EntryBody, HeaderA, HeaderB, KeyPurpose, WrappedKey};
use dtm_types::{Month, bundle};
use prost::Message;

use crate::file::{digest, id};

const TIME_US: i64 = 1_795_000_000_000_000;
const SOURCE: &str = "tinh-01";

/// Numbers requests and bundles.
struct Log {
    entries: Vec<Bytes>,
    requests: u8,
    version: u8,
}

impl Log {
    fn new() -> Self {
        Self { entries: Vec::new(), requests: 0, version: bundle::VERSION }
    }

    /// Adds one bundle, a second after the one before.
    fn add(&mut self, ops: Vec<Op>) {
        self.add_by(8, ops);
    }

    fn add_by(&mut self, who: u8, ops: Vec<Op>) {
        let time_us = TIME_US + 1_000_000 * self.entries.len() as i64;
        let mut builder = bundle::Builder::of_version(self.version, time_us, &[7; 16], 0);
        for op in ops {
            self.requests += 1;
            let actor = Some(Actor { kind: ActorKind::Source.into(), id: id(who) });
            let command = Command { request_id: id(self.requests), actor, op: Some(op) };
            builder.push(&command.encode_to_vec());
        }
        self.entries.push(builder.finish());
    }

    fn raise(&mut self) {
        self.add(vec![Op::RaiseVersion(RaiseVersion { version: 2 })]);
        self.version = 2;
    }
}

fn genesis(group: u32) -> Op {
    let genesis = format::Genesis {
        cluster_id: id(9),
        group,
        incarnation: 1,
        cause: "init".into(),
        ..format::Genesis::default()
    };
    Op::Genesis(Genesis { genesis: Some(genesis) })
}

fn key(of: u8, purpose: KeyPurpose, source: &str, cluster_key: u8) -> WrappedKey {
    let month = Month::of_micros(TIME_US).0;
    WrappedKey {
        key_id: id(of),
        purpose: purpose.into(),
        source: source.into(),
        month: if purpose == KeyPurpose::Source { 0 } else { month },
        cluster_key_id: id(cluster_key),
        wrapped: vec![of; 73].into(),
    }
}

fn open(stream: &str) -> Op {
    Op::OpenSession(OpenSession {
        source: SOURCE.into(),
        stream: stream.into(),
        dataset: "payment".into(),
        schema_version: 1,
        month: Month::of_micros(TIME_US).0,
        stream_names_max: 10,
        quarantine_records_max: 100,
        quarantine_bytes_max: 10_000,
        ..OpenSession::default()
    })
}

/// A batch from a sequence on; a message id and a content for each record.
fn batch(stream: &str, first: u64, ids: &[u8], refused: &[u8]) -> Op {
    let count = ids.len();
    let header = HeaderA {
        version: 1,
        suite: 1,
        codec: 1,
        source: SOURCE.into(),
        stream: stream.into(),
        session: 1,
        first_sequence: first,
        last_sequence: first + count as u64 - 1,
        dataset: "payment".into(),
        schema_version: 1,
        form: 1,
        mode: 1,
        time_us: TIME_US,
        key_id: id(1),
        nonce: vec![4; 24].into(),
        plain_bytes: 1_000,
        count: count as u32,
        refusal_bitmap: refused.to_vec().into(),
        record_root: digest(5),
        ..HeaderA::default()
    };
    let part_b = HeaderB { ciphertext_digest: digest(6), tag: id(7) };
    let tags: Vec<u8> = (0..count).flat_map(|n| [first as u8 + n as u8; 16]).collect();
    let body = EntryBody {
        header_a: header.encode_to_vec().into(),
        header_b: part_b.encode_to_vec().into(),
        record_hashes: vec![8; 32 * count].into(),
        resend_tags: tags.into(),
        fingerprints: ids.iter().flat_map(|&id| [id; 16]).collect::<Vec<u8>>().into(),
        sealed: vec![9; 10].into(),
    };
    let is_refused = u32::from(!refused.is_empty());
    Op::AppendBatch(AppendBatch {
        body: Some(body),
        quarantine_bytes: 20 * u64::from(is_refused),
        quarantine_beyond: 0,
        reported: 1,
        unmasked: 1,
    })
}

/// What an ingest group goes through.
pub(crate) fn ingest() -> Vec<Bytes> {
    let mut log = Log::new();
    let data = || key(1, KeyPurpose::Data, SOURCE, 3);
    let put = |key| Op::PutKey(PutKey { key: Some(key) });
    let stream = || (SOURCE.to_owned(), "main".to_owned());
    log.add(vec![genesis(1)]);
    log.add(vec![put(data()), put(key(2, KeyPurpose::Source, SOURCE, 3))]);
    log.add(vec![open("main"), open("door.n1"), open("file")]);
    log.add(vec![batch("main", 1, &[1, 2, 0], &[0b100])]);
    // A second time: already held; through another stream: a double; from too far on: a gap.
    log.add(vec![batch("main", 1, &[1, 2, 0], &[0b100]), batch("door.n1", 1, &[3, 2], &[])]);
    log.add(vec![batch("main", 9, &[5], &[]), batch("file", 1, &[6; 1], &[])]);
    let ((source, stream_name), session) = (stream(), 1);
    let (from_sequence, to_sequence) = (4, 40);
    let lost = DeclareLost { source, stream: stream_name, session, from_sequence, to_sequence };
    log.add(vec![Op::DeclareLost(lost), batch("main", 41, &[0, 7], &[])]);
    let stream = "file".to_owned();
    let close = CloseSession { source: SOURCE.into(), stream, session, finished: true };
    log.add(vec![Op::CloseSession(close)]);
    let (prefix, code) = ("192.0.2.0/24".into(), "unauthenticated".into());
    let counts = vec![RefusalCount { prefix, code, count: 7 }];
    log.add(vec![Op::CountRefusals(CountRefusals { counts })]);
    let rewrapped = WrappedKey { cluster_key_id: id(4), wrapped: vec![44; 73].into(), ..data() };
    log.add(vec![Op::RewrapKeys(RewrapKeys { keys: vec![rewrapped] })]);
    log.raise();
    log.add(vec![open("main"), batch("main", 43, &[8], &[])]);
    log.entries
}

fn node(of: u8, name: &str) -> NodeRow {
    NodeRow {
        node: id(of),
        name: name.into(),
        site: "hn".into(),
        peer_address: format!("{name}:9444"),
        certificate_digest: digest(of),
        version_max: 2,
        ..NodeRow::default()
    }
}

fn boot() -> BootNode {
    BootNode {
        node: id(1),
        boot_counter: 5,
        software_version: "0.1.0".into(),
        version_max: 2,
        ..BootNode::default()
    }
}

fn source() -> SourceRow {
    SourceRow {
        source: SOURCE.into(), title_vi: "Tỉnh".into(), id: id(8), ..SourceRow::default()
    }
}

/// Actions of meta, in their order, before it is raised to version 2.
fn actions() -> Vec<Action> {
    let source = || SOURCE.to_owned();
    let cluster =
        ClusterRow { cluster_id: id(9), incarnation: 1, ingest_groups: 2, ..ClusterRow::default() };
    let replica = ReplicaRow { replica: 1, node: id(1), confirmed: true, ..ReplicaRow::default() };
    let group = GroupRow { group: 1, replicas: vec![replica], next_replica_id: 2 };
    let secret = SourceKeyRow {
        source: source(),
        key_id: vec![1; 8].into(),
        secret_hash: digest(2),
        ..SourceKeyRow::default()
    };
    let certificate = SourceCertificateRow {
        source: source(),
        digest: digest(3),
        serial: vec![4; 16].into(),
        not_after_us: 2 * TIME_US,
        ..SourceCertificateRow::default()
    };
    let dataset = DatasetRow {
        dataset: "payment".into(),
        schema_version: 1,
        definition: "id = \"payment\"".into(),
        digest: digest(5),
        published_us: 0,
    };
    let operator = OperatorRow {
        id: id(6),
        name: "an".into(),
        role: "auditor".into(),
        certificate_digest: digest(6),
        ..OperatorRow::default()
    };
    let token = JoinTokenRow {
        token_hash: digest(7),
        expires_us: 2 * TIME_US,
        zone: "b".into(),
        ..JoinTokenRow::default()
    };
    let join = UseJoinToken { token_hash: digest(7), node: Some(node(2, "n2")) };
    let resend = ResendQuarantined { source: source(), index: 4, ordinal: 0, record: 2, group: 1 };
    vec![
        Action::PutCluster(cluster),
        Action::PutNode(node(1, "n1")),
        Action::PutGroup(group),
        Action::PutSource(self::source()),
        Action::PutSource(SourceRow { source: "bo-y-te".into(), ..self::source() }),
        Action::PutSourceKey(secret.clone()),
        Action::PutSourceKey(SourceKeyRow { key_id: vec![9; 8].into(), ..secret }),
        Action::RevokeSourceKey(RevokeSourceKey { source: source(), key_id: vec![9; 8].into() }),
        Action::PutSourceCertificate(certificate),
        Action::RevokeSourceCertificate(RevokeSourceCertificate {
            source: source(),
            digest: digest(3),
        }),
        Action::PutDataset(dataset),
        Action::PutOperator(operator),
        Action::RevokeOperator(RevokeOperator { name: "an".into() }),
        Action::PutJoinToken(token),
        Action::UseJoinToken(join),
        Action::BootNode(boot()),
        Action::RemoveNode(RemoveNode { node: id(2), ..RemoveNode::default() }),
        Action::ResendQuarantined(resend),
    ]
}

/// An approval that is asked for by one and granted by another, then an anchor.
fn two_people(log: &mut Log, admin: impl Fn(Action) -> Op) {
    let person = |of: u8, certificate: u8, name: &str, role: &str| {
        Action::PutOperator(OperatorRow {
            id: id(of),
            name: name.into(),
            role: role.into(),
            certificate_digest: digest(certificate),
            revoked: false,
            not_after_us: 2 * TIME_US,
        })
    };
    log.add(vec![admin(person(10, 8, "binh", "operator"))]);
    log.add(vec![admin(person(11, 12, "chi", "approver"))]);
    let object = dtm_machine::approval::remove_node(&node(1, "n1"));
    let kind = dtm_machine::approval::REMOVE_NODE;
    let object_digest: Bytes = dtm_machine::approval::digest(kind, &object).to_vec().into();
    let asked = RequestApproval {
        id: id(13),
        kind: kind.into(),
        object,
        object_digest: object_digest.clone(),
        reason: "disk".into(),
        valid_us: 0,
    };
    log.add(vec![admin(Action::RequestApproval(asked))]);
    let granted = GrantApproval { id: id(13), object_digest, reason: "seen".into() };
    log.add_by(12, vec![admin(Action::GrantApproval(granted))]);
    let denied = DenyApproval { id: id(13), reason: "not now".into() };
    log.add_by(12, vec![admin(Action::DenyApproval(denied))]);
    let group = format::AnchoredGroup {
        group: 1,
        incarnation: 1,
        ledger_size: 20,
        ledger_root: digest(14),
        applied_index: 30,
        group_time_us: TIME_US,
    };
    log.add(vec![Op::Anchor(Anchor { groups: vec![group], incarnation: 1 })]);
    log.add(vec![Op::Anchor(Anchor { groups: Vec::new(), incarnation: 1 })]);
}

/// What meta goes through.
pub(crate) fn meta() -> Vec<Bytes> {
    let mut log = Log::new();
    let admin = |op| {
        Op::Admin(Admin {
            sealed_detail: vec![1; 57].into(),
            detail_digest: digest(2),
            expected_version: None,
            op: Some(op),
        })
    };
    log.add(vec![genesis(0)]);
    log.add(vec![Op::PutKey(PutKey { key: Some(key(1, KeyPurpose::Audit, "", 3)) })]);
    for action in actions() {
        log.add(vec![admin(action)]);
    }
    log.raise();
    let begin = RotateClusterKey { key_id: id(5), current: false };
    log.add(vec![admin(Action::RotateClusterKey(begin))]);
    let transfer = TransferLeader { groups: vec![1], to: id(1) };
    log.add(vec![admin(Action::TransferLeader(transfer))]);
    two_people(&mut log, admin);
    for (version, value) in [(0, Some("4096".to_owned())), (1, None)] {
        let change = SettingChange { key: "limits.record_bytes_max".into(), value };
        let put = Action::PutSettings(PutSettings { changes: vec![change], restores: 0 });
        let Op::Admin(put) = admin(put) else { unreachable!("an action") };
        log.add(vec![Op::Admin(Admin { expected_version: Some(version), ..put })]);
    }
    log.entries
}
