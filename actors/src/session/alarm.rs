//! What a committed batch gives cause to say: counts by source, and a log line where clear values
//! arrived in fields agreed as masked.

use dtm_types::StreamKey;

use crate::batch::Tally;
use crate::labels;

/// A stream is named in the log at most this often.
const QUIET_US: i64 = 10_000_000;

/// Paces the log lines of one stream.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    quiet_until_us: Option<i64>,
    /// Records since the last line.
    held: u64,
}

impl Alarm {
    /// Counts, and says it where it is time to. Content is never said, only the place.
    pub(super) fn raise(&mut self, tally: &Tally, now_us: i64, stream: &StreamKey, dataset: &str) {
        if tally.reported == 0 && tally.unmasked == 0 {
            return;
        }
        let source = labels::source(&stream.source);
        for (rule, count) in &tally.rules {
            metrics::counter!("dtm_records_reported_total", "source" => source.clone(), "rule" => rule.name())
                .increment(u64::from(*count));
        }
        if tally.unmasked == 0 {
            return;
        }
        metrics::counter!("dtm_records_unmasked_total", "source" => source)
            .increment(u64::from(tally.unmasked));
        self.held += u64::from(tally.unmasked);
        if self.quiet_until_us.is_some_and(|until| now_us < until) {
            return;
        }
        self.quiet_until_us = Some(now_us + QUIET_US);
        let records = std::mem::take(&mut self.held);
        let pointer = tally.pointer.as_deref().unwrap_or_default();
        tracing::warn!(
            source = stream.source.as_str(), stream = %stream.stream, dataset, pointer, records,
            "clear values in a field that was agreed as masked"
        );
    }
}
