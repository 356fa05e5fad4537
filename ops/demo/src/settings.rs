//! What the demo is told.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use dtm_types::text::Lang;

/// Three real nodes, every province, a kill in the middle, read back and count.
#[derive(Clone, Debug, Parser)]
#[command(name = "dtm-demo", version)]
pub(crate) struct Settings {
    /// The `dtm` binary; default: beside this one.
    #[arg(long, env = "DTM_BIN")]
    dtm: Option<PathBuf>,
    /// Scratch folder: new, empty, or of an earlier demo.
    #[arg(long, env = "DEMO_DIR", default_value = "target/demo")]
    pub(crate) folder: PathBuf,
    /// Stream for so many seconds, read back and end. Without it the cluster stays up.
    #[arg(long, env = "DEMO_SECONDS", value_parser = clap::value_parser!(u64).range(10..=3_600))]
    pub(crate) seconds: Option<u64>,
    /// Records a second, over all sources.
    #[arg(long, env = "DEMO_RATE", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=20_000))]
    pub(crate) rate: u64,
    /// Share of records that break their data contract, in thousandths.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=200))]
    pub(crate) broken_permille: u32,
    /// Language: vi or en.
    #[arg(long, env = "DTM_LANG", default_value = "vi", value_parser = parse_lang)]
    pub(crate) lang: Lang,
}

/// Streaming time where nothing is said, seconds.
const SECONDS: u64 = 60;

impl Settings {
    /// How long is streamed.
    pub(crate) fn streaming(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(SECONDS))
    }

    /// When the kill comes, after the start of streaming.
    pub(crate) fn kill_after(&self) -> Duration {
        self.streaming() * 2 / 5
    }

    /// How long the killed node stays away.
    pub(crate) fn away(&self) -> Duration {
        (self.streaming() / 5).min(Duration::from_secs(8))
    }

    /// The binary: as named, else beside this one.
    pub(crate) fn dtm(&self) -> Option<PathBuf> {
        let beside = || std::env::current_exe().ok()?.parent().map(|folder| folder.join("dtm"));
        let path = self.dtm.clone().or_else(beside)?;
        std::fs::canonicalize(path).ok().filter(|path| path.is_file())
    }
}

fn parse_lang(text: &str) -> Result<Lang, String> {
    Lang::parse(text).ok_or_else(|| "vi or en".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_kill_falls_into_the_middle() {
        Settings::command().debug_assert();
        for seconds in [10, 30, 3_600] {
            let given = seconds.to_string();
            let settings = Settings::parse_from(["dtm-demo", "--seconds", &given]);
            assert!(settings.kill_after() + settings.away() < settings.streaming());
        }
    }
}
