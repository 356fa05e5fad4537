//! The Python example's environment: made by its own `generate.sh` in the build folder, so that it
//! outlives the checkout.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// An interpreter with grpcio, the generated code, and the example itself.
#[derive(Debug)]
pub(crate) struct Example {
    python: PathBuf,
    path: PathBuf,
    script: PathBuf,
}

impl Example {
    /// None where it cannot be made (no python3-venv, no way to PyPI): then the test says that it
    /// did not run. Under CI that is a failure.
    pub(crate) fn prepared() -> Option<&'static Self> {
        static MADE: OnceLock<Result<Example, String>> = OnceLock::new();
        match MADE.get_or_init(make) {
            Ok(example) => Some(example),
            Err(why) => {
                assert!(std::env::var_os("CI").is_none(), "no Python environment: {why}");
                // Past the harness, which shows nothing of a test that passes.
                let said = writeln!(io::stderr(), "DID NOT RUN: no Python environment: {why}");
                said.expect("stderr");
                None
            }
        }
    }

    /// `publish.py` in that interpreter.
    pub(crate) fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.python);
        command.arg(&self.script).env("PYTHONPATH", &self.path).kill_on_drop(true);
        command
    }
}

fn make() -> Result<Example, String> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let source = above.map(|folder| folder.join("proto/examples/python")).find(|at| at.is_dir());
    let source = source.ok_or("proto/examples/python is missing")?;
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("python");
    let made = Command::new("sh").arg(source.join("generate.sh")).arg(&path).output();
    let made = made.map_err(|error| error.to_string())?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    Ok(Example { python: path.join(".venv/bin/python"), path, script: source.join("publish.py") })
}
