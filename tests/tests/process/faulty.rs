//! Nodes with a planted bug: a session panics over each poisoned payload that its node has not seen
//! before; sent again, it is a payload as any other.
//!
//! Such a node is this test's own executable: [`a_node`] is `dtm serve` with one part replaced at
//! the node's seams.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use dtm_actors::Treatment;
use dtm_catalog::{CompiledSchema, Outcome, Scratch};
use dtm_node::seams::Seams;
use dtm_node::{config, serve as node};
use parking_lot::Mutex;

/// How a poisoned payload begins. It is no JSON: what is not crashed by it refuses it.
pub(crate) const POISON: &str = "poison";
/// Names the node's configuration, in its own process only.
const CONFIG: &str = "DTM_TEST_FAULTY_NODE";

/// Runs a node of this kind.
pub(crate) fn serve(config: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["faulty::a_node", "--exact", "--ignored", "--nocapture"]).env(CONFIG, config);
    Ok(command)
}

#[test]
#[ignore = "no test: a node of other tests, in a process of its own"]
fn a_node() -> Result<()> {
    let file = std::env::var_os(CONFIG).context("started by the tests that need it")?;
    let config = config::load(Path::new(&file))?;
    let seams = Seams { treatment: Arc::<Faulty>::default(), ..Seams::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(node::run_with(config, seams)).context("the node").map(|_| ())
}

/// The bug.
#[derive(Default)]
struct Faulty(Mutex<HashSet<Vec<u8>>>);

impl Treatment for Faulty {
    fn check(&self, schema: &CompiledSchema, payload: &[u8], scratch: &mut Scratch) -> Outcome {
        let is_new =
            payload.starts_with(POISON.as_bytes()) && self.0.lock().insert(payload.to_vec());
        assert!(!is_new, "planted");
        schema.check(payload, scratch)
    }
}
