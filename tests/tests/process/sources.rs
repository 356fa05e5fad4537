//! Data sets that are published and sources that are registered while a cluster runs.

use std::sync::Arc;

use anyhow::{Context, Result};
use dtm_client::admin::Admin;
use dtm_client::{Form, Mode};
use dtm_proto::admin::{IssueSourceKeyRequest, PublishDatasetRequest, PutSourceRequest};
use dtm_types::command::{Agreement, SourceRow};

use crate::cluster::Cluster;

/// A registered source with its key.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) code: String,
    pub(crate) group: u32,
    pub(crate) key: String,
    pub(crate) key_id: Vec<u8>,
}

impl Cluster {
    pub(crate) async fn publish_dataset(&self, definition: &str) -> Result<()> {
        let request = PublishDatasetRequest {
            context: Some(Admin::context("test")),
            definition: definition.to_owned(),
        };
        let admin = self.admin()?;
        let published = admin.call(|mut client| {
            let request = request.clone();
            async move { client.publish_dataset(request).await }
        });
        published.await.context("data set")?;
        Ok(())
    }

    /// Registers a source for some data sets and issues its key.
    pub(crate) async fn add_source(&self, code: &str, datasets: &[&str]) -> Result<Arc<Source>> {
        Ok(Arc::new(self.register(source_row(code, datasets)).await?))
    }

    /// Registers a source as it stands there and issues its key.
    pub(crate) async fn register(&self, row: SourceRow) -> Result<Source> {
        let (admin, code) = (self.admin()?, row.source.clone());
        let put = PutSourceRequest {
            context: Some(Admin::context("test")),
            source: Some(row),
            update: false,
        };
        let put = admin.call(|mut client| {
            let request = put.clone();
            async move { client.put_source(request).await }
        });
        let group = put.await.context("source add")?.group;
        let issue = IssueSourceKeyRequest {
            context: Some(Admin::context("test")),
            source: code.clone(),
            valid_days: 1,
        };
        let issued = admin.call(|mut client| {
            let request = issue.clone();
            async move { client.issue_source_key(request).await }
        });
        let issued = issued.await.context("source key")?;
        Ok(Source { code, group, key: issued.key, key_id: issued.key_id.to_vec() })
    }
}

/// A source that sends RAW, in both modes.
pub(crate) fn source_row(code: &str, datasets: &[&str]) -> SourceRow {
    let agreements = datasets.iter().map(|dataset| Agreement {
        dataset: (*dataset).to_owned(),
        modes: vec![Mode::Realtime.into(), Mode::Batch.into()],
        form: Form::Raw.into(),
        security_status: 2,
        priority: 2,
        responsible_agency: "A01".to_owned(),
        ..Agreement::default()
    });
    SourceRow {
        source: code.to_owned(),
        title_vi: format!("Nguồn {code}"),
        title_en: format!("Source {code}"),
        agency_code: "A01".to_owned(),
        class: "sector".to_owned(),
        agreements: agreements.collect(),
        ..SourceRow::default()
    }
}

/// A data set with a code and a text.
pub(crate) fn definition(id: &str) -> String {
    format!(
        r#"id = "{id}"
version = 1
owner = "test"
category = "B3"
title = {{ vi = "Ghi chú", en = "Notes" }}
key = ["code"]
priority = "normal"
security = "internal"

[[field]]
name = "code"
type = "Code"
label = {{ vi = "Mã", en = "Code" }}
max_length = 64

[[field]]
name = "note"
type = "Text"
label = {{ vi = "Ghi chú", en = "Note" }}
max_length = 4000
"#
    )
}
