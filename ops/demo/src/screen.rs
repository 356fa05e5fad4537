//! Standard output: a table that is drawn over itself on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};

use parking_lot::Mutex;
use terminal_size::{Height, Width};

/// Size where the terminal does not say.
const COLUMNS: usize = 80;
const ROWS: usize = 24;

/// The only writer to standard output.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Whether somebody watches.
    pub(crate) is_terminal: bool,
    /// Lines of the table that stand at the end of the output.
    drawn: Mutex<usize>,
}

impl Screen {
    /// Looks what standard output is.
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stdout().is_terminal(), drawn: Mutex::new(0) }
    }

    /// Columns and rows.
    pub(crate) fn size() -> (usize, usize) {
        match terminal_size::terminal_size() {
            Some((Width(columns), Height(rows))) => (columns.into(), rows.into()),
            None => (COLUMNS, ROWS),
        }
    }

    /// A line (or more) that stays. The table, if there is one, comes again below it.
    pub(crate) fn say(&self, text: &str) {
        let mut drawn = self.drawn.lock();
        let mut out = erase(*drawn);
        *drawn = 0;
        out.push_str(text);
        out.push('\n');
        write(&out);
    }

    /// Puts the table in the place of the last one; nothing where nobody watches.
    pub(crate) fn draw(&self, lines: &[String]) {
        if !self.is_terminal {
            return;
        }
        let mut drawn = self.drawn.lock();
        let mut out = erase(*drawn);
        for line in lines {
            out.push_str(line);
            out.push('\n');
        }
        *drawn = lines.len();
        write(&out);
    }

    /// Leaves the table where it stands.
    pub(crate) fn keep(&self) {
        *self.drawn.lock() = 0;
    }
}

/// Up to the first line of the table, and away with it.
fn erase(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r\x1b[J") }
}

/// A reader that went away does not end the demo: its nodes want to be stopped.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
