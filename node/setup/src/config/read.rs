//! Reads file, environment and the cluster's settings, collecting every problem with its place.

use std::collections::BTreeMap;
use std::path::Path;

use dtm_types::command::{Setting, SettingsRow};
use dtm_types::text::Told;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::SECTIONS;
use super::{Config, Error, KEYS, Key, Problem, Scope, Value};

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
const UNITS: [(&str, &str); 15] = [
    // A switch has none.
    ("", "config.kind.switch"),
    ("backups", "cli.col.backup"),
    ("bytes per second", "config.unit.bytes_per_second"),
    ("bytes", "config.unit.bytes"),
    ("characters", "config.unit.characters"),
    ("connections", "config.unit.connections"),
    ("minutes", "cli.col.minutes"),
    ("ms", "config.unit.ms"),
    ("names", "config.unit.names"),
    ("percent", "config.unit.percent"),
    ("port", "config.unit.port"),
    ("reads", "config.unit.reads"),
    ("records", "config.unit.records"),
    ("streams", "config.unit.streams"),
    ("version", "config.unit.version"),
];

/// Reads text and overrides without touching files. `path` is named in messages only.
///
/// # Errors
/// Every problem found.
pub fn parse(
    path: &Path,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, Error> {
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    let sources =
        Sources { path, text, environment: &environment, cluster: &SettingsRow::default() };
    Ok(sources.read()?.config)
}

/// Where the value of a key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The file.
    File,
    /// `DTM__SECTION__KEY`.
    Environment,
    /// The cluster's settings.
    Cluster,
}

impl Origin {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Cluster => "cluster",
        }
    }
}

/// A configuration, and where each value of it comes from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What is said.
    pub config: Config,
    /// In the order of [`KEYS`].
    pub origins: Vec<Origin>,
    /// Keys that the cluster sets and this software does not know, or not as the cluster's.
    pub unknown: Vec<String>,
}

/// Everything that a configuration is made from. The cluster wins over the environment, that over
/// the file, and that over the default.
pub(super) struct Sources<'a> {
    /// Named in messages only.
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) cluster: &'a SettingsRow,
}

impl Sources<'_> {
    pub(super) fn read(&self) -> Result<Resolved, Error> {
        let (path, text) = (self.path, self.text);
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
        unknown_keys(path, text, &table, &mut problems);
        unknown_variables(self.environment, &mut problems);
        let mut source = Source { given: self, table: &table, origins: Vec::new(), problems };
        let config = Config::take(&mut source);
        if let Some(config) = &config {
            super::check::check_values(config, &mut source);
        }
        let Source { origins, problems, .. } = source;
        let unknown =
            self.cluster.settings.iter().filter(|setting| of_cluster(&setting.key).is_none());
        let unknown = unknown.map(|setting| setting.key.clone()).collect();
        match config {
            Some(config) if problems.is_empty() => Ok(Resolved { config, origins, unknown }),
            _ => Err(Error(problems)),
        }
    }
}

/// A key that the cluster may set, by `section.key`.
pub fn of_cluster(name: &str) -> Option<&'static Key> {
    known(name).filter(|key| key.scope != Scope::Node)
}

/// A key by `section.key`.
pub fn known(name: &str) -> Option<&'static Key> {
    let (section, name) = name.split_once('.')?;
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The known `section.key` that is meant, where one is near.
pub fn nearest_key(name: &str) -> Option<String> {
    let all: Vec<String> = KEYS.iter().map(|key| format!("{}.{}", key.section, key.name)).collect();
    nearest(name, all.iter().map(String::as_str)).map(str::to_owned)
}

/// Where values come from while a configuration is read.
pub(super) struct Source<'a> {
    given: &'a Sources<'a>,
    table: &'a DeTable<'a>,
    /// Of what was taken, in the order of [`KEYS`].
    origins: Vec<Origin>,
    problems: Vec<Problem>,
}

/// What is said of a key: where, in which words, and what it is, where it is of its kind.
struct Found<V> {
    origin: Origin,
    place: String,
    text: String,
    value: Option<V>,
}

impl Source<'_> {
    /// Where a key is set; the whole file where it is not.
    fn place_of(&self, name: &str) -> Option<String> {
        let Sources { path, text, environment, cluster } = self.given;
        let (section, key) = name.split_once('.')?;
        if cluster.settings.iter().any(|set| set.key == name && of_cluster(name).is_some()) {
            return Some(format!("cluster settings {}", cluster.version));
        }
        let variable = variable(section, key);
        if environment.contains_key(&variable) {
            return Some(variable);
        }
        let value = find(self.table, section, key)?;
        Some(place(path, text, value.span().start))
    }

    /// Notes that values do not fit each other. Where one of them alone does not hold, that is told
    /// already.
    pub(super) fn unfit(&mut self, keys: &[&str], what: Told, remedy: &'static str) {
        let is_told = |key: &&str| self.problems.iter().any(|problem| problem.key == **key);
        if keys.iter().any(is_told) {
            return;
        }
        let place = keys.iter().find_map(|key| self.place_of(key));
        let place = place.unwrap_or_else(|| self.given.path.display().to_string());
        let (key, remedy) = (keys[0].to_owned(), Told::new(remedy));
        self.problems.push(Problem { place, key, what, remedy });
    }

    fn find<V: Value>(&self, key: &Key) -> Found<V> {
        let Sources { path, text, environment, cluster } = self.given;
        let variable = variable(key.section, key.name);
        let is_key = |setting: &&Setting| {
            setting.key.split_once('.') == Some((key.section, key.name)) && key.scope != Scope::Node
        };
        if let Some(Setting { value, .. }) = cluster.settings.iter().find(is_key) {
            let read = DeValue::parse(value).ok().and_then(|value| V::read(value.get_ref()));
            let place = format!("cluster settings {}", cluster.version);
            return Found { origin: Origin::Cluster, place, text: value.clone(), value: read };
        }
        if let Some(text) = environment.get(&variable) {
            let (origin, value) = (Origin::Environment, V::read_text(text));
            return Found { origin, place: variable, text: text.clone(), value };
        }
        if let Some(value) = find(self.table, key.section, key.name) {
            let span = value.span();
            let place = place(path, text, span.start);
            let text = text.get(span).unwrap_or_default().to_owned();
            return Found { origin: Origin::File, place, text, value: V::read(value.get_ref()) };
        }
        let (place, text) = (path.display().to_string(), key.default.to_owned());
        Found { origin: Origin::Default, place, text, value: default(key.default) }
    }

    /// The value of a key. After noting a problem its default, so that the others are held against
    /// each other all the same; `None` where it has none.
    pub(super) fn take<V: Value>(&mut self, section: &str, name: &str) -> Option<V> {
        let key = KEYS.iter().find(|key| key.section == section && key.name == name)?;
        let Found { origin, place, text: found, value } = self.find::<V>(key);
        let (low, high) = key.range;
        let name = format!("{section}.{name}");
        let problem = match value {
            Some(value) if (low..=high).contains(&value.measure()) => {
                self.origins.push(origin);
                return Some(value);
            }
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
            None if found.is_empty() && origin == Origin::Default => Problem {
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
