//! Checks between values, and of the files that they name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Config, Error, Problem};

/// What the log entry of a largest record holds besides it. An entry is at most a quarter of a segment.
const BATCH_SLACK_BYTES: u64 = 1 << 20;

/// A set value must fit the others.
pub(super) fn check_values(path: &Path, config: &Config, problems: &mut Vec<Problem>) {
    let (limits, raft) = (&config.limits, &config.raft);
    let mut need = |holds: bool, key: &str, what: String, remedy: &str| {
        if !holds {
            let place = path.display().to_string();
            problems.push(Problem { place, key: key.into(), what, remedy: remedy.into() });
        }
    };
    need(
        limits.frame_bytes_max > limits.record_bytes_max,
        "limits.frame_bytes_max",
        format!(
            "a frame of {} bytes cannot carry a record of {}",
            limits.frame_bytes_max, limits.record_bytes_max
        ),
        "raise it above record_bytes_max",
    );
    need(
        limits.node_in_flight_bytes_max >= limits.frame_bytes_max,
        "limits.node_in_flight_bytes_max",
        "is below the largest frame".into(),
        "raise it to at least frame_bytes_max",
    );
    need(
        raft.election_min_ms >= 3 * raft.heartbeat_ms,
        "raft.election_min_ms",
        format!(
            "{} ms is less than three heartbeats of {} ms",
            raft.election_min_ms, raft.heartbeat_ms
        ),
        "raise it, or lower heartbeat_ms",
    );
    need(
        raft.election_max_ms > raft.election_min_ms,
        "raft.election_max_ms",
        "is not above election_min_ms".into(),
        "elections need a spread: use twice election_min_ms",
    );
    need(
        config.log.segment_bytes / 4 > limits.record_bytes_max + BATCH_SLACK_BYTES,
        "log.segment_bytes",
        format!(
            "a segment of {} bytes does not hold a record of {}",
            config.log.segment_bytes, limits.record_bytes_max
        ),
        "raise it above four times record_bytes_max and 4 MiB more",
    );
}

/// What to do where a file is not there. Nothing can make a master key a second time.
fn lost_file(key: &str) -> &'static str {
    if key == "keys.master_key_file" {
        "put it back from the safe or correct the path; without it the keyring cannot be opened"
    } else {
        "put the file back or correct the path; dtm cluster init and dtm cluster join make it"
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
        let (what, remedy) = match fs::metadata(file) {
            Err(error) => {
                (format!("{} cannot be read ({error})", file.display()), lost_file(key).to_owned())
            }
            Ok(data) if !data.is_file() => {
                (format!("{} is not a file", file.display()), "correct the path".to_owned())
            }
            Ok(data) if is_secret && data.permissions().mode() & 0o077 != 0 => (
                format!(
                    "{} has mode {:04o}, open to others",
                    file.display(),
                    data.permissions().mode() & 0o7777
                ),
                format!("run chmod 600 {}", file.display()),
            ),
            Ok(_) => continue,
        };
        problems.push(Problem { place: path.display().to_string(), key: key.into(), what, remedy });
    }
    if problems.is_empty() { Ok(()) } else { Err(Error(problems)) }
}
