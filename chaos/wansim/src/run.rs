//! Whether this machine lets the faults of the network happen.

use crate::{Error, Namespace, tun};

/// Tries what a network is made of: a namespace, a TUN device, `ip` and `nft`.
///
/// # Errors
/// What is missing. Root or `unshare -Urnm` gives the first two, `ops/bootstrap.sh tests` installs
/// the others.
pub fn can_run() -> Result<(), Error> {
    let namespace = Namespace::new()?;
    namespace.enter(tun::open)?.map_err(Error::kernel("open a TUN device"))?;
    namespace.tool("nft", &["list", "tables"], "")?;
    Ok(())
}

/// For a test that cannot have what it needs: says so and lets the test end.
///
/// # Panics
/// Under `CI`: there what does not run is a failure.
#[expect(clippy::print_stderr, reason = "the answer to whoever runs the tests")]
pub fn did_not_run(why: &dyn std::error::Error) {
    let source = why.source().map(|source| format!(": {source}")).unwrap_or_default();
    assert!(std::env::var_os("CI").is_none(), "cannot run here: {why}{source}");
    eprintln!("DID NOT RUN: {why}{source}");
}
