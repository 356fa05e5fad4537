//! Every key of the catalogue of texts that the command line, the node and the demo name is there:
//! a key without a text would be shown as it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dtm_types::text::is_held;

/// Families of keys that stand in the sources as they are.
const FAMILIES: [&str; 17] = [
    "agent.",
    "alert.",
    "apply.",
    "check.",
    "cli.",
    "client.",
    "columns.",
    "config.",
    "dashboard.",
    "definition.",
    "doctor.",
    "identity.",
    "page.",
    "publish.",
    "refused.",
    "resend.",
    "session.",
];
/// What looks like a key and is none.
const OTHERS: [&str; 1] = ["page.html"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The texts between quotes.
fn literals(code: &str) -> impl Iterator<Item = &str> {
    code.split('"').skip(1).step_by(2)
}

fn is_key(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
    FAMILIES.iter().any(|family| text.starts_with(family))
        && text.chars().all(plain)
        && !text.ends_with('.')
        && !OTHERS.contains(&text)
}

/// Heads of tables: lists of two literals or more that are small letters and `_`.
fn columns(code: &str) -> impl Iterator<Item = &str> {
    let lists =
        code.split('[').skip(1).filter_map(|rest| rest.split_once(']')).map(|(list, _)| list);
    let names = lists.filter_map(|list| {
        let items: Vec<_> =
            list.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        let name = |item: &&str| {
            let name = item.strip_prefix('"')?.strip_suffix('"')?;
            name.chars().all(|c| c.is_ascii_lowercase() || c == '_').then_some(())
        };
        (items.len() > 1 && items.iter().all(|item| name(item).is_some())).then_some(items)
    });
    names.flatten().map(|item| item.trim_matches('"'))
}

#[test]
fn every_key_that_is_named_has_a_text() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in [
        "actors/src",
        "chaos/drill/src",
        "chaos/scenario/src",
        "node/administration/src",
        "node/doors/src",
        "node/identity/src",
        "node/setup/src",
        "node/src",
        "ops/ctl/src",
        "proto/catalog/src",
        "proto/client/src",
        "proto/types/src",
    ] {
        sources(&root.join(folder), &mut files);
    }
    files.retain(|file| !file.to_string_lossy().ends_with("_test.rs"));
    let (mut keys, mut heads) = (BTreeSet::new(), BTreeSet::new());
    for file in files {
        let code = fs::read_to_string(&file).expect("a source");
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        keys.extend(literals(code).filter(|text| is_key(text)).map(str::to_owned));
        if file.starts_with(root.join("ops/ctl/src/commands")) {
            heads.extend(columns(code).map(|name| format!("cli.col.{name}")));
        }
    }
    assert!(keys.len() > 650 && heads.len() > 30, "{} keys, {} columns", keys.len(), heads.len());
    let lacking: Vec<_> = keys.iter().chain(&heads).filter(|key| !is_held(key)).collect();
    assert!(lacking.is_empty(), "no text for {lacking:?}");
}
