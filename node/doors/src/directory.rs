//! Rows of meta for the doors: local first (at most seconds old), the leader on a miss.

use std::collections::HashMap;
use std::sync::Arc;

use dtm_catalog::Definition;
use dtm_machine::reads;
use dtm_machine::seams::{Freshness, GroupView, ReadView};
use dtm_types::command::SourceRow;
use dtm_types::{ErrorCode, GroupId};
use parking_lot::Mutex;
use tonic::Status;

use super::confirm::Confirmations;
use super::elsewhere::view_of;
use super::status::{internal, status_with};

/// Parsed definitions that are kept.
const DEFINITIONS_MAX: usize = 1_024;

/// Reads of meta. Parsed definitions are cached: a published version never changes.
#[derive(Default)]
pub struct Directory {
    /// For callers whose credential needs meta confirmed.
    pub confirmations: Confirmations,
    definitions: Mutex<HashMap<(String, u32), Arc<Definition>>>,
}

impl Directory {
    /// Meta as this node has applied it.
    pub async fn meta(&self, view: &dyn ReadView) -> Result<GroupView, Status> {
        view_of(view, GroupId::META, Freshness::Local).await
    }

    /// Meta with everything committed before the call.
    pub async fn meta_now(&self, view: &dyn ReadView) -> Result<GroupView, Status> {
        view_of(view, GroupId::META, Freshness::Current).await
    }

    /// A source.
    pub async fn source(&self, view: &dyn ReadView, source: &str) -> Result<SourceRow, Status> {
        let meta = self.meta(view).await?;
        if let Some(row) = reads::source(meta.state.as_ref(), source).map_err(internal)? {
            return Ok(row);
        }
        let meta = self.meta_now(view).await?;
        let row = reads::source(meta.state.as_ref(), source).map_err(internal)?;
        row.ok_or_else(|| {
            status_with(ErrorCode::UnknownSource, source, &[("name", source.to_owned())])
        })
    }

    /// A data set's definition; version 0 = the newest.
    pub async fn definition(
        &self,
        view: &dyn ReadView,
        dataset: &str,
        version: u32,
    ) -> Result<Arc<Definition>, Status> {
        let wanted = (version > 0).then_some(version);
        let key = (dataset.to_owned(), version);
        if version > 0
            && let Some(found) = self.definitions.lock().get(&key)
        {
            return Ok(Arc::clone(found));
        }
        let meta = self.meta(view).await?;
        let mut row = reads::dataset(meta.state.as_ref(), dataset, wanted).map_err(internal)?;
        if row.is_none() {
            let meta = self.meta_now(view).await?;
            row = reads::dataset(meta.state.as_ref(), dataset, wanted).map_err(internal)?;
        }
        let Some(row) = row else {
            let meta = self.meta(view).await?;
            let rows = reads::dataset_versions(meta.state.as_ref(), dataset).map_err(internal)?;
            return Err(unknown(dataset, version, rows.iter().map(|row| row.schema_version)));
        };
        let key = (row.dataset.clone(), row.schema_version);
        if let Some(found) = self.definitions.lock().get(&key) {
            return Ok(Arc::clone(found));
        }
        let definition =
            Arc::new(Definition::parse(&row.definition, &row.dataset).map_err(internal)?);
        let mut cache = self.definitions.lock();
        if cache.len() >= DEFINITIONS_MAX {
            cache.clear();
        }
        cache.insert(key, Arc::clone(&definition));
        Ok(definition)
    }
}

/// No such data set, or it has no such version: then which there are.
fn unknown(dataset: &str, version: u32, published: impl Iterator<Item = u32>) -> Status {
    let published: Vec<_> = published.map(|version| version.to_string()).collect();
    let mut values = vec![("name", dataset.to_owned())];
    if version == 0 || published.is_empty() {
        return status_with(ErrorCode::UnknownDataset, dataset, &values);
    }
    values.push(("version", version.to_string()));
    values.push(("versions", published.join(", ")));
    status_with(ErrorCode::UnknownSchemaVersion, dataset, &values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_version_names_those_that_there_are() {
        let status = unknown("fish", 3, [1, 2].into_iter());
        let told = status.message();
        assert!(told.contains("fish") && told.contains("no version 3"), "{told}");
        assert!(told.contains("1, 2"), "{told}");
        assert!(unknown("fish", 3, [].into_iter()).message().contains("not published"));
    }
}
