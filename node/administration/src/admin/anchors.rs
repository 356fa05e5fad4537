//! The newest anchors: where the ledgers of all groups stood, second by second.

use dtm_doors::status::internal;
use dtm_identity::Operation;
use dtm_machine::reads;
use dtm_proto::admin as wire;
use tonic::{Request, Status};

use super::AdminDoor;

/// Where nothing is said.
const ANCHORS_USUAL: usize = 10;
/// In one answer: those of 255 groups stay below the bound of a message.
const ANCHORS_MAX: usize = 200;

impl AdminDoor {
    pub(crate) async fn list_anchors(
        &self,
        request: Request<wire::ListAnchorsRequest>,
    ) -> Result<wire::ListAnchorsResponse, Status> {
        self.0.allow(&request, Operation::ClusterStatus, None).await?;
        let limit = match request.get_ref().limit {
            0 => ANCHORS_USUAL,
            limit => usize::try_from(limit).unwrap_or(ANCHORS_MAX).min(ANCHORS_MAX),
        };
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let found = reads::anchors(meta.state.as_ref(), limit).map_err(internal)?;
        let anchors = found.into_iter().map(|(leaf_index, leaf)| wire::AnchorDetail {
            leaf_index,
            time_us: leaf.group_time_us,
            groups: leaf.anchor.map(|anchor| anchor.groups).unwrap_or_default(),
        });
        Ok(wire::ListAnchorsResponse { anchors: anchors.collect() })
    }
}
