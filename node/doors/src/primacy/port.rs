//! This node's acceptor, asked by others.

use dtm_cluster::AcceptorPort;
use dtm_register::Question;
use dtm_types::NodeId;

use super::Primacy;

impl AcceptorPort for Primacy {
    fn answer(&self, from: NodeId, question: &[u8]) -> Result<Vec<u8>, String> {
        let question = Question::decode(question).map_err(|error| error.to_string())?;
        let answer = self.acceptor.lock().answer(&question, self.now());
        let answer = answer.inspect_err(|error| {
            tracing::error!(%from, %error, "the acceptor of the register does not answer");
        });
        Ok(answer.map_err(|error| error.to_string())?.encode())
    }

    fn may_acknowledge(&self) -> bool {
        Primacy::may_acknowledge(self)
    }
}
