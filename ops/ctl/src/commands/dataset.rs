//! `dtm dataset list|show|publish`.

use std::fs;

use dtm_catalog::{CompiledSchema, Definition};
use dtm_proto::admin::{ListDatasetsRequest, PublishDatasetRequest};
use dtm_types::command::DatasetRow;
use serde_json::json;

use super::text::time;
use crate::args::{DatasetCommand, Globals};
use crate::{Failure, Printer, Remote};

/// Largest definition that is sent, bytes.
const DEFINITION_BYTES_MAX: u64 = 1 << 20;

pub(crate) async fn run(command: &DatasetCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    match command {
        DatasetCommand::List => {
            let remote = Remote::connect(globals).await?;
            let datasets = fetch(&remote, "").await?;
            let rows = datasets.iter().map(|d| {
                vec![
                    d.dataset.clone(),
                    d.schema_version.to_string(),
                    time(d.published_us),
                    hex::encode(&d.digest),
                ]
            });
            let document: Vec<_> = datasets.iter().map(to_json).collect();
            printer.table(
                &["dataset", "version", "published", "digest"],
                rows.collect(),
                &json!(document),
            );
        }
        DatasetCommand::Show { dataset } => {
            let remote = Remote::connect(globals).await?;
            let versions = fetch(&remote, dataset).await?;
            let newest = versions.iter().max_by_key(|row| row.schema_version);
            let Some(newest) = newest else {
                return Err(Failure::usage("cli.unknown_dataset", &[("name", dataset)]));
            };
            if printer.is_json() {
                let mut document = to_json(newest);
                document["definition"] = json!(newest.definition);
                printer.json(&document);
            } else {
                printer.raw(newest.definition.trim_end());
            }
        }
        DatasetCommand::Publish { file } => {
            let bytes = fs::metadata(file).map_err(Failure::file(file))?.len();
            if bytes > DEFINITION_BYTES_MAX {
                return Err(Failure::usage(
                    "cli.definition_too_large",
                    &[("name", &file.display().to_string())],
                ));
            }
            let definition = fs::read_to_string(file).map_err(Failure::file(file))?;
            // Here an error names the file.
            let read = Definition::parse(&definition, &file.display().to_string())?;
            CompiledSchema::compile(&read)?;
            let remote = Remote::connect(globals).await?;
            let message = PublishDatasetRequest { context: remote.why(), definition };
            let made = remote.admin().publish_dataset(remote.request(message)).await?.into_inner();
            let version = made.schema_version.to_string();
            printer.done(
                "cli.dataset_published",
                &[("name", &made.dataset), ("version", &version)],
                &json!({ "dataset": made.dataset, "schema_version": made.schema_version, "digest": hex::encode(&made.digest) }),
            );
        }
    }
    Ok(())
}

/// Every published version of a data set, or with an empty name of every one.
pub(super) async fn fetch(remote: &Remote, dataset: &str) -> Result<Vec<DatasetRow>, Failure> {
    let mut found = Vec::new();
    let mut request = ListDatasetsRequest { dataset: dataset.into(), ..Default::default() };
    loop {
        let asked = remote.request(request.clone());
        let part = remote.admin().list_datasets(asked).await?.into_inner();
        found.extend(part.datasets);
        request.after = part.next;
        if request.after.is_empty() {
            return Ok(found);
        }
    }
}

fn to_json(row: &DatasetRow) -> serde_json::Value {
    json!({ "dataset": row.dataset, "schema_version": row.schema_version, "published": time(row.published_us),
            "digest": hex::encode(&row.digest) })
}
