//! `dtm availability board`: what the probes saw, as pages that any web server hands out. It needs
//! nothing of the cluster, and so stands when all of it is away.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use askama::Template;
use dtm_availability::{Account, Board, Function, Interruption, Line, Now};
use dtm_scenario::{Due, Standing, UnixMs, due};
use dtm_types::text::{Lang, render};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{journal, minute_now};
use crate::args::{BoardArgs, Globals};
use crate::commands::drill;
use crate::{Failure, PAGE_STYLE, Printer};

/// How often pages are written, and asked for by the browser: what a probe sees it writes by minutes.
const EVERY: Duration = Duration::from_secs(60);
/// Interruptions on a page, the newest.
const INTERRUPTIONS_MAX: usize = 50;
/// Days before a drill is due in which it stands on the board.
const REMIND_DAYS: u32 = 30;
const PAGES: [(Lang, &str); 2] = [(Lang::Vi, "index.html"), (Lang::En, "en.html")];

pub(super) async fn run(args: &BoardArgs, globals: &Globals) -> Result<(), Failure> {
    if !args.out.exists() {
        fs::create_dir_all(&args.out).map_err(Failure::file(&args.out))?;
        is_for_all(&args.out, 0o755).map_err(Failure::file(&args.out))?;
    }
    let folder = args.out.display().to_string();
    let mut stop = signal(SignalKind::terminate()).map_err(Failure::file(Path::new("SIGTERM")))?;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_first = true;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.recv() => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        write(args, globals)?;
        if std::mem::take(&mut is_first) {
            let told = json!({ "folder": folder });
            Printer::new(globals).done("cli.availability.board", &[("folder", &folder)], &told);
        }
        if args.once {
            return Ok(());
        }
    }
}

/// Reads what there is, and replaces the pages.
fn write(args: &BoardArgs, globals: &Globals) -> Result<(), Failure> {
    let probes = args.data.iter().map(|folder| journal::read(folder));
    let probes: Vec<Vec<Line>> = probes.collect::<Result<_, _>>()?;
    let now = minute_now();
    let beyond = |_| Failure::usage("cli.availability.period", &[("found", &now.to_string())]);
    let board = Board::of(now, &probes).map_err(beyond)?;
    let drills = |results: &PathBuf| -> Result<Vec<Due>, Failure> {
        let past = drill::register(results, globals)?;
        let names = drill::wanted(&[], &past);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let now = UnixMs(now.saturating_mul(60_000));
        Ok(due(&names, &past, now, args.drill_months, REMIND_DAYS))
    };
    let drills: Option<Vec<Due>> = args.drills.as_ref().map(drills).transpose()?;
    for (lang, file) in PAGES {
        let page = page(&board, drills.as_deref(), args.title.as_deref(), lang);
        replace(&args.out.join(file), page.as_bytes())?;
    }
    let document = json!(Document { board: &board, drills: drills.as_deref() });
    replace(&args.out.join("board.json"), format!("{document:#}\n").as_bytes())
}

/// For programs.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    board: &'a Board,
    #[serde(skip_serializing_if = "Option::is_none")]
    drills: Option<&'a [Due]>,
}

/// What stands here is for everybody; the process otherwise makes files for its user alone.
fn is_for_all(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// A reader sees the old file or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let next = path.with_extension("next");
    let write = || {
        let mut file = File::create(&next)?;
        file.write_all(bytes)?;
        is_for_all(&next, 0o644)?;
        file.sync_all()?;
        fs::rename(&next, path)
    };
    write().map_err(Failure::file(path))
}

#[derive(Template)]
#[template(path = "board.html")]
struct Page<'a> {
    lang: &'static str,
    other_lang: &'static str,
    other_file: &'static str,
    style: &'static str,
    refresh_seconds: u64,
    title: String,
    board: &'a Board,
    /// Those that are due, or soon; None where nobody asked.
    drills: Option<Vec<DrillRow>>,
    words: Words,
}

/// Texts of the page by key.
struct Words(Lang);

impl Words {
    fn of(&self, key: &str) -> String {
        render(self.0, &format!("board.{key}"), &[])
    }
}

struct DrillRow {
    name: String,
    passed: String,
    due: String,
    state: String,
    is_pressing: bool,
}

impl DrillRow {
    fn of(due: &Due, lang: Lang) -> Option<Self> {
        let (key, is_pressing) = match due.standing {
            Standing::Never => ("cli.drill.never", true),
            Standing::Overdue => ("cli.drill.overdue", true),
            Standing::Soon => ("cli.drill.soon", false),
            Standing::Fine => return None,
        };
        let day = |at: Option<UnixMs>| at.map(UnixMs::day).unwrap_or_default();
        Some(Self {
            name: due.name.clone(),
            passed: day(due.passed),
            due: day(due.due),
            state: render(lang, key, &[]),
            is_pressing,
        })
    }
}

fn page(board: &Board, drills: Option<&[Due]>, title: Option<&str>, lang: Lang) -> String {
    let words = Words(lang);
    let (lang_code, other_lang, other_file) = match lang {
        Lang::Vi => ("vi", "en", PAGES[1].1),
        Lang::En => ("en", "vi", PAGES[0].1),
    };
    let page = Page {
        lang: lang_code,
        other_lang,
        other_file,
        style: PAGE_STYLE,
        refresh_seconds: EVERY.as_secs(),
        title: title.map_or_else(|| words.of("title"), str::to_owned),
        board,
        drills: drills.map(|all| all.iter().filter_map(|due| DrillRow::of(due, lang)).collect()),
        words,
    };
    page.render().expect("a page is written to memory")
}

impl Page<'_> {
    fn at(&self, key: &str, value: &str) -> String {
        render(self.words.0, &format!("board.{key}"), &[("at", value)])
    }

    fn now(&self) -> String {
        self.words.of(match self.board.now {
            Now::Up => "up",
            Now::Partial => "is_partial",
            Now::Interrupted => "is_interrupted",
            Now::Unknown => "unknown",
        })
    }

    fn class(&self) -> &'static str {
        if self.board.now == Now::Up { "good" } else { "bad" }
    }

    fn function(&self, function: &Function) -> String {
        self.words.of(function.name())
    }

    fn accounts(&self) -> [&Account; 3] {
        [&self.board.day, &self.board.month, &self.board.year]
    }

    fn has_more(&self) -> bool {
        self.board.year.interruptions.len() > INTERRUPTIONS_MAX
    }

    /// The newest first.
    fn interruptions(&self) -> impl Iterator<Item = &Interruption> {
        self.board.year.interruptions.iter().rev().take(INTERRUPTIONS_MAX)
    }

    /// With a comma where Vietnamese has one.
    fn number(&self, number: &f64, digits: usize) -> String {
        let text = format!("{number:.digits$}");
        if self.words.0 == Lang::Vi { text.replace('.', ",") } else { text }
    }
}

#[cfg(test)]
mod tests {
    use dtm_availability::{Minute, Period};

    use super::*;

    /// A year up to the end of November with known outages: the first 90 minutes of each month, and
    /// the last three.
    fn outages() -> (i64, Vec<Line>) {
        let month = |n: u8| Period::parse(&format!("2026-{n:02}")).expect("a month").from;
        let (from, now) = (month(1), month(12));
        let is_down = |minute: i64| {
            (1..12).any(|n| (month(n)..month(n) + 90).contains(&minute)) || minute >= now - 3
        };
        let seen = |minute: i64| {
            let mut seen = Minute { minute, ..Minute::default() };
            let why = if is_down(minute) { Err("refused".to_owned()) } else { Ok(()) };
            seen.round(Function::Reception, vec![("n1.example.vn:7443".to_owned(), why)]);
            seen.round(Function::EntryPage, vec![("n1.example.vn:8443".to_owned(), Ok(()))]);
            Line::Seen(seen)
        };
        (now, (from..now).map(seen).collect())
    }

    // covers: AV-1
    #[test]
    fn a_simulated_year_stands_on_the_board_to_the_minute() {
        let (now, lines) = outages();
        // The last minute of November is the present one's predecessor.
        let board = Board::of(now - 1, &[lines]).expect("a board");
        assert_eq!((board.now, board.year.interrupted), (Now::Interrupted, 11 * 90 + 2));
        let past = f64::from(334 * 24 * 60 - 1);
        let exact = (past - 992.0) * 100.0 / past;
        assert!((board.year.availability_percent - exact).abs() < 1e-9);
        let english = page(&board, None, None, Lang::En);
        for part in [
            "<dd>5256.0</dd>".to_owned(),
            "<dd>992</dd>".to_owned(),
            "<dd>4264.0</dd>".to_owned(),
            format!("<th scope=\"row\">2026</th><td class=\"n\">{exact:.4} %</td>"),
            "<th scope=\"row\">2026-11-30 23:57</th><td class=\"n\">2</td>".to_owned(),
        ] {
            assert!(english.contains(&part), "{part} in {english}");
        }
        let vietnamese = page(&board, None, None, Lang::Vi);
        assert!(vietnamese.contains(&format!("{exact:.4} %").replace('.', ",")), "{vietnamese}");
        for page in [english, vietnamese] {
            assert!(!page.contains("board."), "a text is missing: {page}");
            assert!(!page.contains("id=\"drills\""), "nobody asked for drills");
        }
    }

    #[test]
    fn what_addresses_say_is_text_and_no_markup() {
        let day = Period::parse("2026-11-22").expect("a day");
        let mut seen = Minute { minute: day.from, ..Minute::default() };
        seen.round(Function::EntryPage, vec![("n1".to_owned(), Err("<b>&".to_owned()))]);
        let board = Board::of(day.from + 1, &[vec![Line::Seen(seen)]]).expect("a board");
        let page = page(&board, None, Some("<i>"), Lang::Vi);
        assert!(!page.contains("<b>") && !page.contains("<i>"), "{page}");
    }

    #[test]
    fn drills_that_are_due_stand_on_the_board() {
        let due = |name: &str, standing| Due {
            name: name.to_owned(),
            runs: 0,
            last: None,
            passed: None,
            due: None,
            standing,
        };
        let (now, _) = outages();
        let board = Board::of(now, &[Vec::new()]).expect("a board");
        let drills = [due("site-loss", Standing::Overdue), due("pause", Standing::Fine)];
        let all = page(&board, Some(&drills), None, Lang::En);
        assert!(all.contains("<th scope=\"row\">site-loss</th>"), "{all}");
        assert!(!all.contains("pause"), "{all}");
        let fine = page(&board, Some(&drills[1..]), None, Lang::En);
        assert!(fine.contains("<p class=\"good\">"), "{fine}");
        assert!(fine.contains("class=\"bad\" role=\"status\""), "nobody looks: {fine}");
    }

    #[test]
    fn pages_are_written_and_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index.html");
        for text in ["one", "two"] {
            replace(&path, text.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
            let mode = fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o644, "a web server reads it");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
