//! The house rules that a compiler does not know: layers, engines, sizes, words.
//!
//! `cargo xtask tidy` reads `cargo metadata` and the committed files and lists every breach; it
//! changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Layer of each crate. Dependencies point to a lower layer; the exceptions stand in `WITHIN`.
const LAYERS: &[(&str, u32)] = &[
    ("dtm-types", 0),
    ("dtm-machine", 1),
    ("dtm-placement", 1),
    ("dtm-ledger", 1),
    ("dtm-seal", 1),
    ("dtm-catalog", 1),
    ("dtm-scenario", 1),
    ("dtm-availability", 1),
    ("dtm-proto", 2),
    ("dtm-client", 2),
    ("dtm-storage", 2),
    ("dtm-backup", 2),
    ("dtm-sites", 2),
    ("dtm-peers", 2),
    ("dtm-clocks", 2),
    ("dtm-logs", 2),
    ("dtm-compare", 2),
    ("dtm-register", 2),
    ("dtm-cluster", 2),
    ("dtm-actors", 3),
    ("dtm-identity", 4),
    ("dtm-setup", 4),
    ("dtm-export", 4),
    ("dtm-ctl", 4),
    ("dtm-doors", 5),
    ("dtm-administration", 6),
    ("dtm", 7),
    ("dtm-demo", 8),
    ("dtm-drill", 8),
    ("dtm-sim", 8),
    ("dtm-xtask", 8),
    ("dtm-tests", 8),
    ("dtm-chaos", 8),
    ("dtm-wansim", 8),
    ("dtm-faultfs", 8),
    ("dtm-testkit", 8),
    ("dtm-benches", 8),
];

/// Allowed inside one layer: (from, to).
const WITHIN: &[(&str, &str)] = &[
    ("dtm-cluster", "dtm-storage"),
    ("dtm-cluster", "dtm-proto"),
    ("dtm-cluster", "dtm-sites"),
    ("dtm-cluster", "dtm-peers"),
    ("dtm-peers", "dtm-sites"),
    ("dtm-peers", "dtm-proto"),
    ("dtm-cluster", "dtm-clocks"),
    ("dtm-cluster", "dtm-logs"),
    ("dtm-cluster", "dtm-compare"),
    ("dtm-cluster", "dtm-register"),
    ("dtm-logs", "dtm-storage"),
    ("dtm-client", "dtm-proto"),
    ("dtm-setup", "dtm-identity"),
    ("dtm-setup", "dtm-ctl"),
    ("dtm-machine", "dtm-ledger"),
    ("dtm-placement", "dtm-machine"),
    ("dtm-compare", "dtm-proto"),
    ("dtm-machine", "dtm-seal"),
    ("dtm-machine", "dtm-catalog"),
];

/// Layer of what may import anything and is imported by nothing but its like.
const OUTSIDE: u32 = 8;

/// One foreign engine, one owner.
const OWNERS: &[(&str, &str)] = &[
    ("openraft", "dtm-cluster"),
    ("rocksdb", "dtm-storage"),
    ("ractor", "dtm-actors"),
    ("quinn", "dtm-sites"),
    ("aes-gcm", "dtm-seal"),
];

/// Crates that know no runtime, clock, randomness or files.
const PURE: &[&str] = &[
    "dtm-types",
    "dtm-machine",
    "dtm-placement",
    "dtm-ledger",
    "dtm-seal",
    "dtm-catalog",
    "dtm-scenario",
    "dtm-availability",
];
/// What they must not depend on.
const IMPURE: &[&str] =
    &["tokio", "getrandom", "rand", "tonic", "axum", "hyper", "rustls", "libc", "nix"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of code of a crate: no tests, comments and blank lines.
const CRATE_LINES_MAX: usize = 8_000;
/// Crates past that, and how far they may go before they are split as their ADR says.
const LARGE: &[(&str, usize, &str)] = &[("dtm-cluster", 13_000, "docs/adr/0009")];

/// Words that tell of a workplace instead of the product. In halves, so that this file is clean.
const BANNED: &[(&str, &str)] = &[("/wo", "rk/"), ("sub", "agent"), ("../", "shared")];

/// Lists every breach.
pub(crate) fn check() -> Result<()> {
    let mut breaches = layers()?;
    let files = committed()?;
    let packages = packages(&files)?;
    breaches.extend(unnamed(&packages));
    breaches.extend(large(&packages));
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        words(&path, &text, &mut breaches);
        if path.ends_with(".rs") && !path.contains("/generated/") {
            sizes(&path, &text, &mut breaches);
        }
    }
    if breaches.is_empty() {
        return Ok(());
    }
    for breach in &breaches {
        eprintln!("{breach}");
    }
    bail!("{} breaches of the house rules (CONTRIBUTING.md)", breaches.len());
}

fn committed() -> Result<Vec<String>> {
    let output =
        Command::new("git").args(["ls-files", "-z"]).output().context("run git ls-files")?;
    let names = String::from_utf8(output.stdout).context("file names are UTF-8")?;
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// Dependencies of tests do not count: tests may import anything.
fn layers() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().context("run cargo metadata")?;
    let known: BTreeMap<&str, u32> = LAYERS.iter().copied().collect();
    let mut breaches = Vec::new();
    for package in &metadata.packages {
        let from = package.name.as_str();
        let Some(&layer) = known.get(from) else {
            breaches
                .push(format!("{from}: has no layer; add it to LAYERS in ops/xtask/src/tidy.rs"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            let to = dependency.name.as_str();
            if let Some(&below) = known.get(to) {
                let allowed = below < layer || layer == OUTSIDE || WITHIN.contains(&(from, to));
                if !allowed {
                    breaches.push(format!("{from} (layer {layer}) depends on {to} (layer {below}): dependencies point down"));
                }
            }
            if layer != OUTSIDE
                && OWNERS.iter().any(|(engine, owner)| *engine == to && *owner != from)
            {
                breaches.push(format!("{from} names {to}: one foreign engine, one owner crate"));
            }
            if PURE.contains(&from) && IMPURE.contains(&to) {
                breaches.push(format!("{from} depends on {to}: it is pure"));
            }
        }
    }
    Ok(breaches)
}

/// Paths and texts of source files.
type Sources = Vec<(String, String)>;

/// Each package with its source files.
fn packages(files: &[String]) -> Result<Vec<(Package, Sources)>> {
    let metadata = MetadataCommand::new().no_deps().exec().context("run cargo metadata")?;
    let root = &metadata.workspace_root;
    let folder = |package: &Package| {
        let folder = package.manifest_path.parent().and_then(|at| at.strip_prefix(root).ok());
        folder.map(|at| format!("{at}/")).unwrap_or_default()
    };
    let mut sources: BTreeMap<String, Sources> = BTreeMap::new();
    for path in files.iter().filter(|path| path.ends_with(".rs")) {
        // One package may lie in the folder of another: the innermost has the file.
        let homes = metadata.packages.iter().map(folder).filter(|home| path.starts_with(home));
        if let Some(home) = homes.max_by_key(String::len) {
            let text = fs::read_to_string(path).unwrap_or_default();
            sources.entry(home).or_default().push((path.clone(), text));
        }
    }
    let all = metadata.packages.iter();
    let with_sources =
        all.map(|package| (package.clone(), sources.remove(&folder(package)).unwrap_or_default()));
    Ok(with_sources.collect())
}

/// Dependencies that no source file of their package names: they are not needed.
fn unnamed(packages: &[(Package, Sources)]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (package, sources) in packages {
        for dependency in &package.dependencies {
            let name = dependency.rename.as_ref().unwrap_or(&dependency.name).replace('-', "_");
            if !sources.iter().any(|(_, text)| is_named(text, &name)) {
                breaches.push(format!("{}: names {name} in no source file", package.name));
            }
        }
    }
    breaches
}

/// Crates that are to be split.
fn large(packages: &[(Package, Sources)]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (package, sources) in packages {
        let own =
            sources.iter().filter(|(path, _)| !is_test(path) && !path.contains("/generated/"));
        let lines: usize = own.map(|(_, text)| code_lines(text)).sum();
        let known = LARGE.iter().find(|(name, ..)| *name == package.name.as_str());
        let (most, why) =
            known.map_or((CRATE_LINES_MAX, "docs/adr"), |(_, most, why)| (*most, why));
        if lines > most {
            let name = &package.name;
            breaches
                .push(format!("{name}: {lines} lines of code, at most {most}: split it ({why})"));
        }
    }
    breaches
}

/// Without blank lines, comments and the tests at the end.
fn code_lines(text: &str) -> usize {
    let code = text.lines().map(str::trim).take_while(|line| !line.starts_with("mod tests {"));
    code.filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// `name::…` or `use name` as a word of its own, outside of comments.
fn is_named(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(name).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + name.len()..]);
            let is_used = before.trim_end().ends_with("use") && !after.starts_with(is_part);
            !before.ends_with(is_part) && (after.starts_with("::") || is_used)
        })
    })
}

fn words(path: &str, text: &str, breaches: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        for (first, second) in BANNED {
            if line.contains(&format!("{first}{second}")) {
                breaches
                    .push(format!("{path}:{}: names something outside the product", number + 1));
            }
        }
    }
}

fn sizes(path: &str, text: &str, breaches: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX && !is_test(path) {
        breaches.push(format!("{path}: {lines} lines, at most {FILE_LINES_MAX}: cut it"));
    }
    if !text.trim_start().starts_with("//!") && !is_test(path) {
        breaches.push(format!("{path}: has no module documentation (//!)"));
    }
    for (start, length) in long_functions(text) {
        breaches.push(format!(
            "{path}:{start}: function of {length} lines, at most {FUNCTION_LINES_MAX}"
        ));
    }
}

fn is_test(path: &str) -> bool {
    path.ends_with("_test.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

/// First line and length of functions that are too long. rustfmt closes a function at the
/// indentation it was opened with, so no parser is needed.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if !opens_function(line.trim_start()) || line.trim_end().ends_with(';') {
            continue;
        }
        let end = lines[start..].iter().position(|l| *l == format!("{}}}", " ".repeat(indent)));
        let length = end.map_or(0, |end| end + 1);
        if length > FUNCTION_LINES_MAX {
            found.push((start + 1, length));
        }
    }
    found
}

fn opens_function(line: &str) -> bool {
    let mut rest = line;
    for prefix in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    rest.starts_with("fn ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_named_where_it_is_used_and_not_in_a_comment_or_a_longer_word() {
        for text in ["use hex::encode;", "    hex::encode(x)", "pub(crate) use hex;", "::hex::x"] {
            assert!(is_named(text, "hex"), "{text}");
        }
        for text in ["// hex::encode", "a_hex::b", "use hexes;", "let hex = 1;"] {
            assert!(!is_named(text, "hex"), "{text}");
        }
    }

    #[test]
    fn long_functions_are_found_and_short_ones_are_not() {
        let body = "    x();\n".repeat(80);
        let text =
            format!("pub(crate) async fn long() {{\n{body}}}\n\nfn short() {{\n    x();\n}}\n");
        assert_eq!(long_functions(&text), [(1, 82)]);
        let nested =
            format!("impl A {{\n    fn long() {{\n{}    }}\n}}\n", "        x();\n".repeat(70));
        assert_eq!(long_functions(&nested), [(2, 72)]);
    }

    #[test]
    fn big_undocumented_and_foreign_files_are_breaches() {
        let mut breaches = Vec::new();
        sizes("a/src/b.rs", &"x\n".repeat(501), &mut breaches);
        assert_eq!(breaches.len(), 2, "{breaches:?}");
        breaches.clear();
        sizes("a/src/b_test.rs", &"x\n".repeat(501), &mut breaches);
        assert!(breaches.is_empty());
        let foreign = ["/work", "/main"].concat();
        words("a", &format!("see {foreign}/x\n"), &mut breaches);
        assert_eq!(breaches.len(), 1);
    }

    #[test]
    fn code_is_counted_without_comments_and_tests() {
        let text =
            "//! a\n\nfn b() {\n    // c\n    d();\n}\n\n#[cfg(test)]\nmod tests {\n    e\n}\n";
        assert_eq!(code_lines(text), 4, "the attribute of the tests counts");
    }

    #[test]
    fn the_tables_agree() {
        for (from, to) in WITHIN {
            let layer = |name: &str| {
                LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
            };
            assert!(
                layer(from).is_some() && layer(from) == layer(to),
                "{from} to {to} is no exception"
            );
        }
    }
}
