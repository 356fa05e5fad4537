//! Checks between values, and of the files that they name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dtm_types::text::Told;

use super::read::Source;
use super::{Config, Error, Problem, is_host};

/// A set value must fit the others.
pub(super) fn check_values(config: &Config, source: &mut Source<'_>) {
    let (limits, raft) = (&config.limits, &config.raft);
    if let Some(name) = config.node.advertise.iter().find(|name| !is_host(name)) {
        let what = Told::new("config.host").with("name", format!("{name:?}"));
        source.unfit(&["node.advertise"], what, "config.remedy.host");
    }
    let mut need = |holds: bool, keys: &[&str], what: Told, remedy: &'static str| {
        if !holds {
            source.unfit(keys, what, remedy);
        }
    };
    need(
        limits.frame_bytes_max > limits.record_bytes_max,
        &["limits.frame_bytes_max", "limits.record_bytes_max"],
        Told::new("config.frame")
            .with("frame", limits.frame_bytes_max)
            .with("record", limits.record_bytes_max),
        "config.remedy.frame",
    );
    need(
        limits.node_in_flight_bytes_max >= limits.frame_bytes_max,
        &["limits.node_in_flight_bytes_max", "limits.frame_bytes_max"],
        Told::new("config.in_flight"),
        "config.remedy.in_flight",
    );
    need(
        raft.election_min_ms >= 3 * raft.heartbeat_ms,
        &["raft.election_min_ms", "raft.heartbeat_ms"],
        Told::new("config.election_min")
            .with("election", raft.election_min_ms)
            .with("heartbeat", raft.heartbeat_ms),
        "config.remedy.election_min",
    );
    need(
        raft.election_max_ms > raft.election_min_ms,
        &["raft.election_max_ms", "raft.election_min_ms"],
        Told::new("config.election_max"),
        "config.remedy.election_max",
    );
}

/// What to do where a file is not there. Nothing can make a master key a second time.
fn lost_file(key: &str) -> &'static str {
    if key == "keys.master_key_file" {
        "config.remedy.put_master_key"
    } else {
        "config.remedy.put_file"
    }
}

/// Checks that the files a node needs are there and closed to others. Reads no secret.
///
/// # Errors
/// Every problem found.
pub fn check_files(path: &Path, config: &Config) -> Result<(), Error> {
    let files = [
        ("tls.certificate", &config.tls.certificate, false),
        ("tls.key", &config.tls.key, true),
        ("tls.ca", &config.tls.ca, false),
        ("keys.master_key_file", &config.keys.master_key_file, true),
    ];
    let mut problems = Vec::new();
    for (key, file, is_secret) in files {
        let told = |key| Told::new(key).with("file", file.display());
        let (what, remedy) = match fs::metadata(file) {
            Err(error) => {
                (told("config.file_unreadable").with("what", error), Told::new(lost_file(key)))
            }
            Ok(data) if !data.is_file() => {
                (told("config.no_file"), Told::new("config.remedy.correct_path"))
            }
            Ok(data) if is_secret && data.permissions().mode() & 0o077 != 0 => (
                told("config.file_open")
                    .with("mode", format!("{:04o}", data.permissions().mode() & 0o7777)),
                told("config.remedy.close_file"),
            ),
            Ok(_) => continue,
        };
        problems.push(Problem { place: path.display().to_string(), key: key.into(), what, remedy });
    }
    if problems.is_empty() { Ok(()) } else { Err(Error(problems)) }
}
