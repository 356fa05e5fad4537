//! Checks between values, and of the files that they name.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dtm_types::NodeId;
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
    check_sites(config, &mut need);
}

fn check_sites(config: &Config, need: &mut impl FnMut(bool, &[&str], Told, &'static str)) {
    let (listen, sites) = (&config.node.sites, &config.sites);
    let is_address = |text: &str| text.is_empty() || text.parse::<SocketAddr>().is_ok();
    for (key, address) in [("node.sites", listen), ("sites.second_listen", &sites.second_listen)] {
        let what = Told::new("config.sites_address");
        need(is_address(address), &[key], what, "config.remedy.sites_address");
    }
    let choices = [
        ("sites.congestion", &sites.congestion, &["bbr", "cubic"][..]),
        ("sites.standby", &sites.standby, &["at-once", "automatic", "confirmed"]),
        ("sites.second_kind", &sites.second_kind, &["quic", "tcp"]),
    ];
    for (key, chosen, choices) in choices {
        let what = Told::new("config.choice").with("choices", choices.join(", "));
        need(choices.contains(&chosen.as_str()), &[key], what, "config.remedy.choice");
    }
    need(
        sites.line_window_bytes >= 4 * sites.lane_window_bytes,
        &["sites.line_window_bytes", "sites.lane_window_bytes"],
        Told::new("config.line_window"),
        "config.remedy.line_window",
    );
    let is_named = !sites.second_certificate.as_os_str().is_empty()
        && !sites.second_key.as_os_str().is_empty()
        && !listen.is_empty();
    need(
        sites.second_listen.is_empty() || is_named,
        &["sites.second_listen"],
        Told::new("config.second_channel"),
        "config.remedy.second_channel",
    );
    let is_apart = match (listen.parse::<SocketAddr>(), sites.second_listen.parse::<SocketAddr>()) {
        (Ok(first), Ok(second)) => {
            let is_own = |address: &SocketAddr| !address.ip().is_unspecified();
            let addresses = first.ip() != second.ip() && is_own(&first) && is_own(&second);
            addresses && config.tls.key != sites.second_key
        }
        _ => true,
    };
    need(
        is_apart,
        &["sites.second_listen"],
        Told::new("config.second_shares"),
        "config.remedy.second_shares",
    );
    need(
        sites.second_peers.iter().all(|text| second_peer(text).is_some()),
        &["sites.second_peers"],
        Told::new("config.second_peers"),
        "config.remedy.second_peers",
    );
}

/// `NODE-ID=HOST:PORT`.
pub fn second_peer(text: &str) -> Option<(NodeId, &str)> {
    let (node, remote) = text.split_once('=')?;
    let (host, port) = remote.rsplit_once(':')?;
    let is_remote = !host.is_empty() && port.parse::<u16>().is_ok();
    let node = uuid::Uuid::parse_str(node.trim()).ok()?;
    is_remote.then_some((NodeId(*node.as_bytes()), remote))
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
