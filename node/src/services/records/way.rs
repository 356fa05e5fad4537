//! The way of answers from blocking work to a caller.
//!
//! Blocking work holds one of the node's few places for readers, so it never waits for a caller that
//! does not read: the answer that finds no room is held, the work ends for now, and goes on from its
//! position when there is room.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tonic::Status;

/// One way. See the module.
pub(super) struct Way<T> {
    sender: mpsc::Sender<Result<T, Status>>,
    held: Option<T>,
}

impl<T> Way<T> {
    pub(super) fn new(sender: &mpsc::Sender<Result<T, Status>>) -> Self {
        Self { sender: sender.clone(), held: None }
    }

    /// Takes an answer. False when the work is to end: there is no more room, or nobody listens.
    pub(super) fn give(&mut self, answer: T) -> bool {
        assert!(self.held.is_none(), "work that was told to end goes on");
        match self.sender.try_send(Ok(answer)) {
            Ok(()) => true,
            Err(TrySendError::Full(Ok(answer))) => {
                self.held = Some(answer);
                false
            }
            Err(_) => false,
        }
    }

    /// The answer that found no room, to be sent before the work goes on; none when it is done.
    pub(super) fn held(self) -> Option<T> {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_without_room_is_held_and_not_waited_for() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut way = Way::new(&sender);
        assert!(way.give(1));
        assert!(!way.give(2), "the caller does not read");
        assert_eq!(way.held(), Some(2));
        assert_eq!(receiver.recv().await.expect("open").expect("an answer"), 1);
        assert!(Way::new(&sender).give(2));
        drop(receiver);
        let mut way = Way::new(&sender);
        assert!(!way.give(3), "nobody listens");
        assert_eq!(way.held(), None);
    }
}
