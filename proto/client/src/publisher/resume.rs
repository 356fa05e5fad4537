//! Where to go on: the cluster's cursor beside ours.
//!
//! ```text
//!            acked_through      next_sequence (ours)
//!                  │                  │
//!   ───────────────┴──────────────────┴────────►  sequences
//!      next ≤ acked: loss   between: acks that      beyond: somebody
//!      (mended from what    were lost on the        else wrote: end
//!      is held, or told)    way are counted
//! ```
//! Where another site took over, in a later life of the cluster, its cursor is where its copy ended:
//! what it lacks is sent again, which is why acked records stay until that site has them. What an
//! earlier life said of the other site says nothing of now.

use super::config::Event;
use super::driver::{Driver, Loss};
use super::memory::Memory;
use super::store::Store;
use crate::{Error, Session};
use dtm_proto::ingest::{Opened, Window};

/// Limits where the server names none (docs/config.md: the defaults of `limits`).
const WINDOW: Window = Window {
    record_bytes_max: 8 << 20,
    frame_bytes_max: 9 << 20,
    in_flight_bytes_max: 1 << 20,
    frame_records_max: 1 << 16,
};

impl Driver {
    /// Takes over what the open answered. An error is final.
    pub(crate) fn resume(&mut self, session: &Session) -> Result<(), Error> {
        let opened = session.opened().clone();
        self.take_window(opened.window.unwrap_or_default());
        self.rewinds = 0;
        {
            let mut state = self.shared.lock();
            state.counters.sessions += 1;
            state.counters.node.clone_from(&opened.node);
            state.counters.address = session.address().to_string();
            if matches!(state.store, Store::Unknown) {
                let next = opened.next_sequence.max(state.acked_through + 1);
                state.store = Store::Memory(Memory::new(next, self.config.frame_bytes_max));
            }
        }
        self.take_site(&opened);
        self.tell(Event::Connected {
            node: opened.node.clone(),
            address: session.address().clone(),
            session: opened.session,
            group: opened.group,
            next_sequence: opened.next_sequence,
        });
        self.go_on_from(&opened)?;
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// What the open tells of the other site, before anything goes by it.
    fn take_site(&mut self, opened: &Opened) {
        let through = opened.site_through.min(opened.next_sequence.saturating_sub(1));
        let before = self.shared.progress.borrow().incarnation;
        let mut state = self.shared.lock();
        let known = if before == opened.incarnation { state.site_through } else { 0 };
        state.site_copies = opened.site_copies || through > 0;
        state.site_through = known.max(through);
        let through = state.site_through;
        drop(state);
        self.shared.progress.send_modify(|progress| {
            progress.incarnation = opened.incarnation;
            progress.site_through = through;
        });
    }

    fn go_on_from(&mut self, opened: &Opened) -> Result<(), Error> {
        let next = opened.next_sequence;
        let (ours, acked) = {
            let state = self.shared.lock();
            (state.store.next_sequence(), state.acked_through)
        };
        if next > ours {
            return Err(self.ahead(next - 1, ours - 1));
        }
        if next > acked {
            // Acks may have been lost on the way, the records were not; and the other site may have
            // more than was told.
            self.acked(next - 1, None);
        }
        self.send_from(next);
        Ok(())
    }

    /// Sends from `next` on; what was acked and is not held here any more is a loss.
    pub(crate) fn send_from(&mut self, next: u64) {
        // What lies below was taken and holds room of the window until it is acked: a full window
        // on top of it would end the session.
        self.in_flight.retain(|(last, _)| *last < next);
        self.in_flight_bytes = self.in_flight.iter().map(|(_, bytes)| bytes).sum();
        let mut state = self.shared.lock();
        let (held, acked) = (state.store.first_held(), state.acked_through);
        state.send_next = next.max(held);
        if next <= acked {
            // Not held now, whatever was said once: waiters wait until it is acked again. What
            // the next open shows (`progress`) stays as it was said.
            state.acked_through = next - 1;
            state.site_through = state.site_through.min(next - 1);
            state.store.unack(next - 1);
        }
        drop(state);
        if next < held {
            self.loss = Some(Loss { from: next, to: held - 1, reported: false });
            self.tell(Event::LossDetected { from: next, to: held - 1 });
        } else if next <= acked {
            self.tell(Event::LossMended { from: next, to: acked });
        }
    }

    pub(crate) fn take_window(&mut self, window: Window) {
        let or = |given: u64, default: u64| if given == 0 { default } else { given };
        self.window = Window {
            record_bytes_max: or(window.record_bytes_max, WINDOW.record_bytes_max),
            frame_bytes_max: or(window.frame_bytes_max, WINDOW.frame_bytes_max),
            in_flight_bytes_max: or(window.in_flight_bytes_max, WINDOW.in_flight_bytes_max),
            frame_records_max: or(window.frame_records_max, WINDOW.frame_records_max),
        };
        self.shared.lock().record_bytes_max = self.window.record_bytes_max;
    }

    pub(crate) fn ahead(&self, held: u64, given: u64) -> Error {
        Error::StreamAhead { stream: self.config.stream.clone(), held, given }
    }
}
