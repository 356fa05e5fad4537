//! `cargo xtask`: code generation, generated documents and the tidy checks.

mod codegen;
mod tidy;
mod versions;

use anyhow::{Result, bail};

const USAGE: &str = "cargo xtask codegen | codegen --check | tidy";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["codegen"] => codegen::write(),
        ["codegen", "--check"] => codegen::check(),
        ["tidy"] => tidy::check(),
        _ => bail!("usage: {USAGE}"),
    }
}
