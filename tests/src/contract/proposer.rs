//! What sessions and services rely on in a `Proposer`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtm_machine::reads;
use dtm_machine::seams::{Freshness, Proposer, ReadView};
use dtm_types::GroupId;

use super::commands::{begin, command, done, texts};

const PATIENCE: Duration = Duration::from_secs(60);
const COMMANDS: usize = 60;

/// An implementation under test, on the node that leads the group.
pub struct Given {
    /// The way in.
    pub proposer: Arc<dyn Proposer>,
    /// The way to look what came of it.
    pub view: Arc<dyn ReadView>,
    /// A group that is held here.
    pub group: GroupId,
    /// One that is not.
    pub foreign: GroupId,
}

/// Runs the suite over a proposer that works.
pub async fn suite(given: &Given) {
    an_outcome_is_there_to_be_read(given).await;
    calls_of_one_caller_keep_their_order(given).await;
    many_callers_get_one_answer_each(given).await;
    what_cannot_be_written_is_answered(given).await;
}

/// Runs the rest, after the implementation was stopped: whoever asks is answered, with an error.
pub async fn stopped(given: &Given) {
    let answer = begin(&*given.proposer, given.group, command("too late"));
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("answered in time");
    let error = answer.expect("answered").expect_err("nothing is taken any more");
    assert!(error.retryable(), "elsewhere or later it may work: {error}");
}

async fn an_outcome_is_there_to_be_read(given: &Given) {
    let answer = begin(&*given.proposer, given.group, command("one")).await;
    let done = done(answer.expect("answered").expect("taken"));
    let view = given.view.view(given.group, Freshness::Local).await.expect("held here");
    let head = reads::head(&*view.state).expect("a head");
    assert!(head.applied_index >= done.offset, "applied before it was answered");
    assert!(head.ledger_size > done.leaf_index, "its leaf is there");
    assert!(texts(&view.records.bundle(done.offset).expect("its bundle")).contains(&"one".into()));
}

async fn calls_of_one_caller_keep_their_order(given: &Given) {
    let text = |number: usize| format!("ordered {number}");
    let answers: Vec<_> = (0..COMMANDS)
        .map(|number| begin(&*given.proposer, given.group, command(&text(number))))
        .collect();
    let mut leaves = Vec::new();
    for answer in answers {
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("answered in time");
        leaves.push(done(answer.expect("answered").expect("taken")).leaf_index);
    }
    assert!(leaves.is_sorted_by(|a, b| a < b), "applied in the order of the calls: {leaves:?}");
}

async fn many_callers_get_one_answer_each(given: &Given) {
    let callers = (0..COMMANDS).map(|number| {
        let (proposer, group) = (Arc::clone(&given.proposer), given.group);
        tokio::spawn(async move {
            let answer = begin(&*proposer, group, command(&format!("caller {number}"))).await;
            done(answer.expect("answered").expect("taken")).offset
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut last = 0;
    for caller in callers {
        let offset = tokio::time::timeout(PATIENCE, caller).await.expect("in time");
        last = last.max(offset.expect("no caller panics"));
    }
    let view = given.view.view(given.group, Freshness::Current).await.expect("held here");
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for index in 1..=last {
        let bundle = view.records.bundle(index);
        let found = bundle.map(|bytes| texts(&bytes)).unwrap_or_default();
        found.into_iter().for_each(|text| *copies.entry(text).or_default() += 1);
    }
    for number in 0..COMMANDS {
        assert_eq!(copies.get(&format!("caller {number}")), Some(&1), "committed once");
    }
}

async fn what_cannot_be_written_is_answered(given: &Given) {
    let answer = begin(&*given.proposer, given.foreign, command("nowhere"));
    let answer = tokio::time::timeout(PATIENCE, answer).await.expect("answered in time");
    let error = answer.expect("answered").expect_err("no such group here");
    assert!(error.retryable(), "another node may hold it: {error}");
}
