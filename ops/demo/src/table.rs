//! The live table: a row a source.

use std::time::Duration;

use crate::say::Say;
use crate::sending::Reading;

/// Widths of the columns after the title.
const WIDTHS: [usize; 6] = [9, 9, 7, 8, 8, 5];
/// Narrowest and widest title.
const TITLE: (usize, usize) = (12, 30);
/// Lines that are no source: head of the page, head of the table, what is left out, the total, the
/// line of the cursor.
const OTHER_LINES: usize = 5;

/// What is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Line above the table.
    pub(crate) head: String,
    /// Title and counters of each source.
    pub(crate) rows: Vec<(String, Reading)>,
    /// Of all of them.
    pub(crate) total: Reading,
}

impl Page {
    /// The lines for a screen of this size: what does not fit is counted, never wrapped.
    pub(crate) fn lines(&self, say: Say, (columns, rows): (usize, usize)) -> Vec<String> {
        let rest: usize = WIDTHS.iter().map(|width| width + 1).sum();
        let title_width = columns.saturating_sub(rest + 1).clamp(TITLE.0, TITLE.1);
        let cells = |title: &str, cells: [String; 6]| {
            let mut line = fit(title, title_width);
            for (cell, width) in cells.iter().zip(WIDTHS) {
                line.push(' ');
                line.push_str(&right(cell, width));
            }
            fit(&line, columns.saturating_sub(1)).trim_end().to_owned()
        };
        let reading = |title: &str, r: &Reading| {
            let numbers = [r.sent, r.acked, r.refused].map(|n| say.number(n));
            let [sent, acked, refused] = numbers;
            let (p50, p99) = (say.millis(r.p50_us), say.millis(r.p99_us));
            cells(title, [sent, acked, refused, p50, p99, r.node.clone()])
        };
        let names = ["sent", "acked", "refused", "p50", "p99", "node"];
        let head = names.map(|name| say.text(&format!("col.{name}"), &[]));
        let mut lines = vec![
            fit(&self.head, columns.saturating_sub(1)).trim_end().to_owned(),
            cells(&say.text("col.source", &[]), head),
        ];
        let room = rows.saturating_sub(OTHER_LINES).max(1);
        let shown = if self.rows.len() > room { room } else { self.rows.len() };
        lines.extend(self.rows[..shown].iter().map(|(title, r)| reading(title, r)));
        if shown < self.rows.len() {
            let count = (self.rows.len() - shown).to_string();
            lines.push(
                fit(&say.text("more_rows", &[("count", &count)]), columns.saturating_sub(1))
                    .trim_end()
                    .to_owned(),
            );
        }
        lines.push(reading(&say.text("all_sources", &[]), &self.total));
        lines
    }

    /// One line for where nobody watches.
    pub(crate) fn summary(&self, say: Say, elapsed: Duration) -> String {
        let r = &self.total;
        let [sent, acked, refused] = [r.sent, r.acked, r.refused].map(|n| say.number(n));
        let (p50, p99) = (say.millis(r.p50_us), say.millis(r.p99_us));
        let seconds = elapsed.as_secs().to_string();
        say.text(
            "progress",
            &[
                ("seconds", &seconds),
                ("sent", &sent),
                ("acked", &acked),
                ("refused", &refused),
                ("p50", &p50),
                ("p99", &p99),
                ("nodes", &r.node),
            ],
        )
    }
}

/// Exactly this many characters.
fn fit(text: &str, width: usize) -> String {
    let cut = cut(text, width);
    let length = cut.chars().count();
    format!("{cut}{}", " ".repeat(width - length))
}

/// At most this many characters, the last one a sign that something is left out.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

fn right(text: &str, width: usize) -> String {
    let length = text.chars().count();
    format!("{}{text}", " ".repeat(width.saturating_sub(length)))
}

#[cfg(test)]
mod tests {
    use dtm_types::text::Lang;

    use super::*;

    fn page() -> Page {
        let reading = Reading {
            sent: 12_345,
            acked: 12_300,
            refused: 7,
            p50_us: 4_200,
            p99_us: 1_900_000,
            node: "n2".into(),
        };
        let rows =
            (0..40).map(|at| (format!("Thành phố số {at} có tên rất dài ở đây"), reading.clone()));
        Page { head: "x".repeat(300), rows: rows.collect(), total: reading }
    }

    #[test]
    fn no_line_is_wider_or_taller_than_the_screen() {
        for size in [(80, 24), (40, 10), (200, 100), (10, 3)] {
            let lines = page().lines(Say(Lang::Vi), size);
            assert!(lines.iter().all(|line| line.chars().count() < size.0), "{size:?} {lines:#?}");
            assert!(lines.len() <= size.1.max(6), "{size:?}: {}", lines.len());
        }
    }

    #[test]
    fn what_is_left_out_shows() {
        assert_eq!((&*cut("năm tháng", 9), &*cut("năm tháng", 5)), ("năm tháng", "năm …"));
        assert_eq!((&*fit("a", 3), &*cut("ab", 0)), ("a  ", ""));
    }

    #[test]
    fn a_row_shows_its_counters() {
        let lines = page().lines(Say(Lang::En), (120, 60));
        assert_eq!(lines.len(), 43);
        for cell in ["12,345", "12,300", " 7 ", "4.2", "1,900", "n2"] {
            assert!(lines[2].contains(cell), "{cell}: {}", lines[2]);
        }
        let line = page().summary(Say(Lang::En), Duration::from_secs(9));
        assert!(line.contains("12,345") && line.contains('9'), "{line}");
    }
}
