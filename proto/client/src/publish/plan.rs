//! Where an input goes in its stream, and how much of it is there already.
//!
//! A stream that is named after its input holds nothing else. A stream that the caller named goes
//! on: an input that is not there yet goes behind what is, one that was interrupted is resumed, and
//! where neither is certain nothing is sent (see `docs/publishing.md`).

use super::error::Error;
use super::history::History;
use dtm_proto::ingest::StatusResponse;

/// What to do where a named stream holds records already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GoOn {
    /// What the notes say; an error where they do not say it.
    #[default]
    Known,
    /// The input is the one that the stream holds the first records of; the cluster compares them.
    Resume,
    /// The input goes behind what the stream holds.
    Append,
}

/// Which input of which stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Digest of the content and of how it is sent; `None` = it is not known before the end.
    pub(crate) input: Option<&'a str>,
    pub(crate) file: &'a str,
    pub(crate) stream: &'a str,
}

/// Where an input goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Records of the stream before the input's first one.
    pub(crate) base: u64,
    /// Records of the input that are there.
    pub(crate) there: u64,
    /// That is all of it.
    pub(crate) is_whole: bool,
    /// Refused ones among them.
    pub(crate) refused: u64,
    /// Refused records of the stream before the input's first one.
    pub(crate) refused_before: u64,
    /// Doubled records that the stream had counted before this run.
    pub(crate) duplicates_before: u64,
    /// Whether the cluster has to compare them.
    pub(crate) is_compared: bool,
}

impl Plan {
    /// All that the stream holds is of this input.
    pub(crate) fn own(status: &StatusResponse) -> Self {
        Self::from(0, 0, status)
    }

    fn from(base: u64, refused_before: u64, status: &StatusResponse) -> Self {
        Self {
            base,
            there: status.acked_through - base,
            is_whole: false,
            refused: status.refused.saturating_sub(refused_before),
            refused_before,
            duplicates_before: status.duplicates,
            is_compared: false,
        }
    }

    /// The input has gone on behind what was whole.
    pub(crate) fn grown(self) -> Self {
        Self { is_whole: false, is_compared: true, ..self }
    }

    /// Decides it for a stream that the caller named.
    ///
    /// # Errors
    /// [`Error::StreamHolds`], [`Error::Interrupted`]: the caller has to say.
    pub(crate) fn of_named(
        asked: Asked<'_>,
        go_on: GoOn,
        history: &History,
        status: &StatusResponse,
    ) -> Result<Self, Error> {
        let held = status.acked_through;
        let behind = Self::from(held, status.refused, status);
        // Notes of a stream that went back, as after a restore, do not hold any more.
        let known = asked.input.and_then(|input| history.of(input)).filter(|e| e.end() <= held);
        let cut = history.interrupted().filter(|entry| entry.base <= held);
        let resumed = match asked.input {
            Some(input) => cut.filter(|entry| entry.input == input),
            // Whatever was cut: the cluster compares it.
            None if go_on == GoOn::Resume => cut,
            None => None,
        };
        if held == 0 {
            return Ok(behind);
        }
        if let Some(entry) = resumed {
            let plan = Self::from(entry.base, entry.refused_before, status);
            return Ok(Self { is_compared: true, ..plan });
        }
        if go_on == GoOn::Append {
            return Ok(behind);
        }
        if let Some((entry, records)) = known.and_then(|e| Some((e, e.records?))) {
            let plan = Self::from(entry.base, entry.refused_before, status);
            return Ok(Self { there: records, is_whole: true, refused: entry.refused, ..plan });
        }
        if go_on == GoOn::Resume {
            return Ok(Self { is_compared: true, ..Self::own(status) });
        }
        if let Some(entry) = cut {
            let (stream, other) = (asked.stream.to_owned(), entry.file.clone());
            return Err(Error::Interrupted { stream, other });
        }
        if asked.input.is_some() && history.end() == held {
            return Ok(behind);
        }
        let (file, stream) = (asked.file.to_owned(), asked.stream.to_owned());
        Err(Error::StreamHolds { file, stream, held })
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Entry;
    use super::*;

    fn status(held: u64) -> StatusResponse {
        StatusResponse { acked_through: held, refused: 3, ..StatusResponse::default() }
    }

    fn noted(inputs: &[(&str, u64, Option<u64>)]) -> History {
        let mut history = History::open(None, "s", "t").expect("no folder, no failure");
        for (input, base, records) in inputs {
            let entry = Entry {
                input: (*input).into(),
                file: format!("{input}.jsonl"),
                bytes: 0,
                base: *base,
                records: None,
                refused_before: 0,
                refused: 0,
            };
            history.begin(entry).expect("no folder");
            if let Some(records) = records {
                history.end_with(*records, 1).expect("no folder");
            }
        }
        history
    }

    fn plan(
        input: Option<&str>,
        go_on: GoOn,
        notes: &[(&str, u64, Option<u64>)],
        held: u64,
    ) -> Result<(u64, u64, bool, bool), Error> {
        let asked = Asked { input, file: "f", stream: "t" };
        let plan = Plan::of_named(asked, go_on, &noted(notes), &status(held))?;
        Ok((plan.base, plan.there, plan.is_whole, plan.is_compared))
    }

    #[test]
    fn what_is_certain_is_done_and_what_is_not_is_refused() {
        use GoOn::{Append, Known, Resume};
        let day_1 = &[("day1", 0, Some(50))];
        let new = Some("day2");
        // The next file goes behind the one before; that one is there.
        assert_eq!(plan(new, Known, &[], 0).unwrap(), (0, 0, false, false));
        assert_eq!(plan(new, Known, day_1, 50).unwrap(), (50, 0, false, false));
        assert_eq!(plan(Some("day1"), Known, day_1, 50).unwrap(), (0, 50, true, false));
        assert_eq!(plan(Some("day1"), Append, day_1, 50).unwrap(), (50, 0, false, false));
        // An interrupted one is resumed where it stands, whatever was said.
        let cut = &[("day1", 0, Some(50)), ("day2", 50, None)];
        for go_on in [Known, Resume, Append] {
            assert_eq!(plan(new, go_on, cut, 70).unwrap(), (50, 20, false, true), "{go_on:?}");
        }
        assert!(matches!(plan(Some("day3"), Known, cut, 70), Err(Error::Interrupted { .. })));
        assert_eq!(plan(Some("day3"), Append, cut, 70).unwrap(), (70, 0, false, false));
        // Records that nobody noted: another computer, or the notes are lost.
        for (notes, held) in [(&[][..], 50), (&day_1[..], 60), (&day_1[..], 40)] {
            let error = plan(new, Known, notes, held).unwrap_err();
            assert!(matches!(error, Error::StreamHolds { .. }), "{error}");
            assert_eq!(plan(new, Resume, notes, held).unwrap(), (0, held, false, true));
        }
        // Standard input is never known.
        assert!(matches!(plan(None, Known, day_1, 50), Err(Error::StreamHolds { .. })));
        assert_eq!(plan(None, Append, cut, 70).unwrap(), (70, 0, false, false));
        assert_eq!(plan(None, Resume, cut, 70).unwrap(), (50, 20, false, true));
    }
}
