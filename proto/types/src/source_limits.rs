//! A source's own limits by their names, as the command line, refusals and ledger say them.

use crate::command::SourceLimits;

impl SourceLimits {
    /// Every name, in the order of the message.
    pub const NAMES: [&'static str; 7] = [
        "record_bytes_max",
        "frame_bytes_max",
        "in_flight_bytes_max",
        "streams_open_max",
        "stream_names_max",
        "quarantine_records_max",
        "quarantine_bytes_max",
    ];

    /// The limits that are set, by name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let values = [
            self.record_bytes_max,
            self.frame_bytes_max,
            self.in_flight_bytes_max,
            self.streams_open_max.into(),
            self.stream_names_max.into(),
            self.quarantine_records_max,
            self.quarantine_bytes_max,
        ];
        Self::NAMES.into_iter().zip(values).filter(|(_, value)| *value > 0)
    }

    /// Sets one by its name; 0 takes it away. False, and nothing changed, where no limit has that
    /// name or the value is too great for it.
    #[must_use]
    pub fn set(&mut self, name: &str, value: u64) -> bool {
        let narrow = u32::try_from(value).ok();
        match (name, narrow) {
            ("record_bytes_max", _) => self.record_bytes_max = value,
            ("frame_bytes_max", _) => self.frame_bytes_max = value,
            ("in_flight_bytes_max", _) => self.in_flight_bytes_max = value,
            ("streams_open_max", Some(value)) => self.streams_open_max = value,
            ("stream_names_max", Some(value)) => self.stream_names_max = value,
            ("quarantine_records_max", _) => self.quarantine_records_max = value,
            ("quarantine_bytes_max", _) => self.quarantine_bytes_max = value,
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_sets_its_own_limit_and_no_other() {
        for name in SourceLimits::NAMES {
            let mut limits = SourceLimits::default();
            assert!(limits.set(name, 7), "{name}");
            assert_eq!(limits.named().collect::<Vec<_>>(), [(name, 7)]);
            assert!(limits.set(name, 0) && limits == SourceLimits::default(), "{name}");
        }
        let mut limits = SourceLimits::default();
        assert!(!limits.set("record_bytes", 7) && !limits.set("streams_open_max", 1 << 32));
        assert_eq!(limits, SourceLimits::default());
    }
}
