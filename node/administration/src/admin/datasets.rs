//! Data sets.

use bytes::Bytes;
use dtm_catalog::{CompiledSchema, Definition};
use dtm_doors::status::{internal, told};
use dtm_identity::{Caller, Operation};
use dtm_machine::reads;
use dtm_proto::admin as wire;
use dtm_types::ErrorCode;
use dtm_types::command::DatasetRow;
use dtm_types::command::admin::Op;
use dtm_types::text::Told;
use serde_json::json;
use sha2::{Digest, Sha256};
use tonic::{Request, Status};

use super::AdminDoor;

/// Definitions of one answer; a single one is smaller.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How far the version of a definition may be above the newest one that is published.
const VERSIONS_AHEAD_MAX: u32 = 1_000;

impl AdminDoor {
    pub(crate) async fn publish_dataset(
        &self,
        request: Request<wire::PublishDatasetRequest>,
    ) -> Result<wire::PublishDatasetResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::PublishDataset, asked.context.as_ref()).await?;
        // What does not compile is never published; the error names line and key.
        let refused = |error: dtm_catalog::Error| told(ErrorCode::InvalidArgument, &error.told());
        let definition = Definition::parse(&asked.definition, "definition").map_err(refused)?;
        CompiledSchema::compile(&definition).map_err(refused)?;
        self.check_version(&definition).await?;
        let row = dataset_row(&definition, &asked.definition);
        let answer = wire::PublishDatasetResponse {
            dataset: row.dataset.clone(),
            schema_version: row.schema_version,
            digest: row.digest.clone(),
        };
        let detail = json!({"dataset": row.dataset, "schema_version": row.schema_version});
        self.act(asker, Op::PutDataset(row), None, detail).await?;
        Ok(answer)
    }

    /// Versions go on from the newest: one far ahead would leave no room for others.
    async fn check_version(&self, definition: &Definition) -> Result<(), Status> {
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let newest = reads::dataset(meta.state.as_ref(), &definition.id, None).map_err(internal)?;
        let newest = newest.map_or(0, |row| row.schema_version);
        if definition.version <= newest.saturating_add(VERSIONS_AHEAD_MAX) {
            return Ok(());
        }
        let what = Told::new("refused.version_ahead").with("version", definition.version);
        let what = what.with("newest", newest).with("max", VERSIONS_AHEAD_MAX);
        Err(told(ErrorCode::InvalidArgument, &what))
    }

    pub(crate) async fn list_datasets(
        &self,
        request: Request<wire::ListDatasetsRequest>,
    ) -> Result<wire::ListDatasetsResponse, Status> {
        let caller = self.0.caller(&request).await?;
        let owner = match &caller {
            Caller::Source { source, .. } => Some(source.as_str().to_owned()),
            _ => None,
        };
        self.0.permit(&caller, Operation::ListDatasets, owner.as_deref())?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let wire::ListDatasetsRequest { dataset, after } = request.get_ref();
        let found = reads::datasets_after(meta.state.as_ref(), dataset, after, ANSWER_BYTES_MAX);
        let (datasets, next) = found.map_err(internal)?;
        Ok(wire::ListDatasetsResponse { datasets, next })
    }
}

/// The row of a definition that was checked.
pub fn dataset_row(definition: &Definition, text: &str) -> DatasetRow {
    DatasetRow {
        dataset: definition.id.clone(),
        schema_version: definition.version,
        definition: text.to_owned(),
        digest: Bytes::copy_from_slice(&Sha256::digest(text.as_bytes())),
        published_us: 0,
    }
}
