//! Rows of every group, and outcomes.

use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{Appended, Done, KeyHeld, Outcome, Refusal, RefusalKind, SessionOpened};
use dtm_types::format::{
    Cursor, GroupHead, KeyPurpose, Place, QuarantineQuota, QuarantineRow, SequenceRange, WrappedKey,
};

use crate::file::{Golden, id};

pub(crate) fn wrapped_key(of: u8) -> WrappedKey {
    WrappedKey {
        key_id: id(of),
        purpose: KeyPurpose::Source.into(),
        source: "tinh-01".into(),
        month: 24_322,
        cluster_key_id: id(5),
        wrapped: vec![6; 73].into(),
    }
}

fn place() -> Place {
    Place {
        index: 1_000,
        ordinal: 2,
        source: "tinh-01".into(),
        stream: "main".into(),
        first_sequence: 5,
        last_sequence: 6_000,
        dataset: "payment".into(),
        schema_version: 8,
        leaf_index: 900,
        duplicate_bitmap: vec![0b10].into(),
        refusal_bitmap: vec![0b100].into(),
        group_time_us: 1_795_000_000_000_012,
        key_id: id(13),
    }
}

fn cursor() -> Cursor {
    Cursor {
        session: 1,
        through: 9_007_199_254_740_991,
        offset: 3_000,
        leaf_index: 400,
        dataset: "payment".into(),
        last_time_us: 1_795_000_000_000_006,
        records: 700,
        refused: 8,
        duplicates: 9,
        unverified: 10,
        ids_by_sequence: true,
        closed: true,
        lost: 13,
        opened_by: id(14),
        reported: 15,
        unmasked: 16,
        lost_ranges: vec![SequenceRange { from: 1, to: 2 }, SequenceRange { from: 300, to: 310 }],
    }
}

fn head() -> GroupHead {
    GroupHead {
        version: 1,
        applied_index: 2_000,
        ledger_size: 300,
        frontier: vec![4; 41].into(),
        group_time_us: 1_795_000_000_000_005,
        records: 600,
        refused: 7,
        duplicates: 8,
        payload_bytes: 9_000_000_000,
        format_version: 2,
        streams: 11,
        fingerprint_month: 24_322,
        fingerprint_month_before: 24_321,
        day: 20_775,
        day_records: 15,
        day_refused: 16,
        day_from_us: 1_795_000_000_000_017,
    }
}

#[test]
fn rows_of_every_group() {
    let mut golden = Golden::open("rows", "dtm.format.v1");
    golden.message("Place", &place());
    golden.message("Cursor", &cursor());
    golden.message("GroupHead", &head());
    let of_version_1 =
        GroupHead { day: 0, day_records: 0, day_refused: 0, day_from_us: 0, ..head() };
    golden.message("GroupHead/version_1", &of_version_1);
    golden.message("WrappedKey", &wrapped_key(1));
    let of_backup = WrappedKey { purpose: KeyPurpose::Backup.into(), ..wrapped_key(1) };
    golden.message("WrappedKey/backup", &of_backup);
    let row = QuarantineRow {
        stream: "main".into(),
        records: 2,
        first_sequence: 300,
        group_time_us: 1_795_000_000_000_004,
        dataset: "payment".into(),
    };
    golden.message("QuarantineRow", &row);
    let quota = QuarantineQuota { records: 1, bytes: 2_000, beyond: 3, month: 24_322 };
    golden.message("QuarantineQuota", &quota);
    golden.close();
}

#[test]
fn outcomes_of_every_kind() {
    let mut golden = Golden::open("outcomes", "dtm.command.v1");
    let opened = SessionOpened {
        session: 1,
        next_sequence: 200,
        data_key: Some(wrapped_key(3)),
        source_key: Some(wrapped_key(4)),
        loss_from: 5,
        loss_to: 60,
        offset: 7_000,
        leaf_index: 800,
        quarantine_records_left: 9_000,
        quarantine_bytes_left: 10_000,
    };
    let appended = Appended {
        acked_through: 1_000,
        offset: 2_000,
        leaf_index: 300,
        already: true,
        unverified: 5,
        duplicates: 6,
        quarantine_records: 7,
        quarantine_bytes: 8_000,
    };
    let refusal = Refusal {
        kind: RefusalKind::Conflict.into(),
        sequence: 2_000,
        session: 3,
        detail: "other content".into(),
        conflicts: vec![2_000, 2_005],
    };
    let answers = [
        ("session_opened", Answer::SessionOpened(opened)),
        ("appended", Answer::Appended(appended)),
        ("done", Answer::Done(Done { offset: 1_000, leaf_index: 200, version: 3, group: 4 })),
        ("key_held", Answer::KeyHeld(KeyHeld { key: Some(wrapped_key(1)), stored_now: true })),
        ("refusal", Answer::Refusal(refusal)),
    ];
    for (name, answer) in answers {
        golden.message(&format!("Outcome/{name}"), &Outcome { result: Some(answer) });
    }
    golden.close();
}
