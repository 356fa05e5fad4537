//! `dtm serve`: the shell with its services.

use dtm_doors::{keyring, telemetry};
use dtm_storage::keys;
use dtm_types::text::{Lang, Told};
use futures::future::LocalBoxFuture;

use crate::config::{EXIT_CONFIG, Loaded};
pub use crate::runtime::Ended;
use crate::seams::Seams;
use crate::shell::{self, Shell};
use crate::{belonging, runtime, tls};

/// Why a node did not run to its planned end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Core files could not be switched off.
    #[error("core files cannot be switched off: {0}")]
    Core(std::io::Error),
    /// The process could not be set up.
    #[error(transparent)]
    Shell(#[from] shell::Error),
    /// The keyring cannot be opened.
    #[error(transparent)]
    Keyring(#[from] dtm_storage::keys::Error),
    /// Files of several nodes or clusters.
    #[error(transparent)]
    Belonging(#[from] belonging::Error),
    /// Data folder, groups or sessions.
    #[error(transparent)]
    Run(#[from] runtime::Error),
}

impl Error {
    /// What to tell whoever started the node.
    pub fn tell(&self, lang: Lang) -> String {
        match self {
            Self::Belonging(error) => error.told().of(lang),
            Self::Shell(shell::Error::Tls(tls::Error::Listen { address, source, .. })) => {
                Told::new("start.port").with("address", address).with("what", source).of(lang)
            }
            Self::Keyring(keys::Error::WrongMaster { path, master }) => {
                let told = Told::new("check.wrong_master").with("file", master);
                let remedy = Told::new("check.remedy.master").of(lang);
                format!("{}; {remedy}", told.with("keyring", path.display()).of(lang))
            }
            other => other.to_string(),
        }
    }

    /// The process's exit code: what an operator must mend in files is 78.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Keyring(_)
            | Self::Belonging(_)
            | Self::Shell(shell::Error::Tls(tls::Error::File(_) | tls::Error::Unusable { .. }))
            | Self::Shell(shell::Error::Telemetry(_)) => EXIT_CONFIG,
            Self::Run(error) => error.exit(),
            Self::Core(_) | Self::Shell(_) => 1,
        }
    }
}

/// Runs a node until it is told to stop, or is to be started again.
///
/// # Errors
/// [`Error`]; nothing was written where its exit code is 78.
pub fn run(loaded: Loaded) -> LocalBoxFuture<'static, Result<Ended, Error>> {
    run_with(loaded, Seams::default())
}

/// Runs a node with parts replaced: for measuring and for tests only.
///
/// Boxed, as every door of a crate that others await: a coroutine is compiled again in each crate
/// that awaits it, and this one holds the whole server.
///
/// # Errors
/// As [`run`].
pub fn run_with(loaded: Loaded, seams: Seams) -> LocalBoxFuture<'static, Result<Ended, Error>> {
    Box::pin(async move {
        // `dtm` has done so; whoever else runs a node has not. Before the first key is read.
        telemetry::leave_no_core().map_err(Error::Core)?;
        let keyring = keyring::open(&loaded.config)?;
        belonging::check(&loaded.config, &keyring)?;
        let shell = Shell::start(loaded).await?;
        Ok(Box::pin(runtime::run(shell, keyring, seams)).await?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_and_a_wrong_master_key_are_told_with_what_to_do() {
        let source = std::io::ErrorKind::AddrInUse.into();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9_443));
        let taken = tls::Error::Listen { address, door: "grpc", source };
        let told = Error::Shell(shell::Error::Tls(taken)).tell(Lang::Vi);
        assert!(told.contains("127.0.0.1:9443") && told.contains("đang chạy"), "{told}");
        let (path, master) = ("data/keyring".into(), "keys/m".to_owned());
        let wrong = Error::Keyring(keys::Error::WrongMaster { path, master });
        let (vi, en) = (wrong.tell(Lang::Vi), wrong.tell(Lang::En));
        assert!(vi.contains("keys/m") && !vi.contains("master key"), "{vi}");
        assert!(en.contains("keys/m") && en.contains("data/keyring; "), "{en}");
    }
}
