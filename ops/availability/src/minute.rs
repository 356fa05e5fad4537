//! One minute as a probe saw it: a line of JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Error;

/// What a probe tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// A record is received: sent, and acknowledged.
    Reception,
    /// The entry page opens.
    EntryPage,
}

impl Function {
    /// All of them: each has to work.
    pub const ALL: [Self; 2] = [Self::Reception, Self::EntryPage];

    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reception => "reception",
            Self::EntryPage => "entry_page",
        }
    }
}

/// What came of the attempts of one minute, by address: why one failed; empty = none did.
type Answers = BTreeMap<String, String>;

/// What one probe saw in one minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Minute {
    /// Minutes since 1970-01-01 UTC.
    pub minute: i64,
    /// What worked at no address, in one round of attempts at least.
    #[serde(default)]
    pub interrupted: BTreeSet<Function>,
    /// Why an address received nothing; empty = it always did.
    #[serde(default)]
    pub reception: Answers,
    /// Why the page of an address did not open; empty = it always did.
    #[serde(default)]
    pub entry_page: Answers,
}

/// How the system was in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every address answered.
    Up,
    /// Some address did not.
    Partial,
    /// A function worked at no address.
    Interrupted,
}

impl Minute {
    /// What was seen of a function.
    pub fn of(&self, function: Function) -> &Answers {
        match function {
            Function::Reception => &self.reception,
            Function::EntryPage => &self.entry_page,
        }
    }

    /// One round of attempts, at every address at once. Where all failed the whole minute counts,
    /// whatever the other rounds saw: an interruption is not shortened by when it begins.
    pub fn round(&mut self, function: Function, outcomes: Vec<(String, Result<(), String>)>) {
        if outcomes.iter().all(|(_, outcome)| outcome.is_err()) {
            self.interrupted.insert(function);
        }
        for (address, outcome) in outcomes {
            self.note(function, address, outcome.err());
        }
    }

    /// The same minute as another probe saw it: what one of them reached was there.
    pub(crate) fn join(&mut self, other: &Self) {
        self.interrupted.retain(|function| other.interrupted.contains(function));
        for function in Function::ALL {
            for (address, why) in other.of(function) {
                let why = Some(why.clone()).filter(|why| !why.is_empty());
                self.note(function, address.clone(), why);
            }
        }
    }

    fn note(&mut self, function: Function, address: String, failure: Option<String>) {
        let answers = match function {
            Function::Reception => &mut self.reception,
            Function::EntryPage => &mut self.entry_page,
        };
        let noted = answers.entry(address).or_default();
        match failure {
            None => {}
            // An empty reason would say that it answered.
            Some(why) if why.is_empty() => "no answer".clone_into(noted),
            Some(why) => *noted = why,
        }
    }

    /// How the system was.
    pub fn state(&self) -> State {
        let mut all = self.reception.values().chain(self.entry_page.values());
        if !self.interrupted.is_empty() {
            State::Interrupted
        } else if all.any(|why| !why.is_empty()) {
            State::Partial
        } else {
            State::Up
        }
    }
}

/// Maintenance that was planned: it explains interruptions and excuses none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// First minute.
    pub from: i64,
    /// The minute after the last.
    pub to: i64,
    /// What is done.
    pub reason: String,
}

/// A line of a probe's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// What was seen.
    Seen(Minute),
    /// What was planned.
    Planned {
        /// When and why.
        maintenance: Maintenance,
    },
}

impl Line {
    /// As it stands in the file, with its end.
    pub fn show(&self) -> String {
        let mut line = serde_json::to_string(self).expect("names and texts become JSON");
        line.push('\n');
        line
    }

    /// The lines of a file. A last line without its end was being written when the probe died; it
    /// is left out.
    ///
    /// # Errors
    /// [`Error::Line`] with the first that is none.
    pub fn all(text: &str) -> Result<Vec<Self>, Error> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let parse = |(at, line): (usize, &str)| {
            let parsed = serde_json::from_str(line);
            parsed.map_err(|why| Error::Line { line: at + 1, why: why.to_string() })
        };
        lines.map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(reception: &[Result<(), &str>], entry_page: &[Result<(), &str>]) -> Minute {
        let mut minute = Minute { minute: 29_413_078, ..Minute::default() };
        for (function, outcomes) in
            [(Function::Reception, reception), (Function::EntryPage, entry_page)]
        {
            let outcome = |(at, outcome): (usize, &Result<(), &str>)| {
                (format!("n{at}"), outcome.map_err(str::to_owned))
            };
            minute.round(function, outcomes.iter().enumerate().map(outcome).collect());
        }
        minute
    }

    #[test]
    fn a_function_that_works_nowhere_is_an_interruption() {
        assert_eq!(seen(&[Ok(()), Ok(())], &[Ok(())]).state(), State::Up);
        let partial = seen(&[Err("refused"), Ok(())], &[Ok(())]);
        assert_eq!((partial.state(), partial.interrupted.len()), (State::Partial, 0));
        let down = seen(&[Err("refused"), Err("")], &[Ok(())]);
        assert_eq!(down.state(), State::Interrupted);
        assert!(down.interrupted.iter().eq([&Function::Reception]));
        assert_eq!(down.reception["n1"], "no answer");
        assert_eq!(seen(&[Ok(())], &[Err("503")]).state(), State::Interrupted);
        assert_eq!(seen(&[Ok(())], &[]).state(), State::Interrupted, "nobody tried the page");
    }

    #[test]
    fn one_round_that_failed_everywhere_takes_the_minute() {
        let mut minute = seen(&[Ok(())], &[Ok(())]);
        minute.round(Function::Reception, vec![("n0".to_owned(), Err("cut".to_owned()))]);
        minute.round(Function::Reception, vec![("n0".to_owned(), Ok(()))]);
        assert_eq!((minute.state(), minute.reception["n0"].as_str()), (State::Interrupted, "cut"));
        // Another probe reached it all the time: the way of this one was cut.
        minute.join(&seen(&[Ok(())], &[Ok(())]));
        assert_eq!((minute.state(), minute.reception["n0"].as_str()), (State::Partial, "cut"));
    }

    #[test]
    fn lines_are_read_back_and_a_torn_last_one_is_left_out() {
        let seen = Line::Seen(seen(&[Err("refused"), Ok(())], &[Ok(())]));
        let maintenance = Maintenance { from: 1, to: 2, reason: "disks".to_owned() };
        let planned = Line::Planned { maintenance };
        let text = format!("{}{}{{\"minute\":29", seen.show(), planned.show());
        assert_eq!(Line::all(&text).expect("lines"), [seen, planned]);
        let wrong = Line::all("{\"minute\":1}\n{\"hour\":2}\n").expect_err("no minute");
        assert!(matches!(wrong, Error::Line { line: 2, .. }), "{wrong}");
        assert!(Line::all("").expect("nothing").is_empty());
    }
}
