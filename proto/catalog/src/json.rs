//! A bounded JSON reader for the slow path: keeps where everything stood, normalises text, sorts
//! members in canonical order, refuses duplicates.
//!
//! Nothing recurses deeper than [`DEPTH_MAX`]; at most [`VALUES_MAX`] values are kept.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::chars::{Fault, fault, normalise, plain_run};
use crate::lexical::NUMBER_DIGITS_MAX;
use crate::violation::Rule;

/// Deepest nesting of objects and lists.
pub(crate) const DEPTH_MAX: usize = 64;
/// Most values in one record.
pub(crate) const VALUES_MAX: usize = 1 << 18;

/// A value and the bytes it came from.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    pub(crate) value: Value<'a>,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

#[derive(Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// The token, a JSON number of at most 64 digits.
    Number(&'a str),
    /// Normalised text.
    Text(Cow<'a, str>),
    /// A text with a character that is not allowed.
    BadText(&'static str),
    Array(Vec<Item<'a>>),
    /// Sorted by UTF-16 code units, without duplicates.
    Object(Vec<(Cow<'a, str>, Item<'a>)>),
}

/// Room for the members of a usual object, so that it is not moved while it grows.
const MEMBERS_USUAL: usize = 8;

/// Why the payload cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReadFault {
    pub(crate) rule: Rule,
    pub(crate) expected: String,
    pub(crate) offset: usize,
    pub(crate) pointer: String,
}

/// Longest member name kept in a pointer, in characters; a longer one is cut and marked.
const SEGMENT_CHARS_MAX: usize = 256;

/// Appends one reference token to an RFC 6901 pointer.
pub(crate) fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    if segment.len() <= SEGMENT_CHARS_MAX && segment.bytes().all(plain) {
        pointer.push_str(segment);
        return;
    }
    for (n, c) in segment.chars().enumerate() {
        if n == SEGMENT_CHARS_MAX {
            pointer.push('…');
            break;
        }
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

/// Reads one JSON value that fills the whole text.
pub(crate) fn read(text: &str) -> Result<Item<'_>, ReadFault> {
    let mut reader = Reader { text, b: text.as_bytes(), at: 0, depth: 0, values: 0 };
    if u32::try_from(text.len()).is_err() {
        return Err(reader.fault(Rule::TooManyValues, &VALUES_MAX.to_string()));
    }
    let item = reader.item()?;
    reader.blanks();
    if reader.at < text.len() {
        return Err(reader.fault(Rule::NotJson, "end of the record"));
    }
    Ok(item)
}

struct Reader<'a> {
    text: &'a str,
    b: &'a [u8],
    at: usize,
    depth: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    fn fault(&self, rule: Rule, expected: &str) -> ReadFault {
        ReadFault { rule, expected: expected.to_owned(), offset: self.at, pointer: String::new() }
    }

    fn peek(&self) -> Option<u8> {
        self.b.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, c: u8) -> Result<(), ReadFault> {
        self.blanks();
        if self.peek() != Some(c) {
            return Err(self.fault(Rule::NotJson, &char::from(c).to_string()));
        }
        self.at += 1;
        Ok(())
    }

    fn item(&mut self) -> Result<Item<'a>, ReadFault> {
        self.blanks();
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(self.fault(Rule::TooManyValues, &VALUES_MAX.to_string()));
        }
        let start = self.at as u32;
        let value = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => match self.string()? {
                Ok(text) => Value::Text(text),
                Err(what) => Value::BadText(what),
            },
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            Some(b'-' | b'0'..=b'9') => Value::Number(self.number()?),
            _ => return Err(self.fault(Rule::NotJson, "a value")),
        };
        Ok(Item { value, start, end: self.at as u32 })
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Value<'a>, ReadFault>,
    ) -> Result<Value<'a>, ReadFault> {
        if self.depth == DEPTH_MAX {
            return Err(self.fault(Rule::TooDeep, &DEPTH_MAX.to_string()));
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, ReadFault> {
        if !self.b[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault(Rule::NotJson, word));
        }
        self.at += word.len();
        Ok(value)
    }

    /// True when another element follows, false at the closing bracket.
    fn more(&mut self, first: bool, close: u8) -> Result<bool, ReadFault> {
        self.blanks();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        if !first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    fn array(&mut self) -> Result<Value<'a>, ReadFault> {
        let mut items = Vec::new();
        while self.more(items.is_empty(), b']')? {
            let item = self.item().map_err(|e| e.below(&items.len().to_string()))?;
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn object(&mut self) -> Result<Value<'a>, ReadFault> {
        let mut members: Vec<(Cow<'a, str>, Item<'a>)> = Vec::with_capacity(MEMBERS_USUAL);
        let mut sorted = true;
        while self.more(members.is_empty(), b'}')? {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.fault(Rule::NotJson, "a member name"));
            }
            let key_at = self.at;
            let key = self.string()?.map_err(|what| ReadFault {
                offset: key_at,
                ..self.fault(Rule::ForbiddenCharacter, what)
            })?;
            self.expect(b':')?;
            let item = self.item().map_err(|e| e.below(&key))?;
            sorted &= members.last().is_none_or(|(k, _)| canonical_order(k, &key).is_lt());
            members.push((key, item));
        }
        if !sorted {
            members.sort_by(|(a, x), (b, y)| canonical_order(a, b).then(x.start.cmp(&y.start)));
            if let Some(pair) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                let fault = ReadFault {
                    offset: pair[1].1.start as usize,
                    ..self.fault(Rule::DuplicateKey, "one member of a name")
                };
                return Err(fault.below(&pair[1].0));
            }
        }
        Ok(Value::Object(members))
    }

    fn number(&mut self) -> Result<&'a str, ReadFault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.peek() == Some(b'0');
        let whole = self.digits()?;
        if zero && whole > 1 {
            self.at = start;
            return Err(self.fault(Rule::NotJson, "a number without leading zeros"));
        }
        let mut count = whole;
        if self.peek() == Some(b'.') {
            self.at += 1;
            count += self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            count += self.digits()?;
        }
        if count > NUMBER_DIGITS_MAX {
            self.at = start;
            return Err(self.fault(Rule::NumberTooLong, &NUMBER_DIGITS_MAX.to_string()));
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<usize, ReadFault> {
        let rest = &self.b[self.at..];
        let len = rest.iter().position(|c| !c.is_ascii_digit()).unwrap_or(rest.len());
        self.at += len;
        if len == 0 { Err(self.fault(Rule::NotJson, "a digit")) } else { Ok(len) }
    }

    /// A string: its normalised text, or what in it is not allowed.
    fn string(&mut self) -> Result<Result<Cow<'a, str>, &'static str>, ReadFault> {
        self.at += 1;
        let start = self.at;
        let mut decoded: Option<String> = None;
        let mut copied = start;
        let (mut high, mut bad) = (false, None);
        loop {
            let (run, run_high) = plain_run(&self.b[self.at..]);
            self.at += run;
            high |= run_high;
            match self.peek() {
                Some(b'"') => break,
                Some(0x7f) => {
                    bad = Some(describe(Fault::Control));
                    self.at += 1;
                }
                Some(b'\\') => {
                    let text = decoded.get_or_insert_with(String::new);
                    text.push_str(&self.text[copied..self.at]);
                    match self.escape()? {
                        Some(c) => text.push(c),
                        None => bad = Some(describe(Fault::Surrogate)),
                    }
                    high = true;
                    copied = self.at;
                }
                Some(_) => return Err(self.fault(Rule::NotJson, "an escaped control character")),
                None => return Err(self.fault(Rule::NotJson, "a closing quote")),
            }
        }
        let tail = &self.text[copied..self.at];
        self.at += 1;
        let text = match decoded {
            None => Cow::Borrowed(tail),
            Some(mut text) => {
                text.push_str(tail);
                Cow::Owned(text)
            }
        };
        if high && bad.is_none() {
            bad = text.chars().find_map(fault).map(describe);
        }
        Ok(match bad {
            Some(what) => Err(what),
            None if high => Ok(normalise(text)),
            None => Ok(text),
        })
    }

    /// The character of an escape; nothing for half a surrogate pair.
    fn escape(&mut self) -> Result<Option<char>, ReadFault> {
        self.at += 1;
        let c = self.peek();
        self.at += 1;
        Ok(Some(match c {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => {
                self.at -= 1;
                return Err(self.fault(Rule::NotJson, "an escape"));
            }
        }))
    }

    fn unicode(&mut self) -> Result<Option<char>, ReadFault> {
        let first = self.hex()?;
        if (0xd800..0xdc00).contains(&first) && self.b[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.hex()?;
            if (0xdc00..0xe000).contains(&second) {
                return Ok(char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)));
            }
            self.at = back;
        }
        Ok(char::from_u32(first))
    }

    fn hex(&mut self) -> Result<u32, ReadFault> {
        let digits = self.b.get(self.at..self.at + 4).unwrap_or_default();
        let value =
            digits.iter().try_fold(0u32, |n, &c| Some(n << 4 | char::from(c).to_digit(16)?));
        match value {
            Some(value) if digits.len() == 4 => {
                self.at += 4;
                Ok(value)
            }
            _ => Err(self.fault(Rule::NotJson, "four hexadecimal digits")),
        }
    }
}

impl ReadFault {
    /// The same fault seen from one level above.
    fn below(mut self, segment: &str) -> ReadFault {
        let mut pointer = String::with_capacity(segment.len() + self.pointer.len() + 1);
        push_segment(&mut pointer, segment);
        pointer.push_str(&self.pointer);
        self.pointer = pointer;
        self
    }
}

fn describe(fault: Fault) -> &'static str {
    match fault {
        Fault::Control => "control character",
        Fault::Noncharacter => "noncharacter",
        Fault::Surrogate => "lone surrogate",
    }
}

/// The order of RFC 8785: by UTF-16 code units.
pub(crate) fn canonical_order(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

#[cfg(test)]
#[path = "json_test.rs"]
mod tests;
