//! What `dtm serve` would refuse here, found without writing and all at once: `dtm config check`.
//!
//! ```text
//!  files named there, closed ▸ what is in certificates and keys ▸ data folder ▸ ports ▸ log filter
//! ```
//! Nobody owns state: everything is read and closed again. Where a node runs on the data folder its
//! ports are its own and are not tried.

use std::ffi::CString;
use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use dtm_doors::{keyring, telemetry};
use dtm_storage::keys;
use dtm_storage::log::{self, NodeLog};
use dtm_storage::vfs::{RealVfs, Vfs};
use dtm_types::text::Told;

use crate::belonging;
use crate::config::{Config, Problem, check_files};
use crate::pki::Genesis;
use crate::runtime::log_identity;
use crate::tls::{self, Fault};

/// Every problem of a configuration that reads; empty where the node would start.
pub fn problems(path: &Path, config: &Config, now_us: i64) -> Vec<Problem> {
    let mut problems = check_files(path, config).err().map(|error| error.0).unwrap_or_default();
    let refused: Vec<String> = problems.iter().map(|problem| problem.key.clone()).collect();
    let is_refused = |key: &str| refused.iter().any(|known| known == key);
    let mut faults = tls::examine(&config.tls, now_us, is_refused);
    let folder = data_folder(config);
    if folder.is_empty() {
        let reads = faults.is_empty() && refused.is_empty();
        let mut mixed = None;
        match keyring::look(config) {
            Ok(keyring) if reads => mixed = belonging::check(config, &keyring).err(),
            Err(error) if !is_refused("keys.master_key_file") => faults.push(keys(config, error)),
            _ => {}
        }
        match mixed {
            Some(error) => faults.push(error.fault()),
            None => faults.extend(owner(config)),
        }
    }
    faults.extend(folder);
    faults.extend(ports(config));
    if !telemetry::is_filter(&config.telemetry.log) {
        let what = Told::new("check.filter").with("found", &config.telemetry.log);
        faults.push(("telemetry.log", what, Told::new("check.remedy.filter")));
    }
    let place = path.display().to_string();
    problems.extend(faults.into_iter().map(|(key, what, remedy)| Problem {
        place: place.clone(),
        key: key.into(),
        what,
        remedy,
    }));
    problems
}

/// The folder is there, open to this user, and has room.
fn data_folder(config: &Config) -> Vec<Fault> {
    let data = &config.node.data;
    let told = |key| Told::new(key).with("folder", data.display());
    let fault = |what, remedy| vec![("node.data", what, Told::new(remedy))];
    match fs::metadata(data) {
        Err(error) => {
            let what = told("check.no_folder").with("what", error);
            return fault(what, "check.remedy.make_folder");
        }
        Ok(found) if !found.is_dir() => {
            return fault(told("check.not_a_folder"), "config.remedy.correct_path");
        }
        Ok(_) => {}
    }
    if !is_writable(data) {
        return fault(told("check.not_writable"), "check.remedy.owner");
    }
    match Vfs::free_bytes(&RealVfs, data) {
        Ok(free) if free <= config.limits.disk_reserved_bytes => {
            let what = told("check.no_room").with("free", free >> 20);
            let what = what.with("reserved", config.limits.disk_reserved_bytes >> 20);
            fault(what, "check.remedy.room")
        }
        Ok(_) => Vec::new(),
        Err(error) => {
            fault(told("check.no_folder").with("what", error), "check.remedy.make_folder")
        }
    }
}

/// Asks the system, which knows rights, lists of rights and file systems mounted read-only.
fn is_writable(folder: &Path) -> bool {
    let Ok(name) = CString::new(folder.as_os_str().as_bytes()) else { return false };
    // SAFETY: the name ends with a zero byte and outlives the call, which only reads it.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::access(name.as_ptr(), libc::R_OK | libc::W_OK | libc::X_OK) };
    answer == 0
}

/// Why the keyring does not open.
fn keys(config: &Config, error: keys::Error) -> Fault {
    let (key, remedy) = match &error {
        keys::Error::Missing { .. } | keys::Error::Damaged { .. } | keys::Error::Version { .. } => {
            ("node.data", "check.remedy.keyring")
        }
        _ => ("keys.master_key_file", "check.remedy.master"),
    };
    let told = match error {
        keys::Error::Missing { path } => Told::new("check.no_keyring").with("file", path.display()),
        keys::Error::WrongMaster { path, .. } => Told::new("check.wrong_master")
            .with("file", config.keys.master_key_file.display())
            .with("keyring", path.display()),
        keys::Error::MasterMalformed { path } => {
            Told::new("check.no_master").with("file", path.display())
        }
        other => Told::new("check.unusable").with("what", other),
    };
    (key, told, Told::new(remedy))
}

/// The data is of the node that the certificate names.
fn owner(config: &Config) -> Option<Fault> {
    let (cluster, node) = tls::named_node(&config.tls.certificate)?;
    let data = &config.node.data;
    let told = |key| Told::new(key).with("folder", data.display());
    let other = |what: Told| Some(("node.data", what, Told::new("check.remedy.data")));
    if let Err(error) = Genesis::read(data) {
        return other(Told::new("check.unusable").with("what", error));
    }
    let id = log_identity(cluster, node);
    match NodeLog::check_owner(&RealVfs, &data.join("log"), id) {
        Err(log::Error::Foreign { .. }) => other(told("check.other_data")),
        Err(error) => other(Told::new("check.unusable").with("what", error)),
        Ok(()) => None,
    }
}

/// No port stands twice, and each can be opened.
fn ports(config: &Config) -> Vec<Fault> {
    let node = &config.node;
    let all = [("node.https", node.https), ("node.grpc", node.grpc), ("node.peers", node.peers)];
    let mut faults = Vec::new();
    for (n, (key, address)) in all.iter().enumerate() {
        if let Some((first, _)) = all[..n].iter().find(|(_, other)| is_same(*other, *address)) {
            let what = Told::new("check.port_twice").with("port", address.port());
            let what = what.with("first", first);
            faults.push((*key, what, Told::new("check.remedy.port_twice")));
        } else if !is_running(&node.data)
            && let Err(error) = TcpListener::bind(address)
        {
            faults.push(taken(key, *address, &error));
        }
    }
    for (key, text) in
        [("node.sites", &node.sites), ("sites.second_listen", &config.sites.second_listen)]
    {
        // What does not parse is empty: the configuration was checked.
        if let Ok(address) = text.parse()
            && !is_running(&node.data)
            && let Err(error) = UdpSocket::bind(address)
        {
            faults.push(taken(key, address, &error));
        }
    }
    faults
}

fn taken(key: &'static str, address: SocketAddr, error: &std::io::Error) -> Fault {
    let what = Told::new("check.port").with("address", address).with("what", error);
    let remedy = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "check.remedy.port_right",
        std::io::ErrorKind::AddrNotAvailable => "check.remedy.address",
        _ => "check.remedy.port",
    };
    (key, what, Told::new(remedy))
}

/// Port 0 is another one each time.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let one_address = one.ip() == other.ip();
    let overlap = one_address || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && overlap
}

/// Whether a node holds the folder now. Its lock is never made here.
fn is_running(data: &Path) -> bool {
    let lock = data.join("log/LOCK");
    let taken = || RealVfs.lock(&lock).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    lock.exists() && taken()
}

#[cfg(test)]
#[path = "precheck_test.rs"]
mod tests;
