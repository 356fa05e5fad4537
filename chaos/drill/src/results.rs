//! The folder of results: each run's report, and what the newest run of each drill came to.
//!
//! ```text
//!  RESULTS/leader-kill/20261122-210501.json     the report; `dtm drill due` reads these
//!                                     .vi.md    the same for people
//!                                     .en.md
//!                                     .html     to print
//!  RESULTS/latest.json                          the newest run of each drill: value, gate, pass
//!  RESULTS/latest.vi.md, latest.en.md
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dtm_scenario::{Latest, LatestDrill, Report};
use dtm_types::text::Lang;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use crate::say;

/// A folder of results.
#[derive(Debug)]
pub(crate) struct Results(PathBuf);

impl Results {
    /// Makes the folder where it is not there.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder.to_owned()))
    }

    /// Writes a report; its path below the folder.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) fn keep(&self, report: &Report) -> Result<String> {
        fs::create_dir_all(self.0.join(&report.name))?;
        let stem = format!("{}/{}", report.name, stamp(report.began.0));
        for (ending, text) in [
            ("json", report.json() + "\n"),
            ("vi.md", report.markdown(Lang::Vi)),
            ("en.md", report.markdown(Lang::En)),
            ("html", report.html(say::lang())),
        ] {
            self.write(&format!("{stem}.{ending}"), &text)?;
        }
        Ok(format!("{stem}.json"))
    }

    /// Notes the newest run of a drill.
    ///
    /// # Errors
    /// What the operating system said; a `latest.json` that is something else.
    pub(crate) fn note(&self, drill: LatestDrill) -> Result<()> {
        let path = self.0.join("latest.json");
        let mut latest = match fs::read_to_string(&path) {
            Ok(text) => Latest::from_json(&text).with_context(|| path.display().to_string())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Latest::default(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        latest.put(drill);
        self.write("latest.json", &(latest.json() + "\n"))?;
        self.write("latest.vi.md", &latest.markdown(Lang::Vi))?;
        self.write("latest.en.md", &latest.markdown(Lang::En))
    }

    /// Whole or not at all.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        let next = path.with_extension("next");
        fs::write(&next, text)
            .and_then(|()| fs::rename(&next, &path))
            .with_context(|| path.display().to_string())
    }
}

/// A moment as a file name, Vietnam's time.
fn stamp(unix_ms: i64) -> String {
    let at = Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    let zone = TimeZone::fixed(Offset::constant(7));
    at.to_zoned(zone).strftime("%Y%m%d-%H%M%S").to_string()
}

#[cfg(test)]
mod tests {
    use dtm_scenario::{BOOK, Drill, UnixMs};

    use super::*;

    #[test]
    fn the_newest_run_of_each_drill_is_kept_beside_all_reports() {
        let home = tempfile::tempdir().unwrap();
        let results = Results::open(&home.path().join("a/b")).unwrap();
        let one = BOOK.iter().find(|entry| entry.name == "pause").unwrap();
        let one = Drill::parse(one.text).unwrap();
        for why in ["first", "second"] {
            results.note(LatestDrill::not_run(&one, UnixMs(0), why.to_owned())).unwrap();
        }
        let read = |name: &str| fs::read_to_string(home.path().join("a/b").join(name)).unwrap();
        let latest = Latest::from_json(&read("latest.json")).unwrap();
        assert_eq!(latest.drills.len(), 1);
        assert_eq!(latest.drills[0].not_run.as_deref(), Some("second"));
        assert!(
            read("latest.en.md").contains("second") && read("latest.vi.md").contains(&one.title.vi)
        );
        fs::write(home.path().join("a/b/latest.json"), "{").unwrap();
        let drill = LatestDrill::not_run(&one, UnixMs(0), String::new());
        let error = format!("{:#}", results.note(drill).unwrap_err());
        assert!(error.contains("latest.json"), "{error}");
        assert_eq!(stamp(1_763_800_000_000), "20251122-152640");
    }
}
