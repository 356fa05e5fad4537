//! Certificates of nodes, renewed because an operator says so.

use dtm_doors::audit::Actor;
use dtm_doors::status::{internal, told};
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_proto::admin as wire;
use dtm_types::ErrorCode;
use dtm_types::command::Actor as Who;
use dtm_types::text::Told;
use tonic::{Request, Status};

use super::AdminDoor;
use super::cluster::node_id;

impl AdminDoor {
    /// The node itself makes the key, signs and enters it, under the name of who asked.
    pub async fn renew_node_certificate(
        &self,
        request: Request<wire::RenewNodeCertificateRequest>,
    ) -> Result<wire::RenewNodeCertificateResponse, Status> {
        let asked = request.get_ref();
        let asker =
            self.asker(&request, Operation::RenewNodeCertificate, asked.context.as_ref()).await?;
        let node = node_id(&asked.node)?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let row = reads::node(meta.state.as_ref(), node).map_err(internal)?;
        let row = row.filter(|row| !row.removed).ok_or_else(|| {
            told(ErrorCode::NotFound, &Told::new("refused.no_node").with("node", node))
        })?;
        let actor = Actor::of(&asker.caller, asker.address);
        let renewed = if node == self.0.node {
            self.0.renew_certificate(actor, asker.reason).await?
        } else {
            let request = wire::RenewCertificateRequest {
                actor: Some(Who { kind: actor.kind.into(), id: actor.id }),
                actor_name: actor.name,
                actor_address: actor.address,
                reason: asker.reason,
            };
            self.0.peers.renew_certificate(&row, request).await?
        };
        Ok(wire::RenewNodeCertificateResponse { renewed: Some(renewed) })
    }
}
