//! What `dtm-drill` is told.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use dtm_scenario::{BOOK, Drill};
use dtm_types::text::Lang;

use crate::hands::Scale;
use crate::say;

/// Runs drills on a real cluster that it starts on this machine, and writes their reports.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "dtm-drill",
    version,
    after_help = "Exit codes: 0 every drill passed, 1 one did not or could not be run, 2 usage or a drill that is refused."
)]
pub(crate) struct Settings {
    /// Drills: names of the book (`dtm drill list`) or files. The whole book where none is named.
    pub(crate) drills: Vec<String>,
    /// Folder of results.
    #[arg(long, env = "DRILL_RESULTS", default_value = "chaos/results")]
    pub(crate) results: PathBuf,
    /// The `dtm` binary; default: beside this one.
    #[arg(long, env = "DTM_BIN")]
    dtm: Option<PathBuf>,
    /// Nodes of the cluster, where a drill is held at one site; 3 where neither says.
    #[arg(long, value_parser = nodes)]
    nodes: Option<usize>,
    /// Sources of each load, instead of what the drill says.
    #[arg(long, env = "DRILL_SOURCES", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    sources: Option<u64>,
    /// Records a second of each load, all sources together, instead of what the drill says.
    #[arg(long, env = "DRILL_RATE", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Option<u64>,
    /// Language: vi or en.
    #[arg(long, env = "DTM_LANG", default_value = "vi", value_parser = parse_lang)]
    pub(crate) lang: Lang,
}

impl Settings {
    /// The drills that are named, read.
    ///
    /// # Errors
    /// A name that is none, a file that cannot be read, a drill that is refused with line, key and
    /// what is allowed.
    pub(crate) fn drills(&self) -> Result<Vec<Drill>> {
        let read = |place: &str, text: &str| {
            Drill::parse(text).map_err(|error| anyhow!("{place}: {}", error.told(self.lang)))
        };
        if self.drills.is_empty() {
            return BOOK.iter().map(|entry| read(entry.name, entry.text)).collect();
        }
        let each = self.drills.iter().map(|named| {
            if let Some(entry) = BOOK.iter().find(|entry| entry.name == named) {
                return read(entry.name, entry.text);
            }
            if !named.contains('/') && !named.ends_with(".toml") {
                let names: Vec<_> = BOOK.iter().map(|entry| entry.name).collect();
                let known = names.join(", ");
                bail!(say::text("drill.run.unknown", &[("name", named), ("known", &known)]));
            }
            let text = std::fs::read_to_string(named).with_context(|| named.clone())?;
            read(named, &text)
        });
        each.collect()
    }

    /// A drill with as many nodes as were asked for. Sites have the nodes that it says: its layout
    /// rests on them.
    pub(crate) fn sized(&self, drill: &Drill) -> Drill {
        let mut drill = drill.clone();
        if let (Some(nodes), [site]) = (self.nodes, &mut drill.cluster.sites[..]) {
            site.nodes = nodes;
        }
        drill
    }

    /// What the loads are instead of what the drills say.
    pub(crate) fn scale(&self) -> Scale {
        Scale { sources: self.sources, records_per_second: self.rate }
    }

    /// The binary: as named, else beside this one.
    ///
    /// # Errors
    /// It is not there.
    pub(crate) fn dtm(&self) -> Result<PathBuf> {
        let beside = || std::env::current_exe().ok()?.parent().map(|folder| folder.join("dtm"));
        let path = self.dtm.clone().or_else(beside).context("dtm")?;
        let shown = path.display().to_string();
        let found = std::fs::canonicalize(path).ok().filter(|path| path.is_file());
        found.with_context(|| say::text("drill.run.no-binary", &[("path", &shown)]))
    }
}

fn parse_lang(text: &str) -> Result<Lang, String> {
    Lang::parse(text).ok_or_else(|| "vi or en".to_owned())
}

fn nodes(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (3..=9).contains(count));
    count.ok_or_else(|| "3 to 9".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_book_is_run_where_nothing_is_named_and_unknown_names_are_told() {
        Settings::command().debug_assert();
        let of = |arguments: &[&str]| {
            let all = [&["dtm-drill", "--lang", "en"], arguments].concat();
            Settings::try_parse_from(all).unwrap().drills()
        };
        assert_eq!(of(&[]).unwrap().len(), BOOK.len());
        assert_eq!(of(&["pause", "leader-kill"]).unwrap()[1].name, "leader-kill");
        let unknown = format!("{:#}", of(&["leader-kil"]).unwrap_err());
        assert!(unknown.contains("leader-kil") && unknown.contains("power-loss"), "{unknown}");
        let five = Settings::try_parse_from(["dtm-drill", "--nodes", "5"]).unwrap();
        let nodes = |name: &str| {
            let entry = BOOK.iter().find(|entry| entry.name == name).unwrap();
            five.sized(&Drill::parse(entry.text).unwrap()).cluster.nodes()
        };
        assert_eq!((nodes("pause"), nodes("site-loss")), (5, 7));
        let missing = format!("{:#}", of(&["no/such.toml"]).unwrap_err());
        assert!(missing.contains("no/such.toml"), "{missing}");
    }
}
