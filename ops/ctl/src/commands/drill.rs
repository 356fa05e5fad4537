//! `dtm drill list|show|check|due`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use dtm_scenario::{BOOK, Drill, Due, Past, Report, Standing, UnixMs, due};
use dtm_types::text::render;
use jiff::Timestamp;
use serde_json::json;

use crate::args::{DrillCommand, Globals};
use crate::{Exit, Failure, Printer};

pub(crate) fn run(command: &DrillCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    match command {
        DrillCommand::List => {
            list(&printer, globals);
            Ok(())
        }
        DrillCommand::Show { drill, toml } => show(&printer, globals, drill, *toml),
        DrillCommand::Check { files } => {
            let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
            check(&printer, globals, &files)
        }
        DrillCommand::Due { results, months, remind_days, drills } => {
            let past = register(results, globals)?;
            let now = UnixMs(Timestamp::now().as_millisecond());
            let names = wanted(drills, &past);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            told_due(&printer, results, &due(&names, &past, now, *months, *remind_days))
        }
    }
}

/// The drills of the book, which its own test reads.
fn book() -> impl Iterator<Item = Drill> {
    BOOK.iter().filter_map(|entry| Drill::parse(entry.text).ok())
}

fn list(printer: &Printer<'_>, globals: &Globals) {
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for drill in book() {
        let targets = drill.targets_told(globals.lang).into_iter();
        let targets: Vec<String> =
            targets.map(|[target, _, wanted]| format!("{target} {wanted}")).collect();
        rows.push(vec![
            drill.name.clone(),
            drill.title.of(globals.lang).to_owned(),
            targets.join(", "),
            drill.steps.len().to_string(),
        ]);
        documents.push(json!({
            "name": drill.name, "title": drill.title, "targets": drill.targets,
            "cluster": drill.cluster, "steps": drill.steps.len(),
            "destructive": drill.is_destructive(),
        }));
    }
    printer.table(&["name", "title", "targets", "steps"], rows, &json!(documents));
}

/// The text of a drill: of the book, else a file.
fn text_of(named: &str) -> Result<String, Failure> {
    if let Some(entry) = BOOK.iter().find(|entry| entry.name == named) {
        return Ok(entry.text.to_owned());
    }
    if !named.contains('/') && !named.ends_with(".toml") {
        let known: Vec<&str> = BOOK.iter().map(|entry| entry.name).collect();
        let known = known.join(", ");
        return Err(Failure::usage("cli.drill.unknown", &[("name", named), ("known", &known)]));
    }
    let path = Path::new(named);
    fs::read_to_string(path).map_err(Failure::file(path))
}

fn show(printer: &Printer<'_>, globals: &Globals, named: &str, toml: bool) -> Result<(), Failure> {
    let text = text_of(named)?;
    if toml {
        printer.raw(text.trim_end());
        return Ok(());
    }
    let drill = match Drill::parse(&text) {
        Ok(drill) => drill,
        Err(_) => return check(printer, globals, &[Path::new(named)]),
    };
    let (targets, steps) = (drill.targets_told(globals.lang), drill.steps_told(globals.lang));
    if printer.is_json() {
        printer.json(&json!({
            "name": drill.name, "title": drill.title, "targets": drill.targets, "steps": steps,
            "cluster": drill.cluster, "longest_seconds": drill.longest().as_secs(),
        }));
        return Ok(());
    }
    printer.raw(&format!("{}: {}", drill.name, drill.title.of(globals.lang)));
    for (name, value) in drill.cluster_told(globals.lang) {
        printer.raw(&format!("{name}: {value}"));
    }
    printer.raw("");
    let targets = targets.into_iter().map(|[_, target, wanted]| vec![target, wanted]).collect();
    printer.table(&["target", "wanted"], targets, &json!({}));
    printer.raw("");
    let steps = steps.into_iter().map(|step| step.to_vec()).collect();
    printer.table(&["step", "line", "what", "details", "after", "lasts"], steps, &json!({}));
    Ok(())
}

fn check(printer: &Printer<'_>, globals: &Globals, files: &[&Path]) -> Result<(), Failure> {
    let (mut documents, mut is_good) = (Vec::new(), true);
    for path in files {
        let text = fs::read_to_string(path).map_err(Failure::file(path))?;
        let file = path.display().to_string();
        let (name, wrong, line) = match Drill::parse(&text) {
            Ok(drill) => (Some(drill.name), None, None),
            Err(error) => (None, Some(error.told(globals.lang)), Some(error.line)),
        };
        match &wrong {
            None => {
                let name = name.as_deref().unwrap_or_default();
                printer.say("cli.drill.good", &[("file", &file), ("name", name)]);
            }
            Some(wrong) if !printer.is_json() => printer.raw(&format!("{file}: {wrong}")),
            Some(_) => {}
        }
        is_good &= wrong.is_none();
        documents.push(json!({ "file": file, "name": name, "line": line, "wrong": wrong }));
    }
    if printer.is_json() {
        printer.json(&json!(documents));
    }
    if is_good {
        Ok(())
    } else {
        Err(Failure::Verdict { key: "cli.drill.refused", exit: Exit::Config })
    }
}

/// All reports below a folder of results: `RESULTS/NAME/TIME.json`. None where there is no folder.
pub(super) fn register(results: &Path, globals: &Globals) -> Result<Vec<Past>, Failure> {
    let mut past = Vec::new();
    let folders = match fs::read_dir(results) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(past),
        folders => folders.map_err(Failure::file(results))?,
    };
    for folder in folders {
        let folder = folder.map_err(Failure::file(results))?.path();
        if !folder.is_dir() {
            continue;
        }
        for file in fs::read_dir(&folder).map_err(Failure::file(&folder))? {
            let path = file.map_err(Failure::file(&folder))?.path();
            if path.extension().is_none_or(|ending| ending != "json") {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(Failure::file(&path))?;
            let report = Report::from_json(&text).map_err(|error| {
                let why = error.to_string();
                let told = render(globals.lang, "cli.drill.no_report", &[("why", &why)]);
                Failure::file(&path)(std::io::Error::new(ErrorKind::InvalidData, told))
            })?;
            past.push(Past::from(&report));
        }
    }
    Ok(past)
}

/// The drills that have to be held: those named, else the book and whatever was ever run.
pub(super) fn wanted(named: &[String], past: &[Past]) -> Vec<String> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let mut names: Vec<String> = BOOK.iter().map(|entry| entry.name.to_owned()).collect();
    for past in past {
        if !names.contains(&past.name) {
            names.push(past.name.clone());
        }
    }
    names
}

fn told_due(printer: &Printer<'_>, results: &Path, all: &[Due]) -> Result<(), Failure> {
    let day = |at: Option<UnixMs>| at.map(UnixMs::day).unwrap_or_default();
    let rows = all.iter().map(|due| {
        let key = match due.standing {
            Standing::Never => "cli.drill.never",
            Standing::Overdue => "cli.drill.overdue",
            Standing::Soon => "cli.drill.soon",
            Standing::Fine => "cli.drill.fine",
        };
        let (last, passed, until) = (day(due.last), day(due.passed), day(due.due));
        let state = printer.text(key, &[]);
        vec![due.name.clone(), due.runs.to_string(), last, passed, until, state]
    });
    let columns = ["name", "runs", "last_run", "passed", "due", "state"];
    printer.table(&columns, rows.collect(), &json!(all));
    for soon in all.iter().filter(|due| due.standing == Standing::Soon) {
        printer.say("cli.drill.remind", &[("name", &soon.name), ("day", &day(soon.due))]);
    }
    let pressing = |due: &&Due| matches!(due.standing, Standing::Never | Standing::Overdue);
    let count = all.iter().filter(pressing).count();
    if count == 0 {
        return Ok(());
    }
    let (count, folder) = (count.to_string(), results.display().to_string());
    printer.say("cli.drill.to_do", &[("count", &count), ("folder", &folder)]);
    Err(Failure::Verdict { key: "cli.drill.due", exit: Exit::Unhealthy })
}

#[cfg(test)]
mod tests {
    use dtm_types::text::Lang;

    use super::*;
    use crate::args::Output;

    fn globals() -> Globals {
        Globals {
            output: Output::Table,
            lang: Lang::En,
            context: None,
            yes: false,
            reason: String::new(),
        }
    }

    #[test]
    fn files_are_checked_and_what_cannot_be_run_ends_with_78() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let good = write("good.toml", BOOK[0].text);
        let untargeted = BOOK[0].text.replace("[targets]", "[target]");
        let bad = write("bad.toml", &untargeted);
        let go = |files: Vec<_>| run(&DrillCommand::Check { files }, &globals());
        assert!(go(vec![good.clone()]).is_ok());
        let failed = go(vec![good, bad.clone()]).expect_err("one has no targets");
        assert_eq!(failed.exit(), Exit::Config);
        let drill = bad.display().to_string();
        let shown = run(&DrillCommand::Show { drill, toml: false }, &globals());
        assert_eq!(shown.expect_err("nor can it be shown").exit(), Exit::Config);
        let drill = "leader-kil".to_owned();
        let unknown = run(&DrillCommand::Show { drill, toml: false }, &globals());
        assert!(unknown.expect_err("no such name").tell(Lang::En).contains("leader-kill"));
        for entry in BOOK {
            let drill = entry.name.to_owned();
            run(&DrillCommand::Show { drill, toml: false }, &globals()).expect("of the book");
        }
    }

    #[test]
    fn the_register_is_read_from_the_results_and_what_is_no_report_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let results = folder.path().join("results");
        let go = |drills: &[&str]| {
            let drills = drills.iter().map(|name| (*name).to_owned()).collect();
            let results = results.clone();
            let command = DrillCommand::Due { results, months: 12, remind_days: 30, drills };
            run(&command, &globals())
        };
        assert_eq!(go(&[]).expect_err("nothing was ever run").exit(), Exit::Unhealthy);
        let report = json!({
            "version": 1, "name": "pause", "title": { "vi": "a", "en": "b" }, "facts": [],
            "began": Timestamp::now().as_millisecond(), "ended": Timestamp::now().as_millisecond(),
            "steps": [], "healed": [], "judged": [], "verdict": "passed", "measured_not": null,
            "measured": { "acked": 1, "lost": 0, "lost_ranges": [], "rto_ms": 1,
                "ack_gap_p50_ms": 1, "ack_gap_p99_ms": 1, "availability_ppm": 1_000_000 },
        });
        fs::create_dir_all(results.join("pause")).expect("made");
        fs::write(results.join("latest.json"), "{}").expect("written");
        let path = results.join("pause/20261122-210000.json");
        fs::write(&path, report.to_string()).expect("written");
        assert!(go(&["pause"]).is_ok(), "it passed today");
        assert_eq!(go(&["pause", "partition"]).expect_err("one never").exit(), Exit::Unhealthy);
        fs::write(&path, "{}").expect("written");
        let told = go(&["pause"]).expect_err("no report").tell(Lang::En);
        assert!(told.contains("20261122-210000.json") && told.contains("no report"), "{told}");
    }
}
