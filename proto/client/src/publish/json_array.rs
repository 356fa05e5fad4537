//! Elements of one JSON array, cut without being parsed: strings and nesting only.
//!
//! An element that is malformed inside is still cut where its brackets close and goes to the
//! server, which refuses it alone. Where brackets or commas do not fit, the rest of the file
//! cannot be numbered: that ends the run with the line.

use super::error::Error;
use super::records::{Item, RECORD_BYTES_MAX, Unsendable};
use bytes::Bytes;
use dtm_types::text::Told;
use std::io::BufRead;

pub(crate) struct JsonArray<R> {
    input: R,
    line: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    First,
    Next,
    End,
}

impl JsonArray<super::records::Counted> {
    pub(crate) fn has_buffered(&self) -> bool {
        !self.input.buffer().is_empty()
    }
}

impl<R: BufRead> JsonArray<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, line: 1, state: State::Start }
    }

    pub(crate) fn next_item(&mut self, name: &str) -> Result<Option<Item>, Error> {
        if self.state == State::Start {
            match self.next_solid(name)? {
                Some(b'[') => self.state = State::First,
                _ => return Err(self.wrong(name, "publish.array_start")),
            }
        }
        if self.state == State::End {
            return match self.next_solid(name)? {
                None => Ok(None),
                Some(_) => Err(self.wrong(name, "publish.array_behind")),
            };
        }
        let byte = self.next_solid(name)?;
        match (self.state, byte) {
            (_, None) => Err(self.wrong(name, "publish.array_open")),
            (State::First, Some(b']')) => {
                self.state = State::End;
                self.next_item(name)
            }
            (_, Some(b',' | b']' | b'}')) => Err(self.wrong(name, "publish.array_element")),
            (_, Some(first)) => self.element(name, first).map(Some),
        }
    }

    /// Cuts one element that begins with `first` and reads what follows it.
    fn element(&mut self, name: &str, first: u8) -> Result<Item, Error> {
        let line = self.line;
        let (mut bytes, mut long) = (vec![first], false);
        let mut depth = u64::from(matches!(first, b'{' | b'['));
        let (mut text, mut escaped) = (first == b'"', false);
        let end = loop {
            let Some(byte) = self.next_byte(name)? else {
                return Err(self.wrong(name, "publish.array_open"));
            };
            match byte {
                _ if text => {
                    text = escaped || byte != b'"';
                    escaped = !escaped && byte == b'\\';
                }
                b'"' => text = true,
                b'{' | b'[' => depth += 1,
                b',' | b']' if depth == 0 => break byte,
                b'}' | b']' if depth == 0 => return Err(self.wrong(name, "publish.array_bracket")),
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            if bytes.len() > RECORD_BYTES_MAX {
                long = true;
            } else {
                bytes.push(byte);
            }
        };
        self.state = if end == b']' { State::End } else { State::Next };
        if long {
            return Ok(Item::Unsendable { line, reason: Unsendable::TooLong });
        }
        Ok(Item::Record { line, payload: Bytes::copy_from_slice(bytes.trim_ascii_end()) })
    }

    fn next_solid(&mut self, name: &str) -> Result<Option<u8>, Error> {
        loop {
            match self.next_byte(name)? {
                Some(b' ' | b'\t' | b'\r' | b'\n') => {}
                other => return Ok(other),
            }
        }
    }

    fn next_byte(&mut self, name: &str) -> Result<Option<u8>, Error> {
        let buffer = self
            .input
            .fill_buf()
            .map_err(|e| Error::Io { file: name.to_owned(), reason: e.to_string() })?;
        let byte = buffer.first().copied();
        if byte.is_some() {
            self.input.consume(1);
        }
        if byte == Some(b'\n') {
            self.line += 1;
        }
        Ok(byte)
    }

    fn wrong(&self, name: &str, key: &'static str) -> Error {
        Error::Syntax { file: name.to_owned(), line: self.line, what: Told::new(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Result<Vec<(u64, String)>, Error> {
        let mut array = JsonArray::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some(item) = array.next_item("f")? {
            let Item::Record { line, payload } = item else { panic!("{item:?}") };
            found.push((line, String::from_utf8(payload.to_vec()).expect("text")));
        }
        Ok(found)
    }

    #[test]
    fn elements_are_cut_with_their_lines() {
        let found = all("[{\"a\":[1,\"]}\\\"\"]},\n 2 ,\n{}]\n").expect("an array");
        let expected = [(1, "{\"a\":[1,\"]}\\\"\"]}"), (2, "2"), (3, "{}")];
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_owned())));
        assert_eq!(all(" [ ] ").expect("empty").len(), 0);
        for bad in ["", "{}", "[", "[1", "[1,]", "[,1]", "[1]2", "[}]", "[{]"] {
            assert!(all(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_cut_as_it_was(
            texts in prop::collection::vec(("\\PC{0,20}", any::<i64>()), 0..20),
        ) {
            let values: Vec<_> =
                texts.iter().map(|(t, n)| serde_json::json!({"t": [t, {"n": n}], "n": n})).collect();
            let text = serde_json::to_string_pretty(&values).expect("JSON");
            let found = all(&text).expect("an array");
            let read: Vec<serde_json::Value> =
                found.iter().map(|(_, t)| serde_json::from_str(t).expect("JSON")).collect();
            prop_assert_eq!(read, values);
        }
    }
}
