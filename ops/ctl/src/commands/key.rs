//! `dtm key rotate`.

use dtm_proto::admin::RotateClusterKeyRequest;
use serde_json::json;

use super::text::id;
use crate::args::{Globals, KeyCommand};
use crate::{Failure, Printer, Remote, confirm};

pub(crate) async fn run(command: &KeyCommand, globals: &Globals) -> Result<(), Failure> {
    let KeyCommand::Rotate = command;
    confirm(globals, "cli.confirm_rotate", &[])?;
    let printer = Printer::new(globals);
    let remote = Remote::connect(globals).await?;
    let message = RotateClusterKeyRequest { context: remote.why() };
    let done = remote.admin().rotate_cluster_key(remote.request(message)).await?.into_inner();
    let (key, count) = (id(&done.cluster_key_id), done.keys_rewrapped.to_string());
    printer.done(
        "cli.key_rotated",
        &[("key", &key), ("count", &count)],
        &json!({ "cluster_key_id": key, "keys_rewrapped": done.keys_rewrapped }),
    );
    Ok(())
}
