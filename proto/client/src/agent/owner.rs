//! What a spool is for. Its records have no name of their own: they go where the agent that finds
//! them sends, and its marks speak of the files of one folder. So this is noted beside them before
//! the first is taken, and an agent that is for something else is refused.

use super::{AgentConfig, Error, Input};
use crate::Spool;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Name of the note in the spool's folder.
const FILE: &str = "owner";

/// The note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// What the caller knows the cluster by; `None` = it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    source: String,
    dataset: String,
    /// First part of the stream's name.
    stream: String,
    /// The folder that is watched, or `-`.
    input: String,
}

impl Owner {
    /// Of an agent.
    ///
    /// # Errors
    /// [`Error::Folder`] where the folder is not there.
    pub(super) fn of(config: &AgentConfig, input: &Input) -> Result<Self, Error> {
        let input = match input {
            Input::Reader(_) => "-".to_owned(),
            Input::Folder(folder) => {
                let found = std::fs::canonicalize(folder).map_err(|error| Error::Folder {
                    folder: folder.display().to_string(),
                    reason: error.to_string(),
                })?;
                found.display().to_string()
            }
        };
        let publisher = &config.publisher;
        Ok(Self {
            cluster: config.cluster.clone(),
            source: publisher.source.clone(),
            dataset: publisher.dataset.clone(),
            stream: publisher.stream.clone(),
            input,
        })
    }

    /// Holds it against the note of a spool; a spool without one, new or of an earlier version,
    /// takes this one, on disk on return.
    ///
    /// # Errors
    /// [`Error::OtherOwner`], [`Error::Spool`].
    pub(super) fn claim(&self, spool: &Spool, folder: &Path) -> Result<(), Error> {
        let Some(bytes) = spool.note(FILE)? else {
            return Ok(spool.write_note(FILE, &self.write())?);
        };
        let noted: Self = serde_json::from_slice(&bytes).map_err(|_| {
            let path = folder.join(FILE).display().to_string();
            crate::spool::Error::Damaged { path, offset: 0, what: "not a note of what it is for" }
        })?;
        let Some((what, noted, given)) = self.differs(&noted) else { return Ok(()) };
        let spool = folder.display().to_string();
        Err(Error::OtherOwner { spool, what, noted, given })
    }

    fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts always have a JSON form")
    }

    /// The first thing in which a note says otherwise, what it says, and what was asked for.
    fn differs(&self, noted: &Self) -> Option<(&'static str, String, String)> {
        // A caller that does not name its cluster cannot be held to one.
        let both = self.cluster.as_ref().zip(noted.cluster.as_ref());
        let (cluster, noted_cluster) = both.unwrap_or((&self.source, &self.source));
        [
            ("cluster", noted_cluster, cluster),
            ("source", &noted.source, &self.source),
            ("dataset", &noted.dataset, &self.dataset),
            ("stream", &noted.stream, &self.stream),
            ("input", &noted.input, &self.input),
        ]
        .into_iter()
        .find(|(_, noted, given)| noted != given)
        .map(|(what, noted, given)| (what, noted.clone(), given.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SpoolConfig;

    #[test]
    fn a_spool_stays_with_whom_it_was_made_for() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = scratch.path().join("spool");
        let inbox = |name: &str| {
            let path = scratch.path().join(name);
            std::fs::create_dir_all(&path).expect("made");
            Input::Folder(path)
        };
        let mut config = AgentConfig::new("tinh-01", "payment", &folder);
        let claim = |config: &AgentConfig, input: &Input| {
            let spool = Spool::open(SpoolConfig::new(&folder)).expect("opens");
            Owner::of(config, input).expect("a folder").claim(&spool, &folder)
        };
        claim(&config, &inbox("a")).expect("the first one, which knows no cluster");
        config.cluster = Some("c1".to_owned());
        claim(&config, &inbox("a")).expect("the same one");
        let refused = |config: &AgentConfig, input: &Input| match claim(config, input) {
            Err(Error::OtherOwner { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&config, &inbox("b")), "input");
        assert_eq!(refused(&config, &Input::Reader(Box::new(std::io::empty()))), "input");
        for (what, change) in [
            ("source", (|c| c.publisher.source = "x".into()) as fn(&mut AgentConfig)),
            ("dataset", |c| c.publisher.dataset = "x".into()),
            ("stream", |c| c.publisher.stream = "x".into()),
        ] {
            let mut other = config.clone();
            change(&mut other);
            assert_eq!(refused(&other, &inbox("a")), what);
        }
        // Of an earlier version, or made anew by hand: the first one has it.
        std::fs::remove_file(folder.join(FILE)).expect("removed");
        claim(&config, &inbox("b")).expect("the first one");
        config.cluster = Some("c2".to_owned());
        assert_eq!(refused(&config, &inbox("b")), "cluster");
        assert!(matches!(
            Owner::of(&config, &Input::Folder(scratch.path().join("none"))),
            Err(Error::Folder { .. })
        ));
    }

    #[test]
    fn the_note_reads_for_ever() {
        let kept = br#"{"cluster":"0a","source":"tinh-01","dataset":"payment","stream":"agent","input":"/in"}"#;
        let owner: Owner = serde_json::from_slice(kept).expect("reads");
        assert_eq!(owner.write(), kept);
    }
}
