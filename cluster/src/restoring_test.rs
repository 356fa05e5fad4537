use dtm_machine::seams::{StateRead, StateStore};
use dtm_types::command::command::Op;
use dtm_types::command::{Command, Genesis, RaiseVersion};
use dtm_types::{NodeId, format};
use prost::Message;

use super::*;
use crate::log_store::MemoryLogs;
use crate::state_machine::read_applied;
use crate::states::MemoryStates;

const GROUP: GroupId = GroupId(1);
const REPLICA: ReplicaId = ReplicaId(4);
const TIME_US: i64 = 1_795_000_000_000_000;

fn command(op: Op) -> Vec<u8> {
    Command { request_id: vec![1; 16].into(), actor: None, op: Some(op) }.encode_to_vec()
}

fn genesis(life: u64, before: Option<(u64, [u8; 32])>) -> Vec<u8> {
    let (size, root) = before.unwrap_or_default();
    let genesis = format::Genesis {
        group: GROUP.0,
        incarnation: life,
        previous_incarnation: before.map_or(0, |_| life - 1),
        previous_size: size,
        previous_root: before.map(|_| Bytes::copy_from_slice(&root)).unwrap_or_default(),
        ..format::Genesis::default()
    };
    command(Op::Genesis(Genesis { genesis: Some(genesis) }))
}

/// A group of the life before: its entries, its rows and its ledger.
struct Before {
    entries: Vec<LogEntry>,
    rows: Vec<(Bytes, Bytes)>,
    ledger: (u64, [u8; 32]),
    last: LogPosition,
}

fn before() -> Before {
    let store = dtm_machine::seams::MemoryStateStore::new(GROUP);
    let mut machine = Machine::load(GROUP, &store).expect("empty");
    let commands = [genesis(1, None), command(Op::RaiseVersion(RaiseVersion { version: 2 }))];
    let mut entries = Vec::new();
    for (index, command) in (1..).zip(commands) {
        let mut builder = bundle::Builder::new(TIME_US, &[7; 16], 0);
        builder.push(&command);
        let payload = builder.finish();
        let mut batch = StateBatch::default();
        let entry = Committed { index, bundle: Some(payload.clone()) };
        machine.apply(&store, &[entry], &mut batch).expect("total");
        store.write(&batch).expect("memory");
        entries.push(LogEntry { index, term: 3, leader: 2, payload });
    }
    let rows = store.scan(&[0x01], crate::snapshot::ROWS_TO, usize::MAX).expect("memory");
    let last = LogPosition { index: 2, term: 3, leader: 2 };
    Before { entries, rows, ledger: machine.ledger_head(), last }
}

fn node() -> PeerNode {
    PeerNode { node: NodeId([9; 16]), peer_address: "n1:9444".into(), ..PeerNode::default() }
}

fn opening(commands: [Vec<u8>; 1]) -> Opening {
    let members = BTreeMap::from([(REPLICA.0, node())]);
    let commands = commands.map(Bytes::from).to_vec();
    Opening { members, author: node().node, stamp_us: TIME_US, commands }
}

// holds: ING-1, RAFT-1, LED-1
#[tokio::test]
async fn a_group_goes_on_where_it_ended_with_this_node_alone() {
    let (logs, states, before) = (MemoryLogs::default(), MemoryStates::default(), before());
    let begun = Restoring::begin(&logs, &states, GROUP, REPLICA, before.last).await;
    let restoring = begun.expect("an empty disk");
    restoring.put_rows(before.rows.clone()).expect("memory");
    restoring.put_entries(before.entries.clone()).await.expect("memory");
    let opening = opening([genesis(2, Some(before.ledger))]);
    let head = restoring.finish(&opening).await.expect("it ends");
    assert_eq!((head.index, head.ledger_size), (4, before.ledger.0 + 1));

    let log = logs.open(GROUP, REPLICA).expect("memory");
    let end = LogPosition { index: 4, term: 4, leader: REPLICA.0 };
    let marks = log.marks();
    assert_eq!((marks.last, marks.purged, marks.recovering), (Some(end), Some(end), None));
    let vote = convert::vote_from_bytes(&marks.vote.expect("a vote")).expect("decodes");
    assert!(vote.leader_id.term > end.term, "no leader of before has a term as late");
    assert!(log.lacking(4).expect("memory").is_empty());
    for entry in &before.entries {
        assert_eq!(&log.read_record(entry.index).expect("held"), entry, "verbatim");
    }
    let store = states.open(GROUP).expect("memory");
    let (applied, membership) = read_applied(&*store).expect("reads");
    assert_eq!(applied, Some(convert::log_id_of(end)));
    let voters: Vec<u64> = membership.membership().voter_ids().collect();
    assert_eq!(voters, [REPLICA.0]);
    assert_eq!(membership.membership().get_node(&REPLICA.0), Some(&node()));

    let again = Restoring::begin(&logs, &states, GROUP, ReplicaId(5), before.last).await;
    assert!(matches!(again.err(), Some(Error::Refused(_))), "something is here");
}

#[tokio::test]
async fn what_is_not_whole_is_not_restored() {
    let begin = async |before: &Before| {
        let (logs, states) = (MemoryLogs::default(), MemoryStates::default());
        Restoring::begin(&logs, &states, GROUP, REPLICA, before.last).await.expect("empty")
    };
    let before = before();
    let whole = opening([genesis(2, Some(before.ledger))]);

    let restoring = begin(&before).await;
    restoring.put_rows(before.rows.clone()).expect("memory");
    restoring.put_entries(before.entries[..1].to_vec()).await.expect("memory");
    let lacking = restoring.finish(&whole).await.expect_err("an entry lacks");
    assert!(lacking.to_string().contains("entries 2 to 2 are lacking"), "{lacking}");

    // Rows of another moment: their ledger is not the one that the next life names.
    let restoring = begin(&before).await;
    restoring.put_entries(before.entries.clone()).await.expect("memory");
    let wrong = opening([command(Op::RaiseVersion(RaiseVersion { version: 9 }))]);
    let refused = restoring.finish(&wrong).await;
    let refused = refused.expect_err("apply refuses it");
    assert!(matches!(refused, Error::Refused(_)), "{refused}");
}

// A plan is followed at every start: what apply refuses is found before there is one.
#[tokio::test]
async fn an_opening_is_tried_on_the_rows_and_changes_nothing() {
    let (logs, states, before) = (MemoryLogs::default(), MemoryStates::default(), before());
    let begun = Restoring::begin(&logs, &states, GROUP, REPLICA, before.last).await;
    let restoring = begun.expect("an empty disk");
    restoring.put_rows(before.rows.clone()).expect("memory");
    let log = logs.open(GROUP, REPLICA).expect("memory");
    let rows = || restoring.store().scan(&[], crate::snapshot::ROWS_TO, 1_000).expect("memory");
    let held = rows();
    let tried = |opening: &Opening, last| try_out(&*log, restoring.store(), last, opening);
    let refused = |result: Result<(), Error>| result.expect_err("refused").to_string();

    let right = opening([genesis(2, Some(before.ledger))]);
    tried(&right, 2).expect("apply takes it");
    let wrong = opening([command(Op::RaiseVersion(RaiseVersion { version: 9 }))]);
    assert!(refused(tried(&wrong, 2)).contains("command 1 of what opens the life is refused"));
    let other = opening([genesis(2, Some((before.ledger.0 + 1, before.ledger.1)))]);
    assert!(refused(tried(&other, 2)).contains("genesis"));
    assert!(refused(tried(&right, 1)).contains("beyond entry 1"));
    assert_eq!(rows(), held);
    // What was tried is what is done.
    restoring.put_entries(before.entries.clone()).await.expect("memory");
    restoring.finish(&right).await.expect("it ends");
}
