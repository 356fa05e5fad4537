//! Records that a source declared lost.

use super::*;

// holds: ING-1
#[test]
fn what_was_declared_lost_is_never_acked_as_a_resend() {
    let (mut group, _) = ready();
    appended(group.one(batch("s", 1, 1, &[1, 2, 3])));
    let lost = |session, from, to| {
        let (source, stream) = ("tinh-01".into(), "s".into());
        let (from_sequence, to_sequence) = (from, to);
        Op::DeclareLost(DeclareLost { source, stream, session, from_sequence, to_sequence })
    };
    let done = |outcome: Outcome| assert!(matches!(outcome.result, Some(Answer::Done(_))));
    done(group.one(lost(1, 4, 9)));
    done(group.one(lost(1, 10, 12)));
    appended(group.one(batch("s", 1, 13, &[13])));
    group.open("s");
    let found = refusal(group.one(batch("s", 2, 3, &[3, 4, 5])));
    assert_eq!((found.kind(), &found.conflicts[..]), (RefusalKind::Conflict, &[4, 5][..]));
    let found = refusal(group.one(batch("s", 2, 12, &[12, 13])));
    assert_eq!((found.kind(), found.sequence), (RefusalKind::Conflict, 12));
    assert!(appended(group.one(batch("s", 2, 13, &[13]))).already, "what is held is");
    let stream = StreamKey::parse("tinh-01", "s").expect("a name");
    let cursor = reads::cursor(&group.store, &stream).expect("memory").expect("a row");
    assert_eq!(cursor.lost_ranges, [format::SequenceRange { from: 4, to: 12 }]);
    for n in 0..20 {
        let through = 13 + 2 * n;
        done(group.one(lost(2, through + 1, through + 1)));
        appended(group.one(batch("s", 2, through + 2, &[1])));
    }
    let cursor = reads::cursor(&group.store, &stream).expect("memory").expect("a row");
    assert_eq!(cursor.lost_ranges.len(), 16, "bounded");
    let forgotten = refusal(group.one(batch("s", 2, 4, &[4])));
    assert_eq!((forgotten.kind(), forgotten.sequence), (RefusalKind::Conflict, 4), "it has no tag");
}
