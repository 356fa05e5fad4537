//! `dtm doctor`: is this machine fit to run a node?
//!
//! Each check looks at one thing and says what it found, whether that is well, and what to do.
//! It changes nothing but a scratch file in the data folder, which it removes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use dtm_ctl::Failure;
use dtm_identity::Certificate;
use dtm_proto::admin::{ClusterStatusResponse, NodeStatus};
use dtm_storage::vfs::{RealVfs, Vfs};
use dtm_types::DAY_US;
use dtm_types::text::{Lang, Told, render};

use crate::config::Config;
use crate::pki;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Well.
    Ok,
    /// Works, but look at it.
    Warning,
    /// A node will not run well, or not at all.
    Bad,
}

/// What to do about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing: all is well.
    None,
    /// `doctor.remedy.KEY` in the catalogue of texts.
    Key(&'static str),
    /// As the configuration's check says it.
    Told(Told),
}

impl Remedy {
    /// In words; empty where there is nothing to do.
    pub fn text(&self, lang: Lang) -> String {
        match self {
            Self::None => String::new(),
            Self::Key(key) => render(lang, &format!("doctor.remedy.{key}"), &[]),
            Self::Told(told) => told.of(lang),
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was looked at; `doctor.CHECK` in the catalogue of texts.
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found, `doctor.found.*`.
    pub found: Told,
    /// What to do.
    pub remedy: Remedy,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, found: Told, remedy: &'static str) -> Self {
        let remedy = if verdict == Verdict::Ok { Remedy::None } else { Remedy::Key(remedy) };
        Self { check, verdict, found, remedy }
    }
}

/// Writes of the disk check.
const SYNC_ROUNDS: usize = 32;
/// A median fdatasync above this is slow.
const SYNC_SLOW_US: u128 = 10_000;
/// Above this every acknowledgement suffers.
const SYNC_BAD_US: u128 = 100_000;
/// Files a node may need: segments, SSTs, connections.
const OPEN_FILES_WANTED: u64 = 16_384;
/// Certificates closer to their end than this are to be renewed.
const RENEW_DAYS: i64 = 30;

/// Runs every check. `config` is `None` where there is no configuration that holds; then only
/// the machine is looked at.
pub fn examine(config: Option<&Config>, now_us: i64) -> Vec<Finding> {
    let mut findings = vec![
        Finding::new("version", Verdict::Ok, as_is(concat!("dtm ", env!("CARGO_PKG_VERSION"))), ""),
        clock(now_us),
        clock_discipline(),
        open_files(),
    ];
    match config {
        None => {
            let found = Told::new("doctor.found.none");
            findings.push(Finding::new("config", Verdict::Warning, found, "name_config"));
        }
        Some(config) => {
            findings.push(disk_sync(&config.node.data));
            findings.push(disk_space(&config.node.data, config.limits.disk_reserved_bytes));
            findings.push(certificate("certificate", &config.tls.certificate, now_us));
            findings.push(certificate("ca", &config.tls.ca, now_us));
            findings.extend(
                crate::config::check_files(Path::new("doctor"), config).err().into_iter().flat_map(
                    |e| {
                        e.0.into_iter().map(|p| Finding {
                            check: "files",
                            verdict: Verdict::Bad,
                            found: Told::new("doctor.found.file")
                                .with("name", p.key)
                                .with_told("what", p.what),
                            remedy: Remedy::Told(p.remedy),
                        })
                    },
                ),
            );
        }
    }
    findings
}

/// What the nodes of the cluster run, as one of them says: a cluster runs two releases only while it
/// is upgraded.
///
/// `now_us`: by what the ends of their certificates are judged.
pub fn nodes(
    asked: Result<ClusterStatusResponse, Failure>,
    lang: Lang,
    now_us: i64,
) -> Vec<Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let status = match asked {
        Ok(status) => status,
        Err(Failure::Usage { key: "cli.no_context" | "cli.no_current_context", .. }) => {
            let found = Told::new("doctor.found.not_asked");
            return vec![Finding::new("nodes", Verdict::Ok, found, "")];
        }
        Err(failure) => {
            let found = as_is(failure.tell(lang));
            return vec![Finding::new("nodes", Verdict::Warning, found, "reach_cluster")];
        }
    };
    let told = |mut node: NodeStatus| {
        let row = node.node.take().unwrap_or_default();
        let (name, software, max) = (&row.name, &row.software_version, row.version_max);
        let found = Told::new("doctor.found.node").with("name", name).with("software", software);
        let found = found.with("version", max);
        let (verdict, found, remedy) = if !node.reachable {
            let found = Told::new("doctor.found.node_silent").with_told("node", found);
            (Verdict::Warning, found, "start_node")
        } else if node.clock_astray {
            let found = Told::new("doctor.found.node_clock").with_told("node", found);
            let found = found.with("offset", node.clock_offset_us / 1_000);
            (Verdict::Warning, found, "set_clock")
        } else if let Some(days) = ends_soon(&node, now_us) {
            let found = Told::new("doctor.found.node_certificate").with_told("node", found);
            (Verdict::Warning, found.with("days", days), "renew_node")
        } else if !node.settings_unknown.is_empty() {
            let keys = node.settings_unknown.join(" ");
            let found = Told::new("doctor.found.node_settings").with_told("node", found);
            (Verdict::Warning, found.with("keys", keys), "take_settings")
        } else if *software != own {
            (Verdict::Warning, found, "same_release")
        } else {
            (Verdict::Ok, found, "")
        };
        Finding::new("nodes", verdict, found, remedy)
    };
    let sites = sites(&status);
    status.nodes.into_iter().map(told).chain(sites).collect()
}

/// Days that a node's certificate has left, where it is to be renewed.
fn ends_soon(node: &NodeStatus, now_us: i64) -> Option<i64> {
    let days = (node.certificate_not_after_us - now_us).div_euclid(DAY_US);
    (node.certificate_not_after_us != 0 && days < RENEW_DAYS).then_some(days)
}

/// How far replicas at other sites are behind, as the leaders of their groups say; nothing where all
/// are at one site.
fn sites(status: &ClusterStatusResponse) -> Vec<Finding> {
    let spread = status.groups.iter().filter(|group| !group.lags.is_empty()).count();
    let mut late: BTreeMap<&str, (BTreeSet<u32>, u64)> = BTreeMap::new();
    for (group, lag) in status.groups.iter().flat_map(|g| g.lags.iter().map(|l| (g.group, l))) {
        if lag.late {
            let (groups, most_ms) = late.entry(&lag.site).or_default();
            groups.insert(group);
            *most_ms = lag.lag_ms.max(*most_ms);
        }
    }
    if spread > 0 && late.is_empty() {
        let found = Told::new("doctor.found.sites_level").with("count", spread);
        return vec![Finding::new("sites", Verdict::Ok, found, "")];
    }
    let told = late.into_iter().map(|(site, (groups, most_ms))| {
        let found = Told::new("doctor.found.site_lags").with("site", site);
        let found = found.with("count", groups.len()).with("seconds", most_ms / 1_000);
        Finding::new("sites", Verdict::Warning, found, "site_lag")
    });
    told.collect()
}

/// What is the same in every language, or was told in the reader's already.
fn as_is(what: impl ToString) -> Told {
    Told::new("check.unusable").with("what", what)
}

/// A clock before this build was made is wrong.
fn clock(now_us: i64) -> Finding {
    const BUILT_AFTER_US: i64 = 1_788_000_000_000_000;
    let verdict = if now_us >= BUILT_AFTER_US { Verdict::Ok } else { Verdict::Bad };
    Finding::new("clock", verdict, as_is(dtm_ctl::time(now_us)), "set_clock")
}

/// Whether the kernel's clock is disciplined by somebody (adjtimex).
fn clock_discipline() -> Finding {
    // SAFETY: all zero is a valid timex; with modes 0 the call only reads the clock's state into it.
    #[allow(unsafe_code)]
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    disciplined(state, timex.status, timex.maxerror)
}

/// By what adjtimex gave back: its result, the status bits, the largest error in microseconds.
fn disciplined(state: i32, status: i32, error_us_max: libc::c_long) -> Finding {
    let synchronised = state >= 0 && status & libc::STA_UNSYNC == 0;
    let found = if synchronised {
        Told::new("doctor.found.synchronised").with("error", error_us_max)
    } else {
        Told::new("doctor.found.not_synchronised")
    };
    let verdict = if synchronised { Verdict::Ok } else { Verdict::Warning };
    Finding::new("clock_discipline", verdict, found, "run_chrony")
}

fn open_files() -> Finding {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    #[allow(unsafe_code)]
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    files_allowed((read == 0).then_some((limit.rlim_cur, limit.rlim_max)))
}

/// By the limit in force, which a node has to do with, and how far it could be raised, where the
/// system said them.
fn files_allowed(limits: Option<(u64, u64)>) -> Finding {
    let (verdict, found) = match limits {
        Some((now, max)) => {
            let verdict = if now >= OPEN_FILES_WANTED { Verdict::Ok } else { Verdict::Warning };
            (verdict, Told::new("doctor.found.open_files").with("now", now).with("most", max))
        }
        None => (Verdict::Warning, Told::new("doctor.found.unknown")),
    };
    Finding::new("open_files", verdict, found, "raise_files")
}

fn disk_sync(folder: &Path) -> Finding {
    let remedy = "better_disk";
    match sync_times(folder) {
        Err(error) => Finding::new("disk_sync", Verdict::Bad, failed(folder, &error), "writable"),
        Ok(mut times) => {
            times.sort_unstable();
            let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
            let verdict = match median {
                0..=SYNC_SLOW_US => Verdict::Ok,
                _ if median <= SYNC_BAD_US => Verdict::Warning,
                _ => Verdict::Bad,
            };
            let found = Told::new("doctor.found.sync").with("median", median);
            Finding::new("disk_sync", verdict, found.with("worst", worst), remedy)
        }
    }
}

/// What the system said of a folder.
fn failed(folder: &Path, error: &dyn std::fmt::Display) -> Told {
    Told::new("doctor.found.file").with("name", folder.display()).with("what", error)
}

/// Microseconds of each fdatasync after a 4 KiB write.
#[expect(clippy::disallowed_methods, reason = "only measures")]
fn sync_times(folder: &Path) -> io::Result<Vec<u128>> {
    let path = folder.join(format!("doctor-{}.tmp", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let measured = (|| {
        let mut times = Vec::with_capacity(SYNC_ROUNDS);
        for _ in 0..SYNC_ROUNDS {
            file.write_all(&[0x5a; 4096])?;
            let start = Instant::now();
            file.sync_data()?;
            times.push(start.elapsed().as_micros());
        }
        Ok(times)
    })();
    fs::remove_file(&path)?;
    measured
}

fn disk_space(folder: &Path, reserved: u64) -> Finding {
    let remedy = "free_space";
    match Vfs::free_bytes(&RealVfs, folder) {
        Err(error) => {
            Finding::new("disk_space", Verdict::Bad, failed(folder, &error), "make_folder")
        }
        Ok(free) => {
            let verdict = match free {
                _ if free <= reserved => Verdict::Bad,
                _ if free / 8 <= reserved => Verdict::Warning,
                _ => Verdict::Ok,
            };
            let found = Told::new("doctor.found.space").with("free", free >> 20);
            Finding::new("disk_space", verdict, found.with("reserved", reserved >> 20), remedy)
        }
    }
}

fn certificate(check: &'static str, path: &Path, now_us: i64) -> Finding {
    let remedy = "renew";
    let end =
        pki::read_certificates(path).map_err(|e| e.to_string()).and_then(|chain| end_us(&chain[0]));
    match end {
        Err(error) => Finding::new(check, Verdict::Bad, as_is(error), "config_check"),
        Ok(end_us) => {
            let days = (end_us - now_us).div_euclid(DAY_US);
            let verdict = match days {
                ..0 => Verdict::Bad,
                0..RENEW_DAYS => Verdict::Warning,
                _ => Verdict::Ok,
            };
            let found = Told::new("doctor.found.days").with("days", days);
            Finding::new(check, verdict, found.with("file", path.display()), remedy)
        }
    }
}

fn end_us(der: &[u8]) -> Result<i64, String> {
    match Certificate::parse(der) {
        Ok(own) => Ok(own.not_after_us),
        Err(_) => x509_parser::parse_x509_certificate(der)
            .map(|(_, root)| root.validity().not_after.timestamp().saturating_mul(1_000_000))
            .map_err(|_| "not a certificate".into()),
    }
}

#[cfg(test)]
#[path = "doctor_test.rs"]
mod tests;
