//! Tables: a row under a header becomes the JSON of one record.
//!
//! Column names are paths: `a`, `a.b`, `list[0].c`. The types of the definition decide what a cell
//! becomes, so that the text "0012" stays text and a number becomes a number. An object or a whole
//! list may stand in one cell as JSON. An empty cell is no value: null where the field is
//! compulsory and nullable, else absent. The row is not canonical yet; the schema check follows.

use crate::Error;
use crate::chars::{excerpt, write_json_string};
use crate::definition::{Definition, Field, TypeSpec};
use crate::json::{Value, read};
use crate::violation::FOUND_CHARS_MAX;
use dtm_types::text::Told;

/// Highest index in a column name plus one.
const LIST_COLUMNS_MAX: usize = 1000;

/// The columns of a table, bound to a data set.
#[derive(Debug)]
pub struct Columns {
    root: Vec<(String, Node)>,
    names: Vec<String>,
}

/// A cell that is not of its column's type, or a row of the wrong width.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column} ({header}): expected {expected}, found {found}")]
pub struct CellError {
    /// Column, from 1.
    pub column: usize,
    /// Its header.
    pub header: String,
    /// What would have been right.
    pub expected: String,
    /// Excerpt of what was there.
    pub found: String,
}

/// What is written for a value, as a tree of columns.
#[derive(Debug)]
enum Node {
    Cell { column: usize, cell: Cell, null: bool },
    Struct { members: Vec<(String, Node)>, null: bool },
    List { items: Vec<Option<Node>>, required: bool, null: bool },
}

/// How a cell is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Text,
    Integer,
    Bool,
    Object,
    List,
}

impl Columns {
    /// Binds a header to a data set.
    ///
    /// # Errors
    /// [`Error::Header`] for a column that is no field, stands twice, or skips list indexes, and
    /// when a compulsory field that cannot be null has no column.
    pub fn bind(definition: &Definition, headers: &[&str]) -> Result<Columns, Error> {
        let mut root = Vec::new();
        for (at, header) in headers.iter().enumerate() {
            let header = header.trim().trim_start_matches('\u{feff}');
            let error = |problem: Told| Error::Header {
                column: at + 1,
                header: header.to_owned(),
                problem,
            };
            let path = segments(header).map_err(&error)?;
            let binder = Binder { definition, column: at };
            binder.insert(&mut root, &definition.fields, &path).map_err(&error)?;
        }
        for field in definition.fields.iter().filter(|f| f.required && !f.nullable) {
            if root.iter().all(|(name, _): &(String, Node)| *name != field.name) {
                return Err(Error::Header {
                    column: 0,
                    header: field.name.clone(),
                    problem: Told::new("columns.missing"),
                });
            }
        }
        for (name, node) in &root {
            complete(node).map_err(|problem| Error::Header {
                column: 0,
                header: name.clone(),
                problem,
            })?;
        }
        let names = headers.iter().map(|h| h.trim().to_owned()).collect();
        Ok(Columns { root, names })
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True when there is no column.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The JSON of one row.
    ///
    /// # Errors
    /// [`CellError`] for the first cell that is not of its type, and for a row that is too short
    /// or too long.
    pub fn row<'a>(&self, cells: impl Iterator<Item = &'a str>) -> Result<Vec<u8>, CellError> {
        let cells: Vec<&str> = cells.take(self.names.len() + 1).collect();
        if cells.len() != self.names.len() {
            return Err(CellError {
                column: cells.len(),
                header: self.names.last().cloned().unwrap_or_default(),
                expected: format!("{} cells", self.names.len()),
                found: if cells.len() > self.names.len() {
                    "more".into()
                } else {
                    cells.len().to_string()
                },
            });
        }
        let mut writer = RowWriter::new(self, &cells, false);
        writer.members(&self.root)?;
        Ok(writer.out)
    }

    /// The JSON of one row, in which a cell that is not of its column's type stands as text: who
    /// validates it finds that cell wrong and no other. Cells that are not there are empty, those
    /// beyond the columns are left out.
    pub fn row_as_told<'a>(&self, cells: impl Iterator<Item = &'a str>) -> Vec<u8> {
        let width = self.names.len();
        let cells: Vec<&str> = cells.chain(std::iter::repeat("")).take(width).collect();
        let mut writer = RowWriter::new(self, &cells, true);
        writer.members(&self.root).expect("no cell fails where misfits are told as text");
        writer.out
    }
}

/// One step of a column name.
#[derive(Debug, PartialEq, Eq)]
enum Segment<'a> {
    Name(&'a str),
    Index(usize),
}

fn segments(header: &str) -> Result<Vec<Segment<'_>>, Told> {
    let mut path = Vec::new();
    for part in header.split('.') {
        let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        if name.is_empty() {
            return Err(Told::new("columns.path"));
        }
        path.push(Segment::Name(name));
        while !rest.is_empty() {
            let index = rest.strip_prefix('[').and_then(|r| r.split_once(']'));
            let (index, tail) = index.ok_or_else(|| Told::new("columns.bracket"))?;
            let index: usize = index.parse().map_err(|_| Told::new("columns.index"))?;
            if index >= LIST_COLUMNS_MAX {
                return Err(Told::new("columns.index_max").with("max", LIST_COLUMNS_MAX));
            }
            path.push(Segment::Index(index));
            rest = tail;
        }
    }
    Ok(path)
}

struct Binder<'a> {
    definition: &'a Definition,
    column: usize,
}

impl Binder<'_> {
    fn insert(
        &self,
        into: &mut Vec<(String, Node)>,
        fields: &[Field],
        path: &[Segment<'_>],
    ) -> Result<(), Told> {
        let Some((Segment::Name(name), rest)) = path.split_first() else {
            return Err(Told::new("columns.path"));
        };
        let Some(field) = fields.iter().find(|f| f.name == *name) else {
            let known: Vec<_> = fields.iter().take(40).map(|f| f.name.as_str()).collect();
            return Err(Told::new("columns.no_field").with("known", known.join(", ")));
        };
        let null = field.required && field.nullable;
        match into.iter().position(|(n, _)| n == name) {
            Some(at) => self.extend(&mut into[at].1, &field.spec, rest),
            None => {
                let node = self.node(&field.spec, rest, null, field.required)?;
                into.push(((*name).to_owned(), node));
                Ok(())
            }
        }
    }

    fn node(
        &self,
        spec: &TypeSpec,
        path: &[Segment<'_>],
        null: bool,
        required: bool,
    ) -> Result<Node, Told> {
        if path.is_empty() {
            return Ok(Node::Cell { column: self.column, cell: cell(spec), null });
        }
        let mut node = match spec {
            TypeSpec::Named(_) => Node::Struct { members: Vec::new(), null },
            TypeSpec::List(_) => {
                Node::List { items: Vec::new(), required: required && !null, null }
            }
            other => return Err(Told::new("columns.no_parts").with("type", other)),
        };
        self.extend(&mut node, spec, path)?;
        Ok(node)
    }

    fn extend(&self, node: &mut Node, spec: &TypeSpec, path: &[Segment<'_>]) -> Result<(), Told> {
        match (node, spec, path.first()) {
            (Node::Struct { members, .. }, TypeSpec::Named(name), Some(Segment::Name(_))) => {
                let named =
                    self.definition.types.get(name).ok_or_else(|| Told::new("columns.no_type"))?;
                self.insert(members, &named.fields, path)
            }
            (Node::List { items, .. }, TypeSpec::List(item), Some(Segment::Index(index))) => {
                if items.len() <= *index {
                    items.resize_with(index + 1, || None);
                }
                match &mut items[*index] {
                    Some(node) => self.extend(node, item, &path[1..]),
                    empty => {
                        *empty = Some(self.node(item, &path[1..], false, false)?);
                        Ok(())
                    }
                }
            }
            (Node::Cell { .. }, ..) | (_, _, None) => Err(Told::new("columns.twice")),
            _ => Err(Told::new("columns.path")),
        }
    }
}

fn cell(spec: &TypeSpec) -> Cell {
    match spec {
        TypeSpec::Bool => Cell::Bool,
        TypeSpec::Integer | TypeSpec::MoneyVnd => Cell::Integer,
        TypeSpec::Object | TypeSpec::Named(_) => Cell::Object,
        TypeSpec::List(_) => Cell::List,
        _ => Cell::Text,
    }
}

/// Lists must have a column for every index up to their highest.
fn complete(node: &Node) -> Result<(), Told> {
    match node {
        Node::Cell { .. } => Ok(()),
        Node::Struct { members, .. } => members.iter().try_for_each(|(_, n)| complete(n)),
        Node::List { items, .. } => items.iter().enumerate().try_for_each(|(at, item)| {
            let none = || Told::new("columns.index_missing").with("index", at);
            complete(item.as_ref().ok_or_else(none)?)
        }),
    }
}

struct RowWriter<'a> {
    columns: &'a Columns,
    cells: &'a [&'a str],
    /// Whether a cell of another type is written as text.
    tells_misfits: bool,
    out: Vec<u8>,
}

impl<'a> RowWriter<'a> {
    fn new(columns: &'a Columns, cells: &'a [&'a str], tells_misfits: bool) -> Self {
        Self { columns, cells, tells_misfits, out: Vec::with_capacity(256) }
    }

    /// Writes an object; true when it has a member with a value.
    fn members(&mut self, members: &[(String, Node)]) -> Result<bool, CellError> {
        self.out.push(b'{');
        let from = self.out.len();
        let mut any = false;
        for (name, node) in members {
            let mark = self.out.len();
            if mark > from {
                self.out.push(b',');
            }
            write_json_string(&mut self.out, name);
            self.out.push(b':');
            match self.node(node)? {
                Wrote::Nothing => self.out.truncate(mark),
                Wrote::Null => {}
                Wrote::Value => any = true,
            }
        }
        self.out.push(b'}');
        Ok(any)
    }

    fn node(&mut self, node: &Node) -> Result<Wrote, CellError> {
        let start = self.out.len();
        let (wrote, null) = match node {
            Node::Cell { column, cell, null } => (self.cell(*column, *cell)?, *null),
            Node::Struct { members, null } => (self.members(members)?, *null),
            Node::List { items, required, null } => (self.list(items)? || *required, *null),
        };
        if wrote {
            return Ok(Wrote::Value);
        }
        self.out.truncate(start);
        if null {
            self.out.extend_from_slice(b"null");
            return Ok(Wrote::Null);
        }
        Ok(Wrote::Nothing)
    }

    fn list(&mut self, items: &[Option<Node>]) -> Result<bool, CellError> {
        self.out.push(b'[');
        let from = self.out.len();
        for item in items.iter().flatten() {
            let mark = self.out.len();
            if mark > from {
                self.out.push(b',');
            }
            if !matches!(self.node(item)?, Wrote::Value) {
                self.out.truncate(mark);
            }
        }
        let any = self.out.len() > from;
        self.out.push(b']');
        Ok(any)
    }

    fn cell(&mut self, column: usize, cell: Cell) -> Result<bool, CellError> {
        let text = self.cells[column];
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(false);
        }
        match cell {
            Cell::Text => write_json_string(&mut self.out, text),
            Cell::Integer if is_number(trimmed) => self.out.extend_from_slice(trimmed.as_bytes()),
            Cell::Integer => self.misfit(column, "whole number")?,
            Cell::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "true" | "1" => self.out.extend_from_slice(b"true"),
                "false" | "0" => self.out.extend_from_slice(b"false"),
                _ => self.misfit(column, "true or false")?,
            },
            Cell::Object | Cell::List => {
                let fits = read(trimmed).is_ok_and(|item| match item.value {
                    Value::Object(_) => cell == Cell::Object,
                    Value::Array(_) => cell == Cell::List,
                    _ => false,
                });
                if fits {
                    self.out.extend_from_slice(trimmed.as_bytes());
                } else {
                    let expected = if cell == Cell::Object { "JSON object" } else { "JSON list" };
                    self.misfit(column, expected)?;
                }
            }
        }
        Ok(true)
    }

    fn misfit(&mut self, column: usize, expected: &str) -> Result<(), CellError> {
        if self.tells_misfits {
            write_json_string(&mut self.out, self.cells[column]);
            return Ok(());
        }
        Err(CellError {
            column: column + 1,
            header: self.columns.names[column].clone(),
            expected: expected.to_owned(),
            found: excerpt(self.cells[column].as_bytes(), FOUND_CHARS_MAX),
        })
    }
}

enum Wrote {
    Nothing,
    Null,
    Value,
}

/// A JSON integer; how large it may be is the schema's business.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = crate::lexical::is_digits(digits.as_bytes());
    plain && (digits.len() == 1 || !digits.starts_with('0'))
}

#[cfg(test)]
#[path = "columns_test.rs"]
mod tests;
