//! Faults as lines of words, for the control socket and for people.

use std::time::Duration;

use crate::{CutStyle, Effect, Error, FaultFs, Op, Rule, RuleId};

/// What [`FaultFs::obey`] understands.
pub const HELP: &str = "\
fail OP FILES ERRNO TIMES           EIO, ENOSPC, EROFS, EDQUOT; TIMES: once, always or a number
delay OP FILES MIN-MAX TIMES        milliseconds
stale FILES TIMES                   a read gets what the file holds now, once it has changed
misdirect FILES BYTES TIMES         a read gets the bytes so many further on
powercut OP FILES AFTER             cuts the power at that operation, after so many others
space BYTES | space all             the disk is full after so many bytes
flip PATH OFFSET BIT | flipany FILES SEED | truncate PATH LENGTH
cut | cut torn SEED                 power off; unsynced data and entries are gone
on                                  power on
rules | remove NUMBER | heal | counts
OP: read write sync sync-folder open create rename remove resize
FILES: a path below the mount, * for any characters";

impl FaultFs {
    /// Does what a line says and answers with a line of JSON.
    ///
    /// # Errors
    /// When it is not understood or cannot be done.
    pub fn obey(&self, line: &str) -> Result<String, Error> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = || "\"done\"".to_owned();
        match words.as_slice() {
            ["rules"] => {
                let rules = self.rules().into_iter().map(|(id, rule, fired)| {
                    serde_json::json!({"rule": id.0, "is": format!("{rule:?}"), "fired": fired})
                });
                return json(&rules.collect::<Vec<_>>());
            }
            ["counts"] => return json(&self.counts()),
            ["heal"] => self.heal(),
            ["remove", id] => {
                let fired = self.remove(RuleId(number("a rule", id)?))?;
                return json(&serde_json::json!({ "fired": fired }));
            }
            ["space", "all"] => self.limit_space(None),
            ["space", bytes] => self.limit_space(Some(number("bytes", bytes)?)),
            ["flip", path, offset, bit] => {
                let bit = number("a bit", bit)?;
                let bit = u8::try_from(bit).ok().filter(|bit| *bit < 8);
                let bit = bit.ok_or_else(|| refused("a bit is 0 to 7"))?;
                self.flip(path, number("an offset", offset)?, bit)?;
            }
            ["flipany", files, seed] => {
                let flipped = self.flip_any(files, number("a seed", seed)?)?;
                let (path, offset) = (flipped.path, flipped.offset);
                let told = serde_json::json!({"path": path, "offset": offset, "bit": flipped.bit});
                return json(&told);
            }
            ["truncate", path, len] => self.truncate(path, number("a length", len)?)?,
            ["cut"] => return json(&self.cut_power(CutStyle::DropAll)?),
            ["cut", "torn", seed] => {
                return json(&self.cut_power(CutStyle::Torn { seed: number("a seed", seed)? })?);
            }
            ["on"] => self.power_on()?,
            words => {
                let id = self.add(rule(words)?)?;
                return json(&serde_json::json!({ "rule": id.0 }));
            }
        }
        Ok(done())
    }
}

fn rule(words: &[&str]) -> Result<Rule, Error> {
    match *words {
        ["fail", op, files, errno, times] => Ok(Rule {
            times: parse_times(times)?,
            ..Rule::always(parse_op(op)?, files, Effect::Fail(parse_errno(errno)?))
        }),
        ["delay", op, files, range, times] => {
            let ends = range.split_once('-').ok_or_else(|| refused("a delay is MIN-MAX"))?;
            let ends = (number("milliseconds", ends.0)?, number("milliseconds", ends.1)?);
            if ends.0 > ends.1 || ends.1 > DELAY_MS_MAX {
                return Err(refused("a delay is MIN-MAX of at most 60000 milliseconds"));
            }
            let effect =
                Effect::Delay(Duration::from_millis(ends.0), Duration::from_millis(ends.1));
            Ok(Rule { times: parse_times(times)?, ..Rule::always(parse_op(op)?, files, effect) })
        }
        ["stale", files, times] => {
            Ok(Rule { times: parse_times(times)?, ..Rule::always(Op::Read, files, Effect::Stale) })
        }
        ["misdirect", files, by, times] => {
            let by = by.parse().map_err(|_| refused("bytes are a whole number"))?;
            let effect = Effect::Misdirect(by);
            Ok(Rule { times: parse_times(times)?, ..Rule::always(Op::Read, files, effect) })
        }
        ["powercut", op, files, after] => Ok(Rule {
            after: number("a count", after)?,
            ..Rule::once(parse_op(op)?, files, Effect::PowerCut)
        }),
        _ => Err(refused(&format!("not understood; there is:\n{HELP}"))),
    }
}

const DELAY_MS_MAX: u64 = 60_000;

fn parse_op(word: &str) -> Result<Op, Error> {
    let known = Op::ALL.iter().find(|(_, name)| *name == word);
    let names = || Op::ALL.map(|(_, name)| name).join(", ");
    known.map(|(op, _)| *op).ok_or_else(|| refused(&format!("no operation {word}: {}", names())))
}

fn parse_errno(word: &str) -> Result<i32, Error> {
    match word {
        "EIO" => Ok(libc::EIO),
        "ENOSPC" => Ok(libc::ENOSPC),
        "EROFS" => Ok(libc::EROFS),
        "EDQUOT" => Ok(libc::EDQUOT),
        _ => Err(refused(&format!("no error {word}: EIO, ENOSPC, EROFS, EDQUOT"))),
    }
}

fn parse_times(word: &str) -> Result<Option<u64>, Error> {
    match word {
        "once" => Ok(Some(1)),
        "always" => Ok(None),
        word => number("how often", word).map(Some),
    }
}

fn number(what: &str, word: &str) -> Result<u64, Error> {
    word.parse().map_err(|_| refused(&format!("{what} is a whole number, not {word}")))
}

fn refused(why: &str) -> Error {
    Error::Command(why.to_owned())
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Command(error.to_string()))
}
