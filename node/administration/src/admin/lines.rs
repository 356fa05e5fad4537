//! The one word that the second channel to other sites waits for.

use dtm_doors::status::internal;
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_proto::admin as wire;
use dtm_types::command::admin::Op;
use dtm_types::command::{EnterLine, LineChange};
use serde_json::json;
use tonic::{Request, Status};

use super::AdminDoor;

impl AdminDoor {
    /// Enters the word in the ledger, then hands it to every node that answers.
    pub(super) async fn confirm_channel(
        &self,
        request: Request<wire::ConfirmChannelRequest>,
    ) -> Result<wire::ConfirmChannelResponse, Status> {
        let context = request.get_ref().context.as_ref();
        let asker = self.asker(&request, Operation::ConfirmChannel, context).await?;
        let confirmed = EnterLine { change: LineChange::Confirmed.into(), ..EnterLine::default() };
        let detail = json!({ "line": LineChange::Confirmed.as_str_name() });
        self.act(asker, Op::EnterLine(confirmed), None, detail).await?;
        let shared = &self.0;
        let meta = shared.directory.meta(shared.view()).await?;
        let mut rows = reads::nodes(meta.state.as_ref()).map_err(internal)?;
        rows.retain(|row| !row.removed && row.node != shared.node.0[..]);
        let asked = rows
            .iter()
            .map(|row| async move { (row.name.clone(), shared.peers.confirm_lines(row).await) });
        let mut answer =
            wire::ConfirmChannelResponse { lines: shared.confirm_lines(), silent: Vec::new() };
        for (name, waited) in futures::future::join_all(asked).await {
            match waited {
                Some(lines) => answer.lines += lines,
                None => answer.silent.push(name),
            }
        }
        Ok(answer)
    }
}
