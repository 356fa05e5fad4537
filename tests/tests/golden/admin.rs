//! Actions of meta and the rows that they write.

use dtm_types::command::admin::Op;
use dtm_types::command::{
    Admin, Agreement, BootNode, ClusterRow, DatasetRow, GroupRow, JoinTokenRow, MaskRule, NodeRow,
    OperatorRow, RemoveNode, ReplicaRow, ResendQuarantined, RevokeOperator,
    RevokeSourceCertificate, RevokeSourceKey, RotateClusterKey, SourceCertificateRow, SourceKeyRow,
    SourceLimits, SourceRow, TransferLeader, UseJoinToken,
};
use dtm_types::format::{Form, Mode};

use crate::file::{Golden, digest, id};

fn source() -> SourceRow {
    let agreement = Agreement {
        dataset: "payment".into(),
        modes: vec![Mode::Realtime.into(), Mode::Batch.into()],
        form: Form::Masked.into(),
        masks: vec![MaskRule { pointer: "/payer/name".into(), rule: "hide".into() }],
        refuse_raw: true,
        security_status: 2,
        priority: 3,
        responsible_agency: "H57.08".into(),
    };
    let limits = SourceLimits {
        record_bytes_max: 1_000_001,
        frame_bytes_max: 1_000_002,
        in_flight_bytes_max: 1_000_003,
        streams_open_max: 4,
        stream_names_max: 5_000,
        quarantine_records_max: 6_000,
        quarantine_bytes_max: 7_000_000,
    };
    SourceRow {
        source: "tinh-01".into(),
        title_vi: "Tỉnh một".into(),
        title_en: "Province one".into(),
        agency_code: "H57".into(),
        class: "local".into(),
        sector: "finance".into(),
        locality: "01".into(),
        agreements: vec![agreement, Agreement::default()],
        limits: Some(limits),
        group: 10,
        suspended: true,
        id: id(12),
        version: 13,
        created_us: 1_795_000_000_000_014,
    }
}

fn source_key() -> SourceKeyRow {
    SourceKeyRow {
        source: "tinh-01".into(),
        key_id: vec![2; 8].into(),
        secret_hash: digest(3),
        not_before_us: 1_795_000_000_000_004,
        not_after_us: 1_795_000_000_000_005,
        revoked: true,
    }
}

fn certificate() -> SourceCertificateRow {
    SourceCertificateRow {
        source: "tinh-01".into(),
        digest: digest(2),
        serial: vec![3; 20].into(),
        issued_us: 1_795_000_000_000_004,
        not_after_us: 1_795_000_000_000_005,
        revoked: true,
    }
}

fn dataset() -> DatasetRow {
    DatasetRow {
        dataset: "payment".into(),
        schema_version: 2,
        definition: "id = \"payment\"".into(),
        digest: digest(4),
        published_us: 1_795_000_000_000_005,
    }
}

fn operator() -> OperatorRow {
    OperatorRow {
        id: id(1),
        name: "an".into(),
        role: "approver".into(),
        certificate_digest: digest(4),
        revoked: true,
        not_after_us: 1_795_000_000_000_006,
    }
}

fn node() -> NodeRow {
    NodeRow {
        node: id(1),
        name: "n1".into(),
        site: "hn".into(),
        zone: "a".into(),
        grpc_address: "n1:9443".into(),
        peer_address: "n1:9444".into(),
        https_address: "n1:8443".into(),
        boot_counter: 8,
        draining: true,
        removed: true,
        certificate_digest: digest(11),
        software_version: "0.1.0".into(),
        version_max: 13,
    }
}

fn token() -> JoinTokenRow {
    JoinTokenRow {
        token_hash: digest(1),
        expires_us: 1_795_000_000_000_002,
        site: "hn".into(),
        zone: "a".into(),
        used: true,
    }
}

fn group() -> GroupRow {
    let replica =
        ReplicaRow { replica: 1, node: id(2), removed: true, confirmed: true, leaving: false };
    GroupRow { group: 1, replicas: vec![replica, ReplicaRow::default()], next_replica_id: 3_000 }
}

/// With the mark that came with version 2.
fn group_that_changes() -> GroupRow {
    let replica = ReplicaRow { replica: 4, node: id(2), leaving: true, ..ReplicaRow::default() };
    GroupRow { group: 1, replicas: vec![replica], next_replica_id: 5 }
}

fn cluster() -> ClusterRow {
    ClusterRow {
        cluster_id: id(1),
        name: "dtm".into(),
        incarnation: 3,
        ingest_groups: 12,
        production: true,
        cluster_key_id: id(6),
        pending_cluster_key_id: Default::default(),
    }
}

/// Each action with the version of meta that it needs.
pub(crate) fn actions() -> Vec<(u8, &'static str, Admin)> {
    let admin = |op| Admin {
        sealed_detail: vec![1; 80].into(),
        detail_digest: digest(2),
        expected_version: Some(3),
        op: Some(op),
    };
    let source = || "tinh-01".to_owned();
    let resend =
        ResendQuarantined { source: source(), index: 2_000, ordinal: 3, record: 4, group: 5 };
    let boot =
        BootNode { node: id(1), boot_counter: 2, software_version: "0.1.0".into(), version_max: 4 };
    let rotating = ClusterRow { pending_cluster_key_id: id(7), ..cluster() };
    let version_1 = [
        ("put_source", Op::PutSource(self::source())),
        ("put_source_key", Op::PutSourceKey(source_key())),
        (
            "revoke_source_key",
            Op::RevokeSourceKey(RevokeSourceKey { source: source(), key_id: vec![2; 8].into() }),
        ),
        ("put_dataset", Op::PutDataset(dataset())),
        ("put_operator", Op::PutOperator(operator())),
        ("revoke_operator", Op::RevokeOperator(RevokeOperator { name: "an".into() })),
        ("put_node", Op::PutNode(node())),
        ("remove_node", Op::RemoveNode(RemoveNode { node: id(1) })),
        ("put_join_token", Op::PutJoinToken(token())),
        (
            "use_join_token",
            Op::UseJoinToken(UseJoinToken { token_hash: digest(1), node: Some(node()) }),
        ),
        ("put_group", Op::PutGroup(group())),
        ("put_cluster", Op::PutCluster(cluster())),
        ("boot_node", Op::BootNode(boot)),
        ("resend_quarantined", Op::ResendQuarantined(resend)),
        ("put_source_certificate", Op::PutSourceCertificate(certificate())),
        (
            "revoke_source_certificate",
            Op::RevokeSourceCertificate(RevokeSourceCertificate {
                source: source(),
                digest: digest(2),
            }),
        ),
    ];
    let version_2 = [
        ("put_cluster.rotating", Op::PutCluster(rotating)),
        ("put_group.leaving", Op::PutGroup(group_that_changes())),
        ("transfer_leader", Op::TransferLeader(TransferLeader { groups: vec![1, 300], to: id(2) })),
        (
            "rotate_cluster_key",
            Op::RotateClusterKey(RotateClusterKey { key_id: id(1), current: true }),
        ),
    ];
    let first = version_1.into_iter().map(|(name, op)| (1, name, admin(op)));
    first.chain(version_2.into_iter().map(|(name, op)| (2, name, admin(op)))).collect()
}

#[test]
fn rows_of_meta() {
    let mut golden = Golden::open("rows-meta", "dtm.command.v1");
    golden.message("SourceRow", &source());
    golden.message("SourceKeyRow", &source_key());
    golden.message("SourceCertificateRow", &certificate());
    golden.message("DatasetRow", &dataset());
    golden.message("OperatorRow", &operator());
    golden.message("NodeRow", &node());
    golden.message("JoinTokenRow", &token());
    golden.message("GroupRow", &group());
    golden.message("GroupRow/leaving", &group_that_changes());
    golden.message("ClusterRow", &cluster());
    let rotating = ClusterRow { pending_cluster_key_id: id(7), ..cluster() };
    golden.message("ClusterRow/rotating", &rotating);
    golden.close();
}
