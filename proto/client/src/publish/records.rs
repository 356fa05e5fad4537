//! Records of a file, one after the other, in bounded memory.

use super::input::{Error, Format};
use super::json_array::JsonArray;
use bytes::Bytes;
use dtm_catalog::{Columns, Definition};
use std::io::{BufRead, BufReader, Read};

/// Longest record; the same whatever the server's limit, so that numbers never depend on it.
pub(crate) const RECORD_BYTES_MAX: usize = 8 << 20;

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
        /// Key of the text that says why.
        reason: &'static str,
    },
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

/// A buffered reader that counts.
pub(crate) type Counted = BufReader<Box<dyn Read + Send>>;

struct Table {
    rows: csv::Reader<Counted>,
    columns: Columns,
    headers: Vec<String>,
    row: csv::StringRecord,
}

impl std::fmt::Debug for RecordReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordReader")
    }
}

impl RecordReader {
    /// Reads `input` as what `format` says; `name` is its file name, for the guess and for errors.
    ///
    /// # Errors
    /// [`Error::Definition`] where a table has no definition, [`Error::Header`] where its header
    /// does not fit, [`Error::Io`].
    pub fn new(
        name: &str,
        input: Box<dyn Read + Send>,
        format: Format,
        definition: Option<&Definition>,
    ) -> Result<Self, Error> {
        let mut input: Counted = BufReader::with_capacity(256 << 10, input);
        let io = |e| Error::Io { file: name.to_owned(), reason: std::io::Error::to_string(&e) };
        let start = input.fill_buf().map_err(io)?;
        let format = format.guess(name, start);
        if start.starts_with(b"\xef\xbb\xbf") && format != Format::Csv {
            input.consume(3);
        }
        let inner = match format {
            Format::JsonArray => Inner::Array(Box::new(JsonArray::new(input))),
            Format::Csv => Inner::Table(Box::new(Table::new(name, input, definition)?)),
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
            return Ok(Some(Item::Unsendable { line: *line, reason: "publish.too_long" }));
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
    fn new(name: &str, input: Counted, definition: Option<&Definition>) -> Result<Self, Error> {
        let definition = definition.ok_or_else(|| Error::Definition { file: name.to_owned() })?;
        let mut rows = csv::ReaderBuilder::new().flexible(true).from_reader(input);
        let header = |reason: String| Error::Header { file: name.to_owned(), reason };
        let headers: Vec<String> = rows
            .headers()
            .map_err(|e| header(e.to_string()))?
            .iter()
            .map(|h| h.trim().trim_start_matches('\u{feff}').to_owned())
            .collect();
        let names: Vec<&str> = headers.iter().map(String::as_str).collect();
        let columns = Columns::bind(definition, &names).map_err(|e| header(e.to_string()))?;
        Ok(Self { rows, columns, headers, row: csv::StringRecord::new() })
    }

    fn next_item(&mut self, name: &str) -> Result<Option<Item>, Error> {
        match self.rows.read_record(&mut self.row) {
            Ok(false) => Ok(None),
            Ok(true) => {
                let line = self.row.position().map_or(0, csv::Position::line);
                let payload = match self.columns.row(self.row.iter()) {
                    Ok(json) => json,
                    // The server refuses it with pointer and rule, and keeps it in quarantine.
                    Err(_) => self.as_text(),
                };
                if payload.len() > RECORD_BYTES_MAX {
                    return Ok(Some(Item::Unsendable { line, reason: "publish.too_long" }));
                }
                Ok(Some(Item::Record { line, payload: payload.into() }))
            }
            Err(error) => match error.kind() {
                csv::ErrorKind::Utf8 { pos, .. } => {
                    let line = pos.as_ref().map_or(0, csv::Position::line);
                    Ok(Some(Item::Unsendable { line, reason: "publish.not_utf8" }))
                }
                _ => Err(Error::Io { file: name.to_owned(), reason: error.to_string() }),
            },
        }
    }

    /// The row as an object of texts.
    fn as_text(&self) -> Vec<u8> {
        let mut object = serde_json::Map::new();
        for (at, cell) in self.row.iter().enumerate() {
            let header = self.headers.get(at).cloned().unwrap_or(format!("column {}", at + 1));
            object.insert(header, cell.into());
        }
        serde_json::Value::Object(object).to_string().into_bytes()
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
