//! Actions of meta and the rows that they write.

use dtm_types::command::admin::Op;
use dtm_types::command::{
    AckLevel, Admin, Agreement, ApprovalRow, ApprovalState, BootNode, ClusterRow, DatasetRow,
    DenyApproval, DetachSite, EnterBackup, EnterLine, GrantApproval, GroupRow,
    IssueNodeCertificate, JoinTokenRow, LayoutKind, LayoutRow, LayoutSeat, LeftAction, LineChange,
    MaskRule, NodeRow, OperatorRow, PutSettings, RemoveNode, ReplicaRow, RequestApproval,
    ResendQuarantined, RevokeOperator, RevokeSourceCertificate, RevokeSourceKey, RotateClusterKey,
    Setting, SettingChange, SettingsRow, SettleLeft, SourceCertificateRow, SourceKeyRow,
    SourceLimits, SourceRow, TransferLeader, UseJoinToken,
};
use dtm_types::format::{Form, Mode};

use crate::file::{Golden, digest, id};

fn settings() -> SettingsRow {
    let setting = |key: &str, value: &str| Setting { key: key.into(), value: value.into() };
    SettingsRow {
        version: 3,
        settings: vec![
            setting("limits.record_bytes_max", "4096"),
            setting("raft.heartbeat_ms", "140"),
        ],
        time_us: 1_795_000_000_000_009,
        actor_id: id(4),
        restores: 1,
    }
}

fn put_settings() -> PutSettings {
    let changes = vec![
        SettingChange { key: "limits.record_bytes_max".into(), value: Some("4096".into()) },
        SettingChange { key: "limits.streams_open_max".into(), value: None },
    ];
    PutSettings { changes, restores: 1 }
}

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
        ack_level: 0,
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

fn source_at_site() -> SourceRow {
    let agreement = Agreement {
        dataset: "payment".into(),
        modes: vec![Mode::Realtime.into()],
        form: Form::Raw.into(),
        ack_level: AckLevel::Site.into(),
        ..Agreement::default()
    };
    SourceRow { source: "tinh-01".into(), agreements: vec![agreement], ..SourceRow::default() }
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
        sites_address: String::new(),
    }
}

/// With the field of version 2.
fn node_of_a_site() -> NodeRow {
    NodeRow { sites_address: "n1:9445".into(), ..node() }
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
    let replica = ReplicaRow {
        replica: 1,
        node: id(2),
        removed: true,
        confirmed: true,
        ..ReplicaRow::default()
    };
    GroupRow { group: 1, replicas: vec![replica, ReplicaRow::default()], next_replica_id: 3_000 }
}

/// With the mark that came with version 2.
fn group_that_changes() -> GroupRow {
    let replica = ReplicaRow { replica: 4, node: id(2), leaving: true, ..ReplicaRow::default() };
    GroupRow { group: 1, replicas: vec![replica], next_replica_id: 5 }
}

/// With the other mark of version 2.
fn group_with_a_standby() -> GroupRow {
    let replica = ReplicaRow { replica: 4, node: id(2), standby: true, ..ReplicaRow::default() };
    GroupRow { group: 1, replicas: vec![replica], next_replica_id: 5 }
}

/// As a row; a command leaves version and time out.
fn layout() -> LayoutRow {
    LayoutRow {
        kind: LayoutKind::Standby.into(),
        primary: "hn".into(),
        other: "hcm".into(),
        arbiter: "dn".into(),
        version: 5,
        time_us: 1_795_000_000_000_006,
        seats: vec![LayoutSeat { place: "hn".into(), node: id(1), acceptor: id(2) }],
        incarnation: 2,
        ..LayoutRow::default()
    }
}

fn layout_that_is_held() -> LayoutRow {
    LayoutRow { held_until_us: 1_795_000_000_000_007, ..layout() }
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

fn approval() -> ApprovalRow {
    let (kind, object) = ("remove-node", "node=00000000-0000-0000-0000-000000000001 name=n1");
    ApprovalRow {
        id: id(1),
        kind: kind.into(),
        object: object.into(),
        object_digest: dtm_machine::approval::digest(kind, object).to_vec().into(),
        reason: "ổ đĩa hỏng".into(),
        state: ApprovalState::Used.into(),
        requested_by: id(7),
        requested_us: 1_795_000_000_000_008,
        expires_us: 1_795_000_000_000_009,
        decided_by: id(10),
        decided_us: 1_795_000_000_000_011,
        decision_reason: "seen".into(),
        used_by: id(13),
        used_us: 1_795_000_000_000_014,
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
        ("remove_node", Op::RemoveNode(RemoveNode { node: id(1), ..RemoveNode::default() })),
        ("put_join_token", Op::PutJoinToken(token())),
        (
            "use_join_token",
            Op::UseJoinToken(UseJoinToken { token_hash: digest(1), node: Some(node()) }),
        ),
        ("put_group", Op::PutGroup(group())),
        ("put_cluster", Op::PutCluster(cluster())),
        ("boot_node", Op::BootNode(boot())),
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
    let first = version_1.into_iter().map(|(name, op)| (1, name, admin(op)));
    first.chain(of_version_2().into_iter().map(|(name, op)| (2, name, admin(op)))).collect()
}

fn boot() -> BootNode {
    BootNode {
        node: id(1),
        boot_counter: 2,
        software_version: "0.1.0".into(),
        version_max: 4,
        ..BootNode::default()
    }
}

fn of_version_2() -> [(&'static str, Op); 20] {
    let boot_of_a_site = BootNode { sites_address: "n1:9445".into(), ..boot() };
    let rotating = ClusterRow { pending_cluster_key_id: id(7), ..cluster() };
    let removal = RemoveNode { node: id(1), approval: id(2), replicas_min: 3 };
    let approval = self::approval();
    let asked = RequestApproval {
        id: approval.id.clone(),
        kind: approval.kind.clone(),
        object: approval.object.clone(),
        object_digest: approval.object_digest.clone(),
        reason: approval.reason.clone(),
        valid_us: 86_400_000_006,
    };
    let (object_digest, reason) = (approval.object_digest, "seen".to_owned());
    let granted = GrantApproval { id: approval.id.clone(), object_digest, reason: reason.clone() };
    let denied = DenyApproval { id: approval.id, reason };
    let rotate = RotateClusterKey { key_id: id(1), current: true };
    let issue = IssueNodeCertificate {
        node: id(1),
        digest: digest(2),
        serial: vec![3; 16].into(),
        not_after_us: 1_788_000_000_000_000,
    };
    let backup =
        EnterBackup { backup: id(1), parent: id(2), manifest_digest: digest(3), anchor_leaf: 400 };
    let line = EnterLine {
        peer: id(1),
        change: LineChange::Switched.into(),
        from: 300,
        to: 301,
        since_us: 1_700_000_000_000_001,
        cut_for_ms: 8_001,
    };
    let detached = DetachSite { site: "da-nang".into(), layout: 300, approval: id(7) };
    let settled = SettleLeft {
        node: id(1),
        incarnation: 300,
        action: LeftAction::Discarded.into(),
        entries: 400,
        records: 500,
        present: 499,
        digest: digest(3),
    };
    [
        ("remove_node.approved", Op::RemoveNode(removal)),
        ("request_approval", Op::RequestApproval(asked)),
        ("grant_approval", Op::GrantApproval(granted)),
        ("deny_approval", Op::DenyApproval(denied)),
        ("put_cluster.rotating", Op::PutCluster(rotating)),
        ("put_group.leaving", Op::PutGroup(group_that_changes())),
        ("put_node.sites", Op::PutNode(node_of_a_site())),
        ("boot_node.sites", Op::BootNode(boot_of_a_site)),
        ("transfer_leader", Op::TransferLeader(TransferLeader { groups: vec![1, 300], to: id(2) })),
        ("rotate_cluster_key", Op::RotateClusterKey(rotate)),
        ("issue_node_certificate", Op::IssueNodeCertificate(issue)),
        ("put_settings", Op::PutSettings(put_settings())),
        ("enter_backup", Op::EnterBackup(backup)),
        ("put_group.standby", Op::PutGroup(group_with_a_standby())),
        ("put_source.site", Op::PutSource(source_at_site())),
        ("put_layout", Op::PutLayout(LayoutRow { version: 0, time_us: 0, ..layout() })),
        ("put_layout.held", Op::PutLayout(layout_that_is_held())),
        ("settle_left", Op::SettleLeft(settled)),
        ("enter_line", Op::EnterLine(line)),
        ("detach_site", Op::DetachSite(detached)),
    ]
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
    golden.message("ApprovalRow", &approval());
    golden.message("SettingsRow", &settings());
    golden.message("NodeRow/sites", &node_of_a_site());
    golden.message("GroupRow/standby", &group_with_a_standby());
    golden.message("SourceRow/site", &source_at_site());
    golden.message("LayoutRow", &layout());
    golden.message("LayoutRow/held", &layout_that_is_held());
    golden.close();
}
