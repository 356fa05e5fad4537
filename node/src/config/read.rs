//! Reads file and environment, collecting every problem with its place.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dtm_types::text::Told;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::SECTIONS;
use super::{Config, Error, KEYS, Problem, Value};

/// Largest configuration file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Kinds of values and their texts.
const KINDS: [(&str, &str); 6] = [
    ("text", "config.kind.text"),
    ("path", "config.kind.path"),
    ("address and port", "config.kind.address"),
    ("whole number", "config.kind.number"),
    ("list of texts", "config.kind.list"),
    ("true or false", "config.kind.switch"),
];

/// Units of measures and their texts.
const UNITS: [(&str, &str); 11] = [
    // A switch has none.
    ("", "config.kind.switch"),
    ("bytes per second", "config.unit.bytes_per_second"),
    ("bytes", "config.unit.bytes"),
    ("characters", "config.unit.characters"),
    ("connections", "config.unit.connections"),
    ("ms", "config.unit.ms"),
    ("names", "config.unit.names"),
    ("port", "config.unit.port"),
    ("reads", "config.unit.reads"),
    ("records", "config.unit.records"),
    ("streams", "config.unit.streams"),
];

/// Reads a file with the overrides of the process's environment. Paths in it are relative to its
/// folder.
///
/// # Errors
/// Every problem found, each with its place and what to do.
pub fn load(path: &Path) -> Result<Config, Error> {
    let one = |what: Told, remedy: &'static str| {
        let (place, remedy) = (path.display().to_string(), Told::new(remedy));
        Error(vec![Problem { place, key: String::new(), what, remedy }])
    };
    let unreadable = |error| Told::new("config.unreadable").with("what", error);
    let bytes =
        fs::metadata(path).map_err(|e| one(unreadable(e), "config.remedy.name_file"))?.len();
    if bytes > FILE_BYTES_MAX {
        let what = Told::new("config.too_long").with("bytes", bytes);
        return Err(one(what, "config.remedy.one_mib"));
    }
    let text = fs::read_to_string(path).map_err(|e| one(unreadable(e), "config.remedy.utf8"))?;
    let environment = std::env::vars().filter(|(name, _)| name.starts_with("DTM__"));
    let mut config = parse(path, &text, environment)?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let folder = fs::canonicalize(&folder).unwrap_or(folder);
    for file in [
        &mut config.node.data,
        &mut config.tls.certificate,
        &mut config.tls.key,
        &mut config.tls.ca,
        &mut config.keys.master_key_file,
    ] {
        *file = folder.join(file.as_path());
    }
    Ok(config)
}

/// Reads text and overrides without touching files. `path` is named in messages only.
///
/// # Errors
/// Every problem found.
pub fn parse(
    path: &Path,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, Error> {
    let mut problems = Vec::new();
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            let place = place(path, text, error.span().map_or(0, |span| span.start));
            let what = Told::new("config.not_toml").with("what", error.message());
            let remedy = Told::new("config.remedy.mend_line");
            return Err(Error(vec![Problem { place, key: String::new(), what, remedy }]));
        }
    };
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    unknown_keys(path, text, &table, &mut problems);
    unknown_variables(&environment, &mut problems);
    let mut source = Source { path, text, table: &table, environment: &environment, problems };
    let config = Config::take(&mut source);
    if let Some(config) = &config {
        super::check::check_values(config, &mut source);
    }
    let problems = source.problems;
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Error(problems)),
    }
}

/// Where values come from while a configuration is read.
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    table: &'a DeTable<'a>,
    environment: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl Source<'_> {
    /// Where a key is set; the whole file where it is not.
    fn place_of(&self, key: &str) -> Option<String> {
        let (section, name) = key.split_once('.')?;
        let variable = variable(section, name);
        if self.environment.contains_key(&variable) {
            return Some(variable);
        }
        let value = find(self.table, section, name)?;
        Some(place(self.path, self.text, value.span().start))
    }

    /// Notes that values do not fit each other. Where one of them alone does not hold, that is told
    /// already.
    pub(super) fn unfit(&mut self, keys: &[&str], what: Told, remedy: &'static str) {
        let is_told = |key: &&str| self.problems.iter().any(|problem| problem.key == **key);
        if keys.iter().any(is_told) {
            return;
        }
        let place = keys.iter().find_map(|key| self.place_of(key));
        let place = place.unwrap_or_else(|| self.path.display().to_string());
        let (key, remedy) = (keys[0].to_owned(), Told::new(remedy));
        self.problems.push(Problem { place, key, what, remedy });
    }

    /// The value of a key. After noting a problem its default, so that the others are held against
    /// each other all the same; `None` where it has none.
    pub(super) fn take<V: Value>(&mut self, section: &str, name: &str) -> Option<V> {
        let key = KEYS.iter().find(|key| key.section == section && key.name == name)?;
        let variable = variable(section, name);
        let (place, found, value) = if let Some(text) = self.environment.get(&variable) {
            (variable, text.clone(), V::read_text(text))
        } else if let Some(value) = find(self.table, section, name) {
            let span = value.span();
            let place = place(self.path, self.text, span.start);
            let found = self.text.get(span).unwrap_or_default().to_owned();
            (place, found, V::read(value.get_ref()))
        } else {
            let place = self.path.display().to_string();
            (place, key.default.to_owned(), default(key.default))
        };
        let (low, high) = key.range;
        let name = format!("{section}.{name}");
        let problem = match value {
            Some(value) if (low..=high).contains(&value.measure()) => return Some(value),
            Some(value) if value.measure() == 0 && matches!(key.kind, "text" | "path") => {
                let (what, remedy) = ("config.empty", "config.remedy.not_empty");
                Problem { place, key: name, what: Told::new(what), remedy: Told::new(remedy) }
            }
            Some(value) => Problem {
                place,
                key: name,
                what: Told::new("config.outside")
                    .with("value", value.measure())
                    .with("low", low)
                    .with("high", high)
                    .with_told("unit", words(&UNITS, key.unit)),
                remedy: Told::new("config.remedy.inside"),
            },
            None if found.is_empty() => Problem {
                place,
                key: name,
                what: Told::new("config.missing"),
                remedy: Told::new("config.remedy.add")
                    .with("section", section)
                    .with_told("kind", words(&KINDS, key.kind)),
            },
            None => Problem {
                place,
                key: name,
                what: Told::new("config.wrong_kind")
                    .with("found", found)
                    .with_told("kind", words(&KINDS, key.kind)),
                remedy: Told::new("config.remedy.like").with(
                    "example",
                    if key.default.is_empty() { "[\"name\"]" } else { key.default },
                ),
            },
        };
        self.problems.push(problem);
        default(key.default).or_else(|| V::read_text(""))
    }
}

/// A kind of value or a unit in words.
fn words(table: &[(&'static str, &'static str)], name: &'static str) -> Told {
    let found = table.iter().find(|(known, _)| *known == name);
    Told::new(found.map_or(name, |(_, key)| *key))
}

fn default<V: Value>(text: &str) -> Option<V> {
    if text.is_empty() {
        return None;
    }
    let value = DeValue::parse(text).expect("defaults are TOML: a test reads them all");
    V::read(value.get_ref())
}

fn find<'a>(table: &'a DeTable<'a>, section: &str, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
    table.get(section)?.get_ref().as_table()?.get(name)
}

fn variable(section: &str, name: &str) -> String {
    format!("DTM__{}__{}", section.to_uppercase(), name.to_uppercase())
}

fn place(path: &Path, text: &str, offset: usize) -> String {
    let line = text.as_bytes().iter().take(offset).filter(|&&b| b == b'\n').count() + 1;
    format!("{}:{line}", path.display())
}

fn unknown_keys(path: &Path, text: &str, table: &DeTable<'_>, problems: &mut Vec<Problem>) {
    let mut note = |offset, key: String, what: &'static str, near: Option<&str>| {
        let remedy = match near {
            Some(near) => Told::new("config.remedy.near").with("near", near),
            None => Told::new("config.remedy.remove"),
        };
        let what = Told::new(what);
        problems.push(Problem { place: place(path, text, offset), key, what, remedy });
    };
    for (section, value) in table {
        let name = section.get_ref().as_ref();
        if !SECTIONS.iter().any(|(known, _)| *known == name) {
            let near = nearest(name, SECTIONS.iter().map(|(known, _)| *known));
            note(section.span().start, name.to_owned(), "config.unknown_section", near);
            continue;
        }
        let Some(keys) = value.get_ref().as_table() else {
            note(value.span().start, name.to_owned(), "config.is_section", None);
            continue;
        };
        for key in keys.keys() {
            let key_name = key.get_ref().as_ref();
            let mut known = KEYS.iter().filter(|k| k.section == name).map(|k| k.name);
            if !known.clone().any(|k| k == key_name) {
                let near = nearest(key_name, &mut known);
                note(key.span().start, format!("{name}.{key_name}"), "config.unknown_key", near);
            }
        }
    }
}

fn unknown_variables(environment: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    for name in environment.keys() {
        if !KEYS.iter().any(|key| variable(key.section, key.name) == *name) {
            problems.push(Problem {
                place: name.clone(),
                key: String::new(),
                what: Told::new("config.no_key"),
                remedy: Told::new("config.remedy.unset"),
            });
        }
    }
}

/// The known name that differs in the fewest letters, where that is two or at most a third.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance < candidate.len() && *distance <= (candidate.len() / 3).max(2)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, remove or change. Bounded: names are cut at 64 bytes.
fn distance(a: &str, b: &str) -> usize {
    let a = &a.as_bytes()[..a.len().min(64)];
    let b = &b.as_bytes()[..b.len().min(64)];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[path = "read_test.rs"]
mod tests;
