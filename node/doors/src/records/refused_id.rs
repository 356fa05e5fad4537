//! The id of a refused record: shown by the quarantine, read where the record is sent again.

use dtm_proto::records::GroupPosition;
use dtm_types::GroupId;
use dtm_types::format::Place;
use dtm_types::text::Told;

/// Place of a refused record, as the quarantine lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefusedId {
    pub group: u32,
    pub index: u64,
    pub ordinal: u32,
    pub record: u32,
}

impl RefusedId {
    /// The record at a place of a batch.
    pub(crate) fn new(group: GroupId, place: &Place, record: usize) -> Self {
        let record = u32::try_from(record).expect("a batch has fewer than 2^32 records");
        Self { group: group.0, index: place.index, ordinal: place.ordinal, record }
    }

    /// The stream that takes it when it is sent again.
    pub(crate) fn stream(self) -> String {
        format!("resend.{self}")
    }

    /// The refused record that a stream takes again, where it is such a stream.
    pub(crate) fn of_stream(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix("resend.")?)
    }

    /// The refused record that this one, which lies in quarantine of `stream`, is: itself, or the
    /// one that was sent again. However often it is refused, there is one stream that takes it.
    pub(crate) fn origin(self, stream: &str) -> Self {
        Self::of_stream(stream).filter(|origin| origin.group == self.group).unwrap_or(self)
    }

    /// Says of a text that it is no such id.
    pub(crate) fn rule(text: &str) -> Told {
        Told::new("resend.id").with("id", text)
    }

    /// Reads `GROUP-INDEX-ORDINAL-RECORD`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let id = Self {
            group: parts.next()?.parse().ok()?,
            index: parts.next()?.parse().ok()?,
            ordinal: parts.next()?.parse().ok()?,
            record: parts.next()?.parse().ok()?,
        };
        (parts.next().is_none() && id.to_string() == text).then_some(id)
    }

    /// The position just before this record.
    pub(crate) fn before(self) -> Option<GroupPosition> {
        let Self { group, index, ordinal, record } = self;
        Some(match (record, ordinal) {
            (0, 0) => {
                let index = index.checked_sub(1)?;
                GroupPosition { group, index, ordinal: u32::MAX, records: 0 }
            }
            (0, _) => GroupPosition { group, index, ordinal: ordinal - 1, records: 0 },
            _ => GroupPosition { group, index, ordinal, records: record },
        })
    }
}

impl std::fmt::Display for RefusedId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}-{}", self.group, self.index, self.ordinal, self.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = RefusedId::parse("3-17-0-2").expect("an id");
        assert_eq!(id.to_string(), "3-17-0-2");
        for wrong in ["", "3-17-0", "3-17-0-2-1", "3-17-0-x", "03-17-0-2", "3-17-0--2"] {
            assert_eq!(RefusedId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_refused_again_is_the_record_that_was_refused_first() {
        let [first, again] = ["3-17-0-2", "3-20-0-0"].map(|id| RefusedId::parse(id).expect("id"));
        assert_eq!(RefusedId::of_stream(&first.stream()), Some(first));
        assert_eq!(again.origin(&first.stream()), first);
        for other in ["main", "resend.X", "resend.4-17-0-2"] {
            assert_eq!(again.origin(other), again, "{other}");
        }
    }

    #[test]
    fn the_position_is_just_before_the_record() {
        let before = |text: &str| {
            let at = RefusedId::parse(text).expect("an id").before()?;
            Some((at.index, at.ordinal, at.records))
        };
        assert_eq!(before("3-17-4-2"), Some((17, 4, 2)));
        assert_eq!(before("3-17-4-0"), Some((17, 3, 0)));
        assert_eq!(before("3-17-0-0"), Some((16, u32::MAX, 0)));
        assert_eq!(before("3-0-0-0"), None);
    }
}
