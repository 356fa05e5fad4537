//! What readers rely on in a `ReadView`.

use dtm_machine::reads;
use dtm_machine::seams::{Freshness, GroupView, ReadError};

use super::commands::{begin, command, done, texts};
use super::proposer::Given;

/// Runs the suite.
pub async fn suite(given: &Given) {
    views_do_not_move(given).await;
    current_views_hold_what_was_answered(given).await;
    what_is_not_here_is_said(given).await;
    groups_and_leaders_are_named(given);
}

async fn write(given: &Given, text: &str) -> u64 {
    let answer = begin(&*given.proposer, given.group, command(text)).await;
    done(answer.expect("answered").expect("taken")).offset
}

fn applied(view: &GroupView) -> u64 {
    reads::head(&*view.state).expect("a head").applied_index
}

async fn views_do_not_move(given: &Given) {
    write(given, "before").await;
    let view = given.view.view(given.group, Freshness::Local).await.expect("held here");
    let seen = applied(&view);
    let rows = view.state.scan(&[1], &[0xff; 64], 10_000).expect("readable");
    let later = write(given, "after").await;
    assert!(later > seen);
    assert_eq!(applied(&view), seen, "a view stays at its index");
    assert_eq!(view.state.scan(&[1], &[0xff; 64], 10_000).expect("readable"), rows);
    let fresh = given.view.view(given.group, Freshness::Local).await.expect("held here");
    assert!(applied(&fresh) >= later);
}

async fn current_views_hold_what_was_answered(given: &Given) {
    for number in 0..5 {
        let text = format!("current {number}");
        let offset = write(given, &text).await;
        let view = given.view.view(given.group, Freshness::Current).await.expect("confirmed");
        assert!(view.current && view.group == given.group);
        assert!(applied(&view) >= offset, "everything answered before the call is in it");
        assert!(texts(&view.records.bundle(offset).expect("its bundle")).contains(&text));
    }
}

async fn what_is_not_here_is_said(given: &Given) {
    for freshness in [Freshness::Local, Freshness::Current] {
        let found = given.view.view(given.foreign, freshness).await.map(|_| ());
        assert_eq!(found, Err(ReadError::NotHere(given.foreign)));
    }
}

fn groups_and_leaders_are_named(given: &Given) {
    let groups = given.view.ingest_groups();
    assert!(groups.is_sorted() && groups.iter().all(|group| !group.is_meta()));
    assert!(groups.contains(&given.group) && !groups.contains(&given.foreign));
    let leader = given.view.leader(given.group).expect("a leader");
    assert!(leader.is_self, "the suite runs on the leader");
    assert_eq!(given.view.leader(given.foreign), None);
}
