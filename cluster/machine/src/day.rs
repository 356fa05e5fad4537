//! What a group stored and refused since local midnight, kept in its head: group time decides the
//! day, so that every replica counts the same, and a restart or another leader changes nothing. One
//! day is kept.

use dtm_types::format::GroupHead;
use dtm_types::local_day;

/// The head has a day from this version on: software before it would drop the fields.
const VERSION: u32 = 2;

/// A group that rose to the version counts from here on; where it held anything before, the rest of
/// this day is all that it will say of it.
pub(crate) fn begin(head: &mut GroupHead, time_us: i64) {
    if head.format_version < VERSION || head.day > 0 {
        return;
    }
    let is_new = head.records == 0 && head.refused == 0 && head.duplicates == 0;
    head.day = local_day(time_us);
    head.day_from_us = if is_new { 0 } else { time_us };
}

/// A batch was stored.
pub(crate) fn count(head: &mut GroupHead, time_us: i64, records: u64, refused: u64) {
    if head.format_version < VERSION {
        return;
    }
    begin(head, time_us);
    let day = local_day(time_us);
    if head.day != day {
        (head.day, head.day_records, head.day_refused, head.day_from_us) = (day, 0, 0, 0);
    }
    head.day_records += records;
    head.day_refused += refused;
}
