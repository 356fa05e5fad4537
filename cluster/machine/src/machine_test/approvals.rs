//! A second person's word: who may ask, grant and use, for how long, for what, and once.

use dtm_types::ApprovalId;
use dtm_types::command::{
    ApprovalRow, ApprovalState, DenyApproval, DetachSite, GrantApproval, LayoutKind, LayoutRow,
    NodeRow, OperatorRow, RaiseVersion, RemoveNode, RequestApproval, RevokeOperator,
};

use super::*;
use crate::approval::{
    self, DETACH_SITE, HELD_MAX, OPEN_MAX, REMOVE_NODE, VALID_US_DEFAULT, VALID_US_MAX,
};

/// Operators by their byte, which is that of their certificate too.
const AN: u8 = 1;
const BINH: u8 = 2;
const CHI: u8 = 3;
const APPROVER: u8 = 4;
const AUDITOR: u8 = 5;
const PEOPLE: [(u8, &str); 5] = [
    (AN, "operator"),
    (BINH, "operator"),
    (CHI, "operator"),
    (APPROVER, "approver"),
    (AUDITOR, "auditor"),
];

/// Meta of a cluster of three nodes at version 2.
struct Meta {
    group: Group,
    /// Group time of the next entry.
    now_us: i64,
    requests: u64,
}

impl Meta {
    fn new(production: bool) -> Self {
        let mut meta = Self::at_version_one(production);
        let raise = Command {
            op: Some(Op::RaiseVersion(RaiseVersion { version: 2 })),
            ..Command::default()
        };
        meta.group.apply(&[raise]);
        meta
    }

    fn at_version_one(production: bool) -> Self {
        let mut meta = Self { group: Group::new(GroupId::META), now_us: TIME_US, requests: 0 };
        let cluster =
            ClusterRow { cluster_id: vec![9; 16].into(), production, ..ClusterRow::default() };
        meta.done(0, admin::Op::PutCluster(cluster));
        for byte in [11, 12, 13] {
            meta.done(0, admin::Op::PutNode(node(byte)));
        }
        for (byte, role) in PEOPLE {
            meta.done(0, admin::Op::PutOperator(operator(byte, byte, role)));
        }
        meta
    }

    /// By the operator with this certificate.
    fn act(&mut self, who: u8, op: admin::Op) -> Answer {
        self.act_on(who, op, None)
    }

    /// On a row of this version.
    fn act_on(&mut self, who: u8, op: admin::Op, expected_version: Option<u64>) -> Answer {
        self.requests += 1;
        let admin = Admin { op: Some(op), expected_version, ..Admin::default() };
        let command = Command {
            request_id: [self.requests.to_be_bytes(); 2].concat().into(),
            actor: Some(Actor { kind: 2, id: vec![who; 16].into() }),
            op: Some(Op::Admin(admin)),
        };
        let mut builder = bundle::Builder::new(self.now_us, &[7; 16], 256);
        builder.push(&command.encode_to_vec());
        self.group.index += 1;
        let entry = Committed { index: self.group.index, bundle: Some(builder.finish()) };
        let mut batch = StateBatch::default();
        let store = &self.group.store;
        let outcomes = self.group.machine.apply(store, &[entry], &mut batch).expect("total");
        store.write(&batch).expect("memory");
        outcomes[0][0].result.clone().expect("answered")
    }

    fn done(&mut self, who: u8, op: admin::Op) {
        let answer = self.act(who, op);
        assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    }

    /// Refused without a change: neither a row nor a leaf.
    fn refused(&mut self, who: u8, op: admin::Op) -> (RefusalKind, String) {
        let before = (self.group.machine.ledger_head(), self.rows());
        let Answer::Refusal(refusal) = self.act(who, op.clone()) else { panic!("taken: {op:?}") };
        assert_eq!((self.group.machine.ledger_head(), self.rows()), before, "{op:?}");
        (refusal.kind(), refusal.detail)
    }

    fn rows(&self) -> Vec<ApprovalRow> {
        reads::approvals(&self.group.store).expect("memory")
    }

    fn row(&self, byte: u8) -> ApprovalRow {
        let row = reads::approval(&self.group.store, ApprovalId([byte; 16]));
        row.expect("memory").expect("held")
    }

    fn is_removed(&self, byte: u8) -> bool {
        let row = reads::node(&self.group.store, dtm_types::NodeId([byte; 16]));
        row.expect("memory").expect("held").removed
    }
}

fn node(byte: u8) -> NodeRow {
    NodeRow { node: vec![byte; 16].into(), name: format!("n{byte}"), ..NodeRow::default() }
}

fn operator(id: u8, certificate: u8, role: &str) -> OperatorRow {
    OperatorRow {
        id: vec![id; 16].into(),
        name: format!("o{certificate}"),
        role: role.to_owned(),
        certificate_digest: vec![certificate; 32].into(),
        revoked: false,
        not_after_us: TIME_US + 30 * VALID_US_MAX,
    }
}

fn request(id: u8, of: u8) -> RequestApproval {
    let object = approval::remove_node(&node(of));
    RequestApproval {
        id: vec![id; 16].into(),
        kind: REMOVE_NODE.to_owned(),
        object_digest: approval::digest(REMOVE_NODE, &object).to_vec().into(),
        object,
        reason: "the disk is broken".to_owned(),
        valid_us: 0,
    }
}

fn ask(id: u8, of: u8) -> admin::Op {
    admin::Op::RequestApproval(request(id, of))
}

fn grant(id: u8, of: u8) -> admin::Op {
    let object_digest = request(id, of).object_digest;
    let reason = String::new();
    admin::Op::GrantApproval(GrantApproval { id: vec![id; 16].into(), object_digest, reason })
}

fn deny(id: u8) -> admin::Op {
    let reason = "not today".to_owned();
    admin::Op::DenyApproval(DenyApproval { id: vec![id; 16].into(), reason })
}

/// Of a node, under an approval; 0 = none.
fn remove(of: u8, id: u8) -> admin::Op {
    let approval = if id == 0 { Bytes::new() } else { vec![id; 16].into() };
    admin::Op::RemoveNode(RemoveNode { node: vec![of; 16].into(), approval, replicas_min: 3 })
}

// holds: SEC-2
#[test]
fn what_takes_two_people_is_done_once_and_only_as_it_was_granted() {
    let mut meta = Meta::new(true);
    let (kind, detail) = meta.refused(AN, remove(13, 0));
    assert_eq!(kind, RefusalKind::Approval);
    assert!(detail.contains("second person"), "{detail}");
    assert_eq!(meta.refused(AN, remove(13, 21)).0, RefusalKind::NotFound);

    meta.done(AN, ask(21, 13));
    let row = meta.row(21);
    assert_eq!(row.state(), ApprovalState::Open);
    assert_eq!((row.requested_us, row.expires_us), (TIME_US, TIME_US + VALID_US_DEFAULT));
    assert!(meta.refused(AN, remove(13, 21)).1.contains("not granted yet"));
    assert!(meta.refused(AN, grant(21, 13)).1.contains("does not decide"), "who asked");
    assert!(meta.refused(AN, deny(21)).1.contains("does not decide"));
    assert_eq!(meta.refused(AUDITOR, grant(21, 13)).0, RefusalKind::Approval);
    assert_eq!(meta.refused(99, grant(21, 13)).0, RefusalKind::Approval, "nobody known");
    assert!(meta.refused(BINH, grant(21, 12)).1.contains("not what"), "another object");
    meta.done(BINH, grant(21, 13));
    assert!(meta.refused(CHI, grant(21, 13)).1.contains("granted already"));

    assert!(meta.refused(AN, remove(12, 21)).1.contains("something else"), "another node");
    assert!(meta.refused(BINH, remove(13, 21)).1.contains("does not use"), "who granted");
    assert_eq!(meta.refused(APPROVER, remove(13, 21)).0, RefusalKind::Approval);
    meta.done(AN, remove(13, 21));
    let row = meta.row(21);
    assert_eq!((row.state(), &row.used_by[..]), (ApprovalState::Used, &[AN; 16][..]));
    assert_eq!((&row.requested_by[..], &row.decided_by[..]), (&[AN; 16][..], &[BINH; 16][..]));
    assert!(meta.is_removed(13) && !meta.is_removed(12));
    let leaf = leaf(&meta);
    let named = format!("approval={}", ApprovalId([21; 16]));
    assert!(leaf.object_ids.contains(&named), "{leaf:?}");

    // It is used up, for another node as for the same one.
    assert!(meta.refused(AN, remove(12, 21)).1.contains("was used"));
    assert!(meta.refused(BINH, deny(21)).1.contains("was used"));
    meta.done(AN, remove(13, 0));
}

/// The newest leaf of meta.
fn leaf(meta: &Meta) -> format::Leaf {
    let (size, _) = meta.group.machine.ledger_head();
    let row = meta.group.store.get(&crate::keys::leaf(size - 1)).expect("memory").expect("held");
    format::Leaf::decode(crate::leaves::inline(&row).expect("whole")).expect("a leaf")
}

#[test]
fn no_approval_is_asked_for_where_no_group_loses_a_replica_or_the_cluster_is_none_of_production() {
    let mut meta = Meta::new(false);
    meta.done(AN, remove(13, 0));
    let mut meta = Meta::new(true);
    meta.done(0, admin::Op::PutNode(node(14)));
    meta.done(AN, remove(13, 0));
    assert_eq!(meta.refused(AN, remove(12, 0)).0, RefusalKind::Approval, "two would be left");
    // As a node of the release before proposes it.
    let mut meta = Meta::at_version_one(true);
    let plain = RemoveNode { node: vec![13; 16].into(), ..RemoveNode::default() };
    meta.done(AN, admin::Op::RemoveNode(plain));
}

// holds: SEC-2
#[test]
fn people_who_are_gone_do_not_count() {
    let revoke = |byte| admin::Op::RevokeOperator(RevokeOperator { name: format!("o{byte}") });
    let granted = || {
        let mut meta = Meta::new(true);
        meta.done(AN, ask(21, 13));
        meta.done(APPROVER, grant(21, 13));
        meta
    };
    for gone in [AN, APPROVER] {
        let mut meta = granted();
        meta.done(CHI, revoke(gone));
        assert!(meta.refused(CHI, remove(13, 21)).1.contains("no operator any more"), "{gone}");
    }
    // Entered anew it is another person, who cannot grant what the one before asked for.
    let mut meta = Meta::new(true);
    meta.done(AN, ask(21, 13));
    let again =
        OperatorRow { certificate_digest: vec![77; 32].into(), ..operator(66, AN, "operator") };
    meta.done(CHI, admin::Op::PutOperator(again));
    assert!(meta.refused(77, grant(21, 13)).1.contains("no operator any more"));
    // The role counts when it is used.
    let mut meta = granted();
    meta.done(CHI, admin::Op::PutOperator(operator(APPROVER, APPROVER, "auditor")));
    assert!(meta.refused(AN, remove(13, 21)).1.contains("no operator any more"));
    meta.done(CHI, admin::Op::PutOperator(operator(APPROVER, APPROVER, "operator")));
    meta.done(CHI, remove(13, 21));
    // So does the certificate of who acts.
    let mut meta = granted();
    meta.now_us += 31 * VALID_US_MAX;
    assert_eq!(meta.refused(AN, ask(22, 13)).0, RefusalKind::Approval);
}

#[test]
fn an_approval_ends_with_its_time_or_when_it_is_denied() {
    let mut meta = Meta::new(true);
    meta.done(AN, ask(21, 13));
    meta.done(AN, admin::Op::RequestApproval(RequestApproval { valid_us: 5, ..request(22, 13) }));
    meta.done(BINH, grant(22, 13));
    meta.now_us += 4;
    meta.refused(BINH, remove(13, 22));
    meta.now_us += 1;
    assert_eq!(meta.refused(AN, remove(13, 22)).0, RefusalKind::Expired);
    assert_eq!(meta.refused(CHI, deny(22)).0, RefusalKind::Expired);
    meta.now_us = TIME_US + VALID_US_DEFAULT;
    assert_eq!(meta.refused(BINH, grant(21, 13)).0, RefusalKind::Expired);
    meta.now_us -= 1;
    assert_eq!(meta.refused(BINH, grant(21, 13)).0, RefusalKind::Expired, "time never goes back");

    meta.done(AN, ask(23, 13));
    meta.done(BINH, grant(23, 13));
    meta.done(APPROVER, deny(23));
    assert_eq!(meta.row(23).state(), ApprovalState::Denied);
    assert!(meta.refused(AN, remove(13, 23)).1.contains("was denied"));
    assert!(meta.refused(BINH, grant(23, 13)).1.contains("was denied"));
}

#[test]
fn a_request_is_whole_or_refused() {
    let mut meta = Meta::new(true);
    assert_eq!(meta.refused(APPROVER, ask(21, 13)).0, RefusalKind::Approval);
    assert_eq!(meta.refused(AUDITOR, ask(21, 13)).0, RefusalKind::Approval);
    let broken: [fn(&mut RequestApproval); 8] = [
        |asked| asked.id = vec![1; 15].into(),
        |asked| asked.kind = "Remove".to_owned(),
        |asked| asked.object.push('x'),
        |asked| asked.object_digest = Bytes::new(),
        |asked| asked.valid_us = -1,
        |asked| asked.valid_us = VALID_US_MAX + 1,
        |asked| asked.reason = "two\nlines".to_owned(),
        |asked| asked.reason = "x".repeat(513),
    ];
    for break_it in broken {
        let mut asked = request(21, 13);
        break_it(&mut asked);
        let (kind, _) = meta.refused(AN, admin::Op::RequestApproval(asked.clone()));
        assert_eq!(kind, RefusalKind::Malformed, "{asked:?}");
    }
    meta.done(AN, ask(21, 13));
    assert_eq!(meta.refused(BINH, ask(21, 12)).0, RefusalKind::Exists);
    assert_eq!(meta.refused(BINH, grant(20, 13)).0, RefusalKind::NotFound);
    assert_eq!(meta.refused(BINH, deny(20)).0, RefusalKind::NotFound);
}

// holds: LIVE-1
#[test]
fn requests_are_bounded() {
    let mut meta = Meta::new(true);
    let numbered = |number: usize| {
        let id = [(number as u64).to_be_bytes(); 2].concat().into();
        admin::Op::RequestApproval(RequestApproval { id, ..request(0, 13) })
    };
    for number in 0..OPEN_MAX {
        meta.done(AN, numbered(number));
    }
    assert_eq!(meta.refused(AN, numbered(OPEN_MAX)).0, RefusalKind::Limit);
    // What is past its time makes room.
    meta.now_us += VALID_US_DEFAULT;
    for number in OPEN_MAX..HELD_MAX + 150 {
        meta.now_us += VALID_US_DEFAULT / 50;
        meta.done(AN, numbered(number));
    }
    let rows = meta.rows();
    assert_eq!(rows.len(), HELD_MAX);
    let first = rows.iter().map(|row| row.requested_us).min();
    assert!(first > Some(TIME_US), "the oldest went");
    let newest = [((HELD_MAX + 149) as u64).to_be_bytes(); 2].concat();
    assert!(rows.iter().any(|row| row.id == newest));
}

#[test]
fn before_version_two_there_are_no_approvals() {
    let mut meta = Meta::at_version_one(true);
    for op in [ask(21, 13), grant(21, 13), deny(21)] {
        assert_eq!(meta.refused(AN, op).0, RefusalKind::Version);
    }
}

/// Two sites, the second of which stands by in version 1 of the layout.
fn with_standby(production: bool) -> Meta {
    let mut meta = Meta::new(production);
    for (byte, site) in [(11, "a"), (12, "b")] {
        meta.done(0, admin::Op::PutNode(NodeRow { site: site.to_owned(), ..node(byte) }));
    }
    let answer = meta.act_on(0, standby(), Some(0));
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    meta
}

fn standby() -> admin::Op {
    admin::Op::PutLayout(LayoutRow {
        kind: LayoutKind::Standby.into(),
        primary: "a".to_owned(),
        other: "b".to_owned(),
        ..LayoutRow::default()
    })
}

/// Of a site in this version of the layout, under an approval; 0 = none.
fn detach(site: &str, layout: u64, id: u8) -> admin::Op {
    let approval = if id == 0 { Bytes::new() } else { vec![id; 16].into() };
    admin::Op::DetachSite(DetachSite { site: site.to_owned(), layout, approval })
}

// holds: SEC-2
#[test]
fn a_standby_of_production_is_given_up_by_two_people_alone() {
    let mut meta = with_standby(true);
    let single = LayoutRow { kind: LayoutKind::Single.into(), ..LayoutRow::default() };
    let answer = meta.act_on(AN, admin::Op::PutLayout(single.clone()), Some(1));
    let Answer::Refusal(refusal) = answer else { panic!("one person did it: {answer:?}") };
    assert_eq!(refusal.kind(), RefusalKind::Approval);
    assert!(refusal.detail.contains("detach"), "{refusal:?}");

    assert!(meta.refused(AN, detach("b", 1, 0)).1.contains("second person"));
    let object = approval::detach_site("b", 1);
    let object_digest: Bytes = approval::digest(DETACH_SITE, &object).to_vec().into();
    let asked = RequestApproval {
        kind: DETACH_SITE.to_owned(),
        object_digest: object_digest.clone(),
        object,
        ..request(21, 13)
    };
    meta.done(AN, admin::Op::RequestApproval(asked));
    let id = Bytes::from(vec![21; 16]);
    let reason = String::new();
    let granted = GrantApproval { id: id.clone(), object_digest, reason };
    assert!(meta.refused(AN, detach("b", 1, 21)).1.contains("not granted yet"));
    meta.done(BINH, admin::Op::GrantApproval(granted));
    assert_eq!(meta.refused(AN, detach("a", 1, 21)).0, RefusalKind::NotFound, "the primary");
    assert_eq!(meta.refused(AN, detach("b", 2, 21)).0, RefusalKind::Version);
    meta.done(AN, detach("b", 1, 21));
    let held = reads::layout(&meta.group.store).expect("memory");
    assert_eq!((held.kind(), held.version, &*held.other), (LayoutKind::Single, 2, ""));
    assert_eq!(meta.row(21).state(), ApprovalState::Used);
    let named = format!("approval={}", ApprovalId([21; 16]));
    assert_eq!(leaf(&meta).object_ids, ["layout=2", "detached=b", &*named]);
    assert_eq!(
        meta.refused(AN, detach("b", 2, 21)).0,
        RefusalKind::NotFound,
        "it stands by no more"
    );

    // A layout of the next version is another object: what was granted for this one is used up.
    let answer = meta.act_on(AN, standby(), Some(2));
    assert!(matches!(answer, Answer::Done(_)), "to put a standby takes one person: {answer:?}");
    assert!(meta.refused(AN, detach("b", 3, 21)).1.contains("was used"));
    // What a node enters by itself, as a restore does, takes nobody's word.
    let answer = meta.act_on(99, admin::Op::PutLayout(single), Some(3));
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
}

#[test]
fn a_standby_of_a_cluster_that_is_not_marked_is_given_up_by_one_person() {
    let mut meta = with_standby(false);
    meta.done(AN, detach("b", 1, 0));
    let held = reads::layout(&meta.group.store).expect("memory");
    assert_eq!((held.kind(), held.version), (LayoutKind::Single, 2));
}
