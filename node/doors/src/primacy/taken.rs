//! Since when this node knows that its site takes over. The wait for the old right to end begins then,
//! and goes on over the start in which the node goes to the next life.
//!
//! `DATA/taken` holds the life, the clock and its reading. Of another clock (the machine was started
//! again, or the process stands in another time namespace) the wait begins anew.

use std::io;
use std::path::Path;
use std::time::Duration;

use dtm_storage::vfs::{RealVfs, replace_file};
use dtm_types::Incarnation;

use crate::system::{boot_clock, since_boot_us};

pub(crate) const FILE: &str = "taken";

/// Notes that it is known now, unless it was before. Durable when it returns.
///
/// # Errors
/// Of the disk.
pub(crate) fn note(data: &Path, life: Incarnation) -> io::Result<()> {
    let Some(clock) = boot_clock().filter(|_| ago(data, life).is_none()) else { return Ok(()) };
    let text = format!("{life} {clock} {}\n", since_boot_us());
    replace_file(&RealVfs, &data.join(FILE), text.as_bytes())
}

/// For how long it is known that this site takes over in that life.
pub(crate) fn ago(data: &Path, life: Incarnation) -> Option<Duration> {
    let text = std::fs::read_to_string(data.join(FILE)).ok()?;
    let [noted, clock, at_us] = text.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
    if noted != life.to_string() || Some(clock) != boot_clock().as_deref() {
        return None;
    }
    let passed_us = since_boot_us().checked_sub(at_us.parse().ok()?)?;
    u64::try_from(passed_us).ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    // holds: LIVE-1
    // target: P19
    #[test]
    fn a_wait_goes_on_over_a_start_and_begins_anew_under_another_clock() {
        let home = tempfile::tempdir().expect("a folder");
        let data = home.path();
        assert_eq!(ago(data, Incarnation(2)), None);
        note(data, Incarnation(2)).expect("written");
        let first = std::fs::read_to_string(data.join(FILE)).expect("kept");
        std::thread::sleep(Duration::from_millis(5));
        note(data, Incarnation(2)).expect("written");
        assert_eq!(
            std::fs::read_to_string(data.join(FILE)).expect("kept"),
            first,
            "the first time"
        );
        let passed = ago(data, Incarnation(2)).expect("known");
        assert!(
            passed >= Duration::from_millis(5) && passed < Duration::from_secs(60),
            "{passed:?}"
        );
        assert_eq!(ago(data, Incarnation(3)), None, "of another life");

        let at = since_boot_us() + 60_000_000;
        let clock = boot_clock().expect("of this machine");
        let later =
            [format!("2 {clock} {at}"), format!("2 x{clock} 1"), "2".into(), "2 x y z".into()];
        for text in later {
            std::fs::write(data.join(FILE), &text).expect("written");
            assert_eq!(ago(data, Incarnation(2)), None, "{text}");
        }
    }
}
