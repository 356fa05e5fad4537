//! Results: a table for people, JSON for programs.

use std::io::{IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Table};
use dtm_types::text::{Lang, render};
use serde_json::Value;

use crate::Failure;
use crate::args::{Globals, Output};

/// Prints results as the user asked.
pub struct Printer<'a> {
    globals: &'a Globals,
}

impl<'a> Printer<'a> {
    /// For these options.
    pub fn new(globals: &'a Globals) -> Self {
        Self { globals }
    }

    /// A text of the catalogue.
    pub fn text(&self, key: &str, values: &[(&str, &str)]) -> String {
        render(self.globals.lang, key, values)
    }

    /// Whether the user reads Vietnamese.
    pub fn is_vi(&self) -> bool {
        self.globals.lang == Lang::Vi
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.globals.output == Output::Json
    }

    /// A table; `columns` are `cli.col.*` of the catalogue. Under JSON: `json` instead.
    pub fn table(&self, columns: &[&str], rows: Vec<Vec<String>>, json: &Value) {
        if self.is_json() {
            return self.json(json);
        }
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(
            columns
                .iter()
                .map(|c| Cell::new(self.text(&format!("cli.col.{c}"), &[]).to_uppercase())),
        );
        for row in rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        line(&table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n"));
    }

    /// One document.
    pub fn json(&self, value: &Value) {
        line(&serde_json::to_string_pretty(value).expect("a value becomes text"));
    }

    /// One result on one line: streams.
    pub fn json_line(&self, value: &Value) {
        line(&value.to_string());
    }

    /// A line for people; nothing under JSON.
    pub fn say(&self, key: &str, values: &[(&str, &str)]) {
        if !self.is_json() {
            line(&self.text(key, values));
        }
    }

    /// The result of an action: a sentence, or the document.
    pub fn done(&self, key: &str, values: &[(&str, &str)], json: &Value) {
        if self.is_json() { self.json(json) } else { self.say(key, values) }
    }

    /// A line as it is: results that are text already.
    pub fn raw(&self, text: &str) {
        line(text);
    }
}

/// A reader that went away (`| head`) ends the command quietly, as other tools do.
fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Asks before something is destroyed. `--yes` answers; without a terminal nobody can.
///
/// # Errors
/// [`Failure::Usage`] where the answer is no or nobody can be asked.
pub fn confirm(globals: &Globals, key: &str, values: &[(&str, &str)]) -> Result<(), Failure> {
    if globals.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("cli.needs_yes", &[]));
    }
    let question = render(globals.lang, key, values);
    let choice = render(globals.lang, "cli.yes_no", &[]);
    eprint!("{question} {choice} ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    let agreed = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes" | "c" | "có");
    if read.is_ok() && agreed { Ok(()) } else { Err(Failure::usage("cli.not_done", &[])) }
}
