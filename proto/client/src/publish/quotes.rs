//! Whether a quote of a table is left open: a reader of CSV takes the rest of the file as one cell
//! then, without a word.

/// Follows the quotes of a table, by the rules of the reader: a quote opens at the start of a cell
/// only, two inside are one.
#[derive(Clone, Debug)]
pub(crate) struct Quotes {
    delimiter: u8,
    state: State,
    line: u64,
    opened: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Plain,
    Quoted,
    /// A quote inside a quoted cell: its end, or the first of two.
    Ending,
}

impl Quotes {
    pub(crate) fn new(delimiter: u8) -> Self {
        Self { delimiter, state: State::Start, line: 1, opened: 0 }
    }

    /// Goes on with the next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::Start, b'"') => {
                    self.opened = self.line;
                    State::Quoted
                }
                (State::Ending, b'"') => State::Quoted,
                (State::Quoted, b'"') => State::Ending,
                (State::Quoted, _) => State::Quoted,
                (_, b'\n' | b'\r') => State::Start,
                (_, other) if other == self.delimiter => State::Start,
                _ => State::Plain,
            };
            self.line += u64::from(byte == b'\n');
        }
    }

    /// The line of a quote that is open now.
    pub(crate) fn unclosed(&self) -> Option<u64> {
        (self.state == State::Quoted).then_some(self.opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_quote_is_named_with_its_line() {
        let unclosed = |text: &str| {
            let mut quotes = Quotes::new(b',');
            // By single bytes: reads are cut anywhere.
            text.as_bytes().iter().for_each(|byte| quotes.feed(&[*byte]));
            quotes.unclosed()
        };
        assert_eq!(unclosed("ma,ten\nF-1,\"M\nF-2,Hai\n"), Some(2));
        assert_eq!(unclosed("a\n\"x\"\"\n"), Some(2));
        assert_eq!(unclosed("a,b\n\"x\ny\",2\n3,\""), Some(4));
        for fine in ["", "a\n\"x\"\"y\"\n", "a,b\r\n5\" nail,\"\"\r\n", "a\n\"x\"y\"\n", "\"a\""] {
            assert_eq!(unclosed(fine), None, "{fine}");
        }
    }
}
