//! Commands of a later version than their group.

use std::sync::atomic::{AtomicUsize, Ordering};

use dtm_types::command::command::Op;
use dtm_types::command::{Command, RaiseVersion};
use prost::Message;

use super::*;

fn queue() -> Arc<CommandQueue> {
    let leader_wait = Duration::from_secs(60);
    CommandQueue::new(GroupId(3), QueueConfig { bytes_max: 1 << 20, leader_wait })
}

fn command() -> Bytes {
    let op = Some(Op::RaiseVersion(RaiseVersion { version: 2 }));
    Command { op, ..Command::default() }.encode_to_vec().into()
}

fn told(into: &Arc<Mutex<Vec<Result<Outcome, ProposeError>>>>) -> Reply {
    let into = Arc::clone(into);
    Box::new(move |result| into.lock().push(result))
}

#[test]
fn what_a_group_is_not_raised_to_is_refused_and_the_rest_goes_on() {
    let (queue, refused) = (queue(), Arc::default());
    let taken = Arc::new(AtomicUsize::new(0));
    for _ in 0..4 {
        let taken = Arc::clone(&taken);
        let count = Box::new(move |_| {
            taken.fetch_add(1, Ordering::SeqCst);
        });
        queue.push(command(), count, false);
    }
    // As of a later release: what every second one holds came with version 2.
    for (number, (_, mut item)) in queue.take(usize::MAX).into_iter().enumerate() {
        if number % 2 == 1 {
            (item.version, item.reply) = (2, told(&refused));
        }
        queue.put_back([(number as u64, item)]);
    }
    let first = queue.take_for(1, usize::MAX);
    assert_eq!(first.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2]);
    let told = refused.lock().clone();
    assert_eq!(told.len(), 2);
    for refusal in told {
        let Err(error @ ProposeError::NotSupported { .. }) = refusal else {
            panic!("{refusal:?}");
        };
        assert!(error.to_string().contains("dtm cluster upgrade"), "{error}");
        assert!(!error.retryable());
    }
    assert!(queue.take_for(1, usize::MAX).is_empty());
    first.into_iter().for_each(|(_, item)| queue.answer(item, Ok(Outcome::default())));
    assert_eq!((taken.load(Ordering::SeqCst), queue.queued_bytes()), (2, 0));
}

#[test]
fn only_refused_ones_do_not_hide_the_next() {
    let (queue, refused) = (queue(), Arc::default());
    for version in [2, 2, 1] {
        queue.push(command(), told(&refused), false);
        let mut items = queue.take(usize::MAX);
        let last = items.last_mut().expect("pushed");
        last.1.version = version;
        queue.put_back(items);
    }
    assert_eq!(queue.take_for(1, 1).len(), 1, "one command a turn");
    assert_eq!(refused.lock().len(), 2);
    queue.push(command(), told(&refused), false);
    queue.put_back(queue.take(usize::MAX).into_iter().map(|(number, mut item)| {
        item.version = 2;
        (number, item)
    }));
    assert_eq!(queue.take_for(2, 1).len(), 1, "raised");
}

#[test]
fn what_this_software_does_not_know_is_refused_at_once() {
    let (queue, refused) = (queue(), Arc::default());
    let mut newer = command().to_vec();
    prost::encoding::bytes::encode(99, &b"of a later release".to_vec(), &mut newer);
    queue.push(newer.into(), told(&refused), false);
    queue.push(Bytes::new(), told(&refused), true);
    let told = refused.lock().clone();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|r| matches!(r, Err(ProposeError::NotSupported { .. }))));
}
