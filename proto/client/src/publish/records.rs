//! Records of a file, one after the other, in bounded memory.

use super::error::Error;
use super::input::Format;
use super::json_array::JsonArray;
use super::quotes::Quotes;
use bytes::Bytes;
use dtm_catalog::{Columns, Definition};
use dtm_types::text::{Lang, Told, render};
use std::io::{BufRead, BufReader, Read};
use std::ops::Deref;

/// Longest record; the same whatever the server's limit, so that numbers never depend on it.
pub(crate) const RECORD_BYTES_MAX: usize = 8 << 20;

/// Where a table ends inside a cell.
pub(crate) const OPEN_QUOTE: &str = "publish.open_quote";
/// An object that stands on several lines, where each line is to be a record.
const SPREAD_OBJECT: &str = "publish.spread_object";
/// What some programs write before UTF-8 text.
pub(crate) const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a file is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What it is.
    pub format: Format,
    /// What separates the cells of a table.
    pub delimiter: u8,
}

impl Default for Layout {
    fn default() -> Self {
        Self { format: Format::Auto, delimiter: b',' }
    }
}

/// One thing of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A record; the n-th one of a file has sequence n.
    Record {
        /// Line where it begins, from 1.
        line: u64,
        /// Its JSON.
        payload: Bytes,
    },
    /// Something that cannot be a record: it gets no sequence.
    Unsendable {
        /// Line where it begins, from 1.
        line: u64,
        /// Why.
        reason: Unsendable,
    },
}

/// Why something of a file cannot be a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// It is longer than 8 MiB.
    TooLong,
    /// A row of a table that is not UTF-8. Lines are sent as they are: the server refuses them.
    NotUtf8,
    /// A row with more or fewer cells than the header: which cell is which is not known.
    Columns {
        /// Cells of the row.
        found: usize,
        /// Cells of the header.
        expected: usize,
    },
}

impl Unsendable {
    /// Key of the text that says why.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::TooLong => "publish.too_long",
            Self::NotUtf8 => "publish.not_utf8",
            Self::Columns { .. } => "publish.columns",
        }
    }

    /// The text.
    #[must_use]
    pub fn text(self, lang: Lang) -> String {
        match self {
            Self::TooLong | Self::NotUtf8 => render(lang, self.key(), &[]),
            Self::Columns { found, expected } => {
                let (found, expected) = (found.to_string(), expected.to_string());
                render(lang, self.key(), &[("found", &found), ("expected", &expected)])
            }
        }
    }
}

/// Reads records.
pub struct RecordReader {
    inner: Inner,
}

enum Inner {
    Lines { input: Counted, line: u64 },
    Array(Box<JsonArray<Counted>>),
    Table(Box<Table>),
}

/// Any input, buffered.
pub(crate) type Counted = BufReader<Box<dyn Read + Send>>;

struct Table {
    rows: csv::Reader<Scanned>,
    columns: Columns,
    row: csv::StringRecord,
}

impl std::fmt::Debug for RecordReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordReader")
    }
}

impl RecordReader {
    /// Reads `input` as what `layout` says; `name` is its file name, for the guess and for errors.
    /// An empty input has no records, whatever it is.
    ///
    /// # Errors
    /// [`Error::Definition`] where a table has no definition, [`Error::Header`] and
    /// [`Error::Separator`] where its header does not fit, [`Error::Utf16`], [`Error::Syntax`]
    /// where one object stands on many lines, [`Error::Io`].
    pub fn new(
        name: &str,
        input: Box<dyn Read + Send>,
        layout: Layout,
        definition: Option<&Definition>,
    ) -> Result<Self, Error> {
        Self::with(name, input, layout, || definition)
    }

    /// As [`RecordReader::new`]; asks for the definition where the input is a table.
    ///
    /// # Errors
    /// As [`RecordReader::new`].
    pub fn with<D: Deref<Target = Definition>>(
        name: &str,
        input: Box<dyn Read + Send>,
        layout: Layout,
        definition: impl FnOnce() -> Option<D>,
    ) -> Result<Self, Error> {
        let mut input: Counted = BufReader::with_capacity(256 << 10, input);
        let io = |e| Error::Io { file: name.to_owned(), reason: std::io::Error::to_string(&e) };
        let start = input.fill_buf().map_err(io)?;
        if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
            return Err(Error::Utf16 { file: name.to_owned() });
        }
        let format = layout.format.guess(name, start);
        if start.starts_with(UTF8_MARK) {
            input.consume(UTF8_MARK.len());
        }
        let start = input.fill_buf().map_err(io)?;
        if format == Format::JsonLines && is_spread(name, start) {
            let what = Told::new(SPREAD_OBJECT);
            return Err(Error::Syntax { file: name.to_owned(), line: 1, what });
        }
        let inner = match format {
            _ if start.is_empty() => Inner::Lines { input, line: 0 },
            Format::JsonArray => Inner::Array(Box::new(JsonArray::new(input))),
            Format::Csv => {
                let input = Scanned::new(input, layout.delimiter);
                let definition = definition();
                Inner::Table(Box::new(Table::new(name, input, definition.as_deref())?))
            }
            Format::Auto | Format::JsonLines => Inner::Lines { input, line: 0 },
        };
        Ok(Self { inner })
    }

    /// Whether the next item may come without a wait for the input.
    pub(crate) fn has_buffered(&self) -> bool {
        match &self.inner {
            Inner::Lines { input, .. } => !input.buffer().is_empty(),
            Inner::Array(array) => array.has_buffered(),
            // The table's own buffer is not visible.
            Inner::Table(_) => false,
        }
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Syntax`] where an array cannot be followed any further.
    pub fn next_item(&mut self, name: &str) -> Result<Option<Item>, Error> {
        match &mut self.inner {
            Inner::Lines { input, line } => next_line(name, input, line),
            Inner::Array(array) => array.next_item(name),
            Inner::Table(table) => table.next_item(name),
        }
    }
}

/// Whether the first line is the start of an object that was written over several lines. A first
/// line that is merely broken is a record: the server refuses it alone.
fn is_spread(name: &str, start: &[u8]) -> bool {
    let Some(end) = start.iter().position(|&byte| byte == b'\n') else {
        return false;
    };
    let line = start[..end].trim_ascii();
    let is_cut = |line| {
        serde_json::from_slice::<serde::de::IgnoredAny>(line).is_err_and(|error| error.is_eof())
    };
    line == b"{"
        || (name.to_ascii_lowercase().ends_with(".json") && !line.is_empty() && is_cut(line))
}

/// An input whose quotes are followed while it is read.
struct Scanned {
    input: Counted,
    quotes: Quotes,
    delimiter: u8,
    bytes: u64,
    is_ended: bool,
}

impl Scanned {
    fn new(input: Counted, delimiter: u8) -> Self {
        Self { input, quotes: Quotes::new(delimiter), delimiter, bytes: 0, is_ended: false }
    }

    /// The line of the quote that is never closed, where the reader stands at the end.
    fn open_quote(&self, read: u64) -> Option<u64> {
        (self.is_ended && read >= self.bytes).then(|| self.quotes.unclosed()).flatten()
    }
}

impl Read for Scanned {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(into)?;
        self.quotes.feed(&into[..read]);
        self.bytes += read as u64;
        self.is_ended |= read == 0 && !into.is_empty();
        Ok(read)
    }
}

fn next_line(name: &str, input: &mut Counted, line: &mut u64) -> Result<Option<Item>, Error> {
    loop {
        let mut bytes = Vec::new();
        let limit = RECORD_BYTES_MAX as u64 + 2;
        let io = |e| Error::Io { file: name.to_owned(), reason: std::io::Error::to_string(&e) };
        let read = input.by_ref().take(limit).read_until(b'\n', &mut bytes).map_err(io)?;
        if read == 0 {
            return Ok(None);
        }
        *line += 1;
        let ended = bytes.last() == Some(&b'\n');
        let text = bytes.trim_ascii();
        if text.len() > RECORD_BYTES_MAX || (!ended && read as u64 == limit) {
            if !ended {
                skip_line(name, input)?;
            }
            return Ok(Some(Item::Unsendable { line: *line, reason: Unsendable::TooLong }));
        }
        if !text.is_empty() {
            let payload = Bytes::copy_from_slice(text);
            return Ok(Some(Item::Record { line: *line, payload }));
        }
    }
}

fn skip_line(name: &str, input: &mut Counted) -> Result<(), Error> {
    loop {
        let io = |e| Error::Io { file: name.to_owned(), reason: std::io::Error::to_string(&e) };
        let buffer = input.fill_buf().map_err(io)?;
        let (used, done) = match buffer.iter().position(|&b| b == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}

impl Table {
    fn new(name: &str, input: Scanned, definition: Option<&Definition>) -> Result<Self, Error> {
        let definition = definition.ok_or_else(|| Error::Definition { file: name.to_owned() })?;
        let mut builder = csv::ReaderBuilder::new();
        let delimiter = input.delimiter;
        let mut rows = builder.flexible(true).delimiter(delimiter).from_reader(input);
        let header = |reason: Told| Error::Header { file: name.to_owned(), reason };
        let headers: Vec<String> = rows
            .headers()
            .map_err(|e| header(Told::new("publish.csv").with("what", e)))?
            .iter()
            .map(|h| h.trim().trim_start_matches('\u{feff}').to_owned())
            .collect();
        check_quotes(name, &rows)?;
        if let [only] = &headers[..]
            && let Some(separator) = only
                .chars()
                .find(|c| [';', ',', '\t', '|'].contains(c) && *c != char::from(delimiter))
        {
            return Err(Error::Separator { file: name.to_owned(), separator });
        }
        let names: Vec<&str> = headers.iter().map(String::as_str).collect();
        let columns = Columns::bind(definition, &names).map_err(|e| header(e.told()))?;
        Ok(Self { rows, columns, row: csv::StringRecord::new() })
    }

    fn next_item(&mut self, name: &str) -> Result<Option<Item>, Error> {
        match self.rows.read_record(&mut self.row) {
            Ok(false) => Ok(None),
            Ok(true) => {
                check_quotes(name, &self.rows)?;
                let line = self.row.position().map_or(0, csv::Position::line);
                let (found, expected) = (self.row.len(), self.columns.len());
                if found != expected {
                    let reason = Unsendable::Columns { found, expected };
                    return Ok(Some(Item::Unsendable { line, reason }));
                }
                // A cell of another type goes as text: the server refuses the record with pointer
                // and rule of that cell alone, and keeps it in quarantine.
                let payload = self.columns.row_as_told(self.row.iter());
                if payload.len() > RECORD_BYTES_MAX {
                    return Ok(Some(Item::Unsendable { line, reason: Unsendable::TooLong }));
                }
                Ok(Some(Item::Record { line, payload: payload.into() }))
            }
            Err(error) => match error.kind() {
                csv::ErrorKind::Utf8 { pos, .. } => {
                    let line = pos.as_ref().map_or(0, csv::Position::line);
                    Ok(Some(Item::Unsendable { line, reason: Unsendable::NotUtf8 }))
                }
                _ => Err(Error::Io { file: name.to_owned(), reason: error.to_string() }),
            },
        }
    }
}

/// A reader of tables takes everything behind an open quote as one cell.
fn check_quotes(name: &str, rows: &csv::Reader<Scanned>) -> Result<(), Error> {
    match rows.get_ref().open_quote(rows.position().byte()) {
        None => Ok(()),
        Some(line) => Err(Error::open_quote(name, line)),
    }
}

/// Text of a top-level member, where the payload is an object that has it as text or number.
pub(crate) fn member_text(payload: &[u8], name: &str) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(payload).ok()?;
    match object.get(name)? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKS: &str = r#"
id = "works"
version = 1
owner = "x"
category = "B3"
title = { vi = "x", en = "x" }
key = ["ma"]
priority = "normal"
security = "internal"

[[field]]
name = "ma"
type = "Code"
label = { vi = "x", en = "x" }
max_length = 32

[[field]]
name = "ten"
type = "Text"
label = { vi = "x", en = "x" }
max_length = 300
"#;

    fn read(name: &str, text: &[u8], delimiter: u8) -> Result<Vec<u64>, Error> {
        let definition = Definition::parse(WORKS, "works").expect("a definition");
        let layout = Layout { delimiter, ..Layout::default() };
        let input = Box::new(std::io::Cursor::new(text.to_vec()));
        let mut reader = RecordReader::new(name, input, layout, Some(&definition))?;
        let mut lines = Vec::new();
        while let Some(item) = reader.next_item(name)? {
            let (Item::Record { line, .. } | Item::Unsendable { line, .. }) = item;
            lines.push(line);
        }
        Ok(lines)
    }

    #[test]
    fn a_table_is_read_to_its_end_or_refused_with_the_line() {
        assert_eq!(
            read("a.csv", b"ma,ten\nF-1,\"M\"\"\nt\"\nF-2,Hai", b',').expect("fits"),
            [2, 4]
        );
        let open = read("a.csv", "ma,ten\nF-1,\"Một\nF-2,Hai\n".as_bytes(), b',');
        assert!(matches!(open, Err(Error::Syntax { line: 2, .. })), "{open:?}");
        let late = read("a.csv", b"ma,ten\nF-1,a\nF-2,\"", b',');
        assert!(matches!(late, Err(Error::Syntax { line: 3, .. })), "{late:?}");
        let header = read("a.csv", b"ma,\"ten\nF-1,a\n", b',');
        assert!(matches!(header, Err(Error::Syntax { line: 1, .. })), "{header:?}");
        let other = read("a.csv", b"\xef\xbb\xbfma;ten\nF-1;a\n", b',');
        assert!(matches!(other, Err(Error::Separator { separator: ';', .. })), "{other:?}");
        assert_eq!(read("a.csv", b"\xef\xbb\xbfma;ten\nF-1;a\n", b';').expect("fits"), [2]);
    }

    #[test]
    fn a_row_with_another_number_of_cells_is_told_by_their_numbers_and_nothing_else() {
        let definition = Definition::parse(WORKS, "works").expect("a definition");
        let text = "ma,ten\nF-1,a,b\nF-2\nF-3,c\n";
        let input = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        let layout = Layout::default();
        let mut reader =
            RecordReader::new("a.csv", input, layout, Some(&definition)).expect("a table");
        let mut next = || reader.next_item("a.csv").expect("reads").expect("an item");
        for (line, found) in [(2, 3), (3, 1)] {
            let reason = Unsendable::Columns { found, expected: 2 };
            assert_eq!(next(), Item::Unsendable { line, reason });
            let told = reason.text(Lang::En);
            assert!(told.starts_with(&format!("{found} columns, 2 expected")), "{told}");
        }
        assert!(matches!(next(), Item::Record { line: 4, .. }));
    }

    #[test]
    fn what_is_no_text_of_records_is_told_and_what_is_empty_has_none() {
        for name in ["a.csv", "a.json", "a.jsonl", "-"] {
            assert!(read(name, b"", b',').expect("empty").is_empty(), "{name}");
            let wide = read(name, b"\xff\xfem\0a\0", b',');
            assert!(matches!(wide, Err(Error::Utf16 { .. })), "{name}: {wide:?}");
        }
        for (name, text) in [("a.json", "{ \"a\": 1,\n\"b\": 2}"), ("a.jsonl", "{\n\"a\": 1\n}\n")]
        {
            let spread = read(name, text.as_bytes(), b',');
            assert!(matches!(spread, Err(Error::Syntax { line: 1, .. })), "{name}: {spread:?}");
        }
        // A broken record is refused alone, by the server.
        assert_eq!(read("a.jsonl", b"{\"a\":\n{\"a\":1}\n", b',').expect("lines"), [1, 2]);
    }
}
