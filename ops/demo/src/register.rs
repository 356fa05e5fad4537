//! Registers the sources and issues their keys.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use dtm_client::admin::Admin;
use dtm_client::{Credential, Endpoint, Form, Mode};
use dtm_proto::admin::{IssueSourceKeyRequest, PutSourceRequest};
use dtm_types::command::{Agreement, SourceRow};
use zeroize::Zeroizing;

use crate::cluster::{Cluster, write_secret};
use crate::generate::Dataset;
use crate::roster::SourcePlan;

/// Days a key of the demo holds.
const KEY_DAYS: i64 = 30;
/// Internal, normal: what every record of the demo is (A1-3.3).
const INTERNAL: u32 = 2;
const NORMAL: u32 = 2;

/// A registered source and how it gets in.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    /// Who it is.
    pub(crate) plan: Arc<SourcePlan>,
    /// The whole cluster, with the source's key.
    pub(crate) endpoint: Endpoint,
    credential: Credential,
}

impl Registered {
    /// One node alone, with the source's key.
    ///
    /// # Errors
    /// Certificate files that cannot be used.
    pub(crate) fn at(&self, cluster: &Cluster, node: usize) -> Result<Endpoint> {
        let address = cluster.nodes[node].listen.grpc.to_string();
        let endpoint = Endpoint::new([address], &cluster.source_files())?;
        Ok(endpoint.with_credential(self.credential.clone()))
    }
}

/// Registers one source; its key also goes to `keys/SOURCE.key` for the tour.
///
/// # Errors
/// What the cluster said.
pub(crate) async fn register(
    cluster: &Cluster,
    admin: &Admin,
    plan: Arc<SourcePlan>,
) -> Result<Registered> {
    let shown = || plan.code.clone();
    let context = || Some(Admin::context("demo"));
    let put = PutSourceRequest { context: context(), source: Some(row(&plan)), update: false };
    let put_call = admin.call(|mut client| {
        let request = put.clone();
        async move { client.put_source(request).await }
    });
    put_call.await.with_context(shown)?;
    let issue = IssueSourceKeyRequest {
        context: context(),
        source: plan.code.clone(),
        valid_days: KEY_DAYS,
    };
    let issue_call = admin.call(|mut client| {
        let request = issue.clone();
        async move { client.issue_source_key(request).await }
    });
    let key = Zeroizing::new(issue_call.await.with_context(shown)?.key);
    write_secret(&cluster.path("keys").join(format!("{}.key", plan.code)), &key)?;
    let credential = Credential::source_key(&key)?;
    let endpoint = Endpoint::new(cluster.addresses(), &cluster.source_files())?
        .with_credential(credential.clone())
        .with_connect_timeout(Duration::from_secs(2))
        .with_shared_connections();
    Ok(Registered { plan, endpoint, credential })
}

fn row(plan: &SourcePlan) -> SourceRow {
    let agreements = Dataset::SHARES.iter().map(|(dataset, _)| Agreement {
        dataset: dataset.id().to_owned(),
        modes: vec![Mode::Realtime.into(), Mode::Batch.into()],
        form: Form::Raw.into(),
        security_status: INTERNAL,
        priority: NORMAL,
        responsible_agency: plan.agency_code.clone(),
        ..Agreement::default()
    });
    SourceRow {
        source: plan.code.clone(),
        title_vi: plan.title_vi.clone(),
        title_en: plan.title_en.clone(),
        agency_code: plan.agency_code.clone(),
        class: plan.class.to_owned(),
        locality: plan.locality.to_owned(),
        agreements: agreements.collect(),
        ..SourceRow::default()
    }
}
