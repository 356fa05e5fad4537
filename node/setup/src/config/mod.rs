//! The node's configuration: one TOML file, environment overrides, and what the cluster sets.
//!
//! `keys` is the one table of keys, with whose each is; the typed structs, the reader, the checks
//! and `docs/config.md` all come from it. What the cluster sets lives in the meta group; here it is
//! one of the sources that are read, by the same code. Secrets are named by file only, so a
//! configuration can always be shown. What is read is a value: nobody owns state here.
//!
//! Order of precedence: the cluster's settings, for keys that are the cluster's;
//! `DTM__SECTION__KEY` in the environment, the file, the default. Every problem of a file is
//! reported in one go, each with its place and what to do; the process then ends with exit code 78
//! and has written nothing.

mod base;
mod check;
mod docs;
mod keys;
mod read;
mod value;

pub use base::keep;
pub use base::{Base, Loaded, load};
pub use check::check_files;
pub use check::second_peer;
pub use docs::markdown;
pub use keys::{
    Config, KEYS, Key, Keys, Limits, Log, Node, Raft, Scope, Sites, State, Telemetry, Tls,
};
pub use read::{Origin, Resolved, known, nearest_key, of_cluster, parse};
pub use value::Value;

use std::fmt;

use dtm_types::text::{Lang, Told};

/// `host:port`, with brackets around an IPv6 address.
pub fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether others can reach a node under this: an IP address or a host name, without a port.
pub fn is_host(name: &str) -> bool {
    use rustls::pki_types::ServerName;
    matches!(ServerName::try_from(name), Ok(ServerName::DnsName(_) | ServerName::IpAddress(_)))
}

/// Exit code of a process whose configuration does not hold (EX_CONFIG).
pub const EXIT_CONFIG: u8 = 78;

/// One thing that is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `FILE:LINE`, or the environment variable.
    pub place: String,
    /// `section.key`, where it is about one.
    pub key: String,
    /// What is wrong.
    pub what: Told,
    /// What to do.
    pub remedy: Told,
}

impl Problem {
    /// The problem in the user's language.
    pub fn tell(&self, lang: Lang) -> String {
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        format!("{}: {key}{}; {}", self.place, self.what.of(lang), self.remedy.of(lang))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tell(Lang::En))
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.tell(Lang::En))]
pub struct Error(pub Vec<Problem>);

impl Error {
    /// Every problem in the user's language, a line each.
    pub fn tell(&self, lang: Lang) -> String {
        self.0.iter().map(|problem| problem.tell(lang)).collect::<Vec<_>>().join("\n")
    }
}
