//! Sources of a simulation: each writes one stream, holds what was not acked and sends it again.

use std::sync::Arc;
use std::time::Duration;

use dtm_chaos::checker::{Checker, Digest, Reads, StreamNo};
use dtm_chaos::sandbox::commands;
use dtm_machine::reads;
use dtm_types::StreamKey;
use dtm_types::command::outcome::Result as Answer;
use dtm_types::command::{RefusalKind, SessionOpened};
use parking_lot::Mutex;

use crate::world::World;

/// A command that is not answered so long has an unknown outcome.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const BATCH_RECORDS_MAX: u64 = 6;

/// What the sources were told, and the reads.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) checker: Checker,
    pub(crate) reads: Reads,
    pub(crate) acked: u64,
}

pub(crate) struct Stream {
    key: StreamKey,
    number: StreamNo,
    world: Arc<World>,
    history: Arc<Mutex<History>>,
    /// Whom it asks; the next one when that fails.
    at: u64,
    openings: u64,
    has_key: bool,
    session: Option<u64>,
    next: u64,
    sent: u64,
}

/// Time of the wall that a proposal is stamped with.
fn stamp(world: &World, skew_us: i64) -> i64 {
    let elapsed = i64::try_from(world.elapsed().as_micros()).expect("runs are short");
    commands::TIME_US + elapsed + skew_us
}

impl Stream {
    pub(crate) fn new(name: &str, world: &Arc<World>, history: &Arc<Mutex<History>>) -> Self {
        let key = StreamKey::parse("tinh-01", name).expect("an allowed name");
        let number = history.lock().checker.stream("tinh-01", name);
        Self {
            key,
            number,
            world: Arc::clone(world),
            history: Arc::clone(history),
            at: 1,
            openings: 0,
            has_key: false,
            session: None,
            next: 1,
            sent: 0,
        }
    }

    /// Writes until the run is over.
    pub(crate) async fn run(&mut self) {
        while !self.world.is_over() {
            self.once(true).await;
            let pause = self.world.between(Duration::from_millis(1), Duration::from_millis(80));
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends again what was sent and not acked, and one batch more; false when that took too long.
    pub(crate) async fn finish(&mut self, within: Duration) -> bool {
        let last = self.sent;
        let all = async {
            while self.next <= last {
                self.once(false).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            while self.next <= last + 1 {
                self.once(true).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(within, all).await.is_ok()
    }

    /// One command.
    async fn once(&mut self, may_grow: bool) {
        if !self.has_key {
            self.has_key = self.ask(commands::put_key(&self.key)).await.is_some();
            return;
        }
        let Some(session) = self.session else {
            self.openings += 1;
            let open = commands::open(&self.key, self.openings);
            if let Some(Answer::SessionOpened(SessionOpened { session, next_sequence, .. })) =
                self.ask(open).await
            {
                self.session = Some(session);
                self.next = next_sequence;
            }
            return;
        };
        let count = 1 + self.world.below(BATCH_RECORDS_MAX);
        let last = self.next + count - 1;
        let last = if may_grow { last } else { last.min(self.sent) };
        for sequence in self.sent + 1..=last {
            let digest: Digest = commands::digest(&self.key, sequence);
            let sent = self.history.lock().checker.sent(self.number, sequence, digest);
            sent.expect("sent in order");
        }
        self.sent = self.sent.max(last);
        let records = u32::try_from(last + 1 - self.next).expect("a few");
        match self.ask(commands::batch(&self.key, session, self.next, records)).await {
            Some(Answer::Appended(appended)) => {
                let mut history = self.history.lock();
                history.checker.acked(self.number, appended.acked_through).expect("was sent");
                history.reads.acked(&self.key.to_string(), appended.acked_through);
                history.acked += 1;
                self.next = appended.acked_through + 1;
            }
            Some(Answer::Refusal(refusal)) if refusal.kind() == RefusalKind::Superseded => {
                self.session = None;
            }
            Some(other) => panic!("batch from {} of {}: {other:?}", self.next, self.key),
            // It may be committed: a new session says where the stream stands.
            None => self.session = None,
        }
    }

    async fn ask(&mut self, command: bytes::Bytes) -> Option<Answer> {
        let skew = self.world.skew_us(self.at);
        let asked = match self.world.replica(self.at) {
            Some(replica) => {
                let time_us = stamp(&self.world, skew);
                replica.propose(&command, time_us, ANSWER_WITHIN).await.ok()
            }
            None => None,
        };
        let answer = asked.and_then(|outcome| outcome.result);
        self.world.step("command", self.at, u64::from(answer.is_some()), self.next);
        if answer.is_none() {
            let running = self.world.running();
            let choice = self.world.below(running.len().max(1) as u64) as usize;
            self.at = running.get(choice).map_or(1, |(id, _)| *id);
        }
        answer
    }
}

/// Reads streams as current until the run is over.
pub(crate) async fn read_on(world: Arc<World>, history: Arc<Mutex<History>>, names: Vec<String>) {
    while !world.is_over() {
        let pause = world.between(Duration::from_millis(20), Duration::from_millis(400));
        tokio::time::sleep(pause).await;
        let running = world.running();
        let Some((id, replica)) = running.get(world.below(running.len().max(1) as u64) as usize)
        else {
            continue;
        };
        let name = &names[world.below(names.len() as u64) as usize];
        let key = StreamKey::parse("tinh-01", name).expect("an allowed name");
        let asked = history.lock().reads.begin(&key.to_string());
        let Ok(view) = replica.view(ANSWER_WITHIN).await else { continue };
        let cursor = reads::cursor(&*Arc::clone(&view.state), &key).expect("memory reads");
        let through = cursor.unwrap_or_default().through;
        world.step("read", *id, 0, through);
        history.lock().reads.answered(asked, &format!("replica {id}"), view.current, through);
    }
}
