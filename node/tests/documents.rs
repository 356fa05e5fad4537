//! Committed pages say what the code says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dtm_doors::telemetry::{METRICS, MetricKind};
use dtm_node::config::KEYS;
use dtm_types::ErrorCode;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn page(name: &str) -> String {
    fs::read_to_string(docs().join(name)).unwrap_or_else(|e| panic!("docs/{name}: {e}"))
}

#[test]
fn every_error_code_has_its_page_in_both_languages() {
    let index = page("errors/README.md");
    for code in ErrorCode::ALL {
        let text = page(&format!("errors/{code}.md"));
        assert!(text.starts_with(&format!("# {code}\n")), "{code}");
        for part in ["**Ý nghĩa.**", "**Việc cần làm.**", "**Meaning.**", "**What to do.**"]
        {
            let (_, after) =
                text.split_once(part).unwrap_or_else(|| panic!("{code}: {part} is missing"));
            assert!(after.trim_start().len() > 20, "{code}: {part} says nothing");
        }
        let retry = if code.retryable() { "Có thể · Yes" } else { "Không · No" };
        let numbers = format!("({}) | {} | {retry} |", code.grpc_code(), code.http_status());
        assert!(text.contains(&numbers), "{code}: {numbers}");
        assert!(index.contains(&format!("[{code}]({code}.md)")), "{code} is not in the index");
    }
}

#[test]
fn no_page_is_about_a_code_that_is_gone() {
    for entry in fs::read_dir(docs().join("errors")).expect("a folder") {
        let name = entry.expect("a file").file_name().to_string_lossy().into_owned();
        let code = name.strip_suffix(".md").unwrap_or(&name);
        assert!(code == "README" || ErrorCode::from_name(code).is_some(), "docs/errors/{name}");
    }
}

/// Files of a kind below a folder that are the project's own.
fn all_files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
            all_files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// The ids of the lines `covers: ID, ID` of a source file.
fn covered(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim_start);
    let said = lines.filter_map(|line| {
        line.strip_prefix("// covers: ").or_else(|| line.strip_prefix("# covers: "))
    });
    said.flat_map(|ids| ids.split(',').map(str::trim))
}

#[test]
fn the_page_of_requirements_names_what_tests_cover_and_nothing_else() {
    let root = docs().join("..");
    let mut tests = BTreeSet::new();
    for extension in ["rs", "py"] {
        let mut files = Vec::new();
        all_files(&root, extension, &mut files);
        for path in files {
            let text = fs::read_to_string(&path).expect("a source file");
            tests.extend(covered(&text).map(str::to_owned));
        }
    }
    let compliance = page("compliance.md");
    let rows = compliance.lines().filter_map(|line| line.strip_prefix("| "));
    let ids = rows.filter_map(|row| row.split(" | ").next()).skip_while(|id| *id != "id").skip(1);
    let ids = ids.flat_map(|ids| ids.split(',').map(|id| id.trim().to_owned()));
    let named: BTreeSet<String> = ids.collect();
    assert!(tests.len() > 10, "the search finds what tests cover: {tests:?}");
    let missing: Vec<_> = tests.difference(&named).collect();
    assert!(missing.is_empty(), "covered and not in docs/compliance.md: {missing:?}");
    let claimed: Vec<_> = named.difference(&tests).collect();
    assert!(claimed.is_empty(), "in docs/compliance.md and covered by no test: {claimed:?}");
}

#[test]
fn generated_pages_are_fresh() {
    for (name, text) in [
        ("config.md", dtm_node::config::markdown()),
        ("metrics.md", dtm_doors::telemetry::markdown()),
    ] {
        assert_eq!(page(name).trim_end(), text.trim_end(), "docs/{name} is stale: run make fix");
    }
}

/// Names, kinds and labels in a source file: `counter!("name", "label" => …)`.
fn emitted(text: &str) -> Vec<(String, MetricKind, Vec<String>)> {
    let mut found = Vec::new();
    for (call, kind) in [
        ("counter!(", MetricKind::Counter),
        ("gauge!(", MetricKind::Gauge),
        ("histogram!(", MetricKind::Histogram),
    ] {
        for (at, _) in text.match_indices(call) {
            let before = text[..at].chars().next_back();
            let rest = text[at + call.len()..].trim_start();
            if before.is_none_or(|c| c != ':') || !rest.starts_with("\"dtm_") {
                continue;
            }
            let parts: Vec<&str> = arguments(rest).split("=>").collect();
            let quoted =
                |part: &str| part.rsplit('"').nth(1).map(str::to_owned).expect("a literal");
            let name = rest.split('"').nth(1).expect("a name").to_owned();
            let labels = parts[..parts.len() - 1].iter().map(|part| quoted(part)).collect();
            found.push((name, kind, labels));
        }
    }
    found
}

/// What stands before the parenthesis that closes a call.
fn arguments(rest: &str) -> &str {
    let (mut depth, mut is_text) = (0, false);
    for (at, c) in rest.char_indices() {
        match c {
            '"' => is_text = !is_text,
            '(' if !is_text => depth += 1,
            ')' if !is_text && depth == 0 => return &rest[..at],
            ')' if !is_text => depth -= 1,
            _ => {}
        }
    }
    panic!("a call ends")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !["generated", "tests", "target"].contains(&name.as_str()) {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

// holds: OBS-1
#[test]
fn every_metric_is_in_the_catalogue_and_every_one_there_has_a_place_that_emits_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for room in [
        "node/src",
        "node/administration/src",
        "node/doors/src",
        "node/export/src",
        "node/identity/src",
        "node/setup/src",
        "cluster",
        "actors",
        "storage",
        "proto",
    ] {
        sources(&root.join(room), &mut files);
    }
    let mut seen = BTreeSet::new();
    for file in files {
        for (name, kind, labels) in emitted(&fs::read_to_string(&file).expect("a source")) {
            let place = file.display();
            let known = METRICS.iter().find(|metric| metric.name == name);
            let known = known.unwrap_or_else(|| panic!("{place}: {name} is not in METRICS"));
            assert_eq!(known.kind, kind, "{place}: {name}");
            assert_eq!(known.labels, labels.join(", "), "{place}: labels of {name}");
            seen.insert(name);
        }
    }
    for metric in METRICS {
        assert!(seen.contains(metric.name), "{} is never emitted", metric.name);
    }
}

#[test]
fn every_setting_is_read() {
    let mut files = Vec::new();
    for room in ["src", "setup/src", "doors/src", "administration/src"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut files);
    }
    let outside = files.iter().filter(|file| {
        let is_config = file.components().any(|part| part.as_os_str() == "config");
        !is_config && !file.to_string_lossy().ends_with("_test.rs")
    });
    let texts: Vec<String> =
        outside.map(|file| fs::read_to_string(file).expect("a source")).collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for key in KEYS {
        let place = format!("{}.{}", key.section, key.name);
        let is_read = texts.iter().any(|text| {
            text.match_indices(&place).any(|(at, _)| {
                let (before, after) = (&text[..at], &text[at + place.len()..]);
                // Of the node, not of its configuration: `shared.cluster.…`.
                let is_part = before.ends_with("self.0.") || before.ends_with("shared.");
                !is_part && !before.ends_with(is_word) && !after.starts_with(is_word)
            })
        });
        assert!(is_read, "{place} is read nowhere");
    }
}
