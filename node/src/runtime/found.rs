//! Founding a cluster: what meta starts with once its groups run. Every step may be repeated after a
//! crash: what is there is left as it is.

use std::sync::Arc;

use bytes::Bytes;
use dtm_administration::dataset_row;
use dtm_catalog::{BUILT_IN_IDS, Definition};
use dtm_doors::Shared;
use dtm_doors::audit::{Action, Actor, act};
use dtm_machine::reads;
use dtm_machine::seams::StateError;
use dtm_types::command::admin::Op;
use dtm_types::command::{DatasetRow, OperatorRow};
use serde_json::json;
use tonic::{Code, Status};

use crate::pki::Genesis;

/// Writes the first operator and the built-in data sets.
pub(super) async fn found(shared: &Arc<Shared>, genesis: &Genesis) -> Result<(), Status> {
    let meta = shared.directory.meta_now(shared.view()).await?;
    let state = meta.state.as_ref();
    let failed = |e: StateError| Status::internal(e.to_string());
    let operator = operator(shared, genesis)?;
    if reads::operator(state, &operator.name).map_err(failed)?.is_none() {
        step(shared, Op::PutOperator(operator), json!({"operator": genesis.operator_name})).await?;
    }
    for id in BUILT_IN_IDS {
        if reads::dataset(state, id, None).map_err(failed)?.is_none()
            && let Some(row) = built_in(id)
        {
            step(shared, Op::PutDataset(row), json!({"dataset": id})).await?;
        }
    }
    Ok(())
}

async fn step(shared: &Arc<Shared>, op: Op, detail: serde_json::Value) -> Result<(), Status> {
    let action = Action {
        op,
        expected_version: None,
        reason: "cluster founded".to_owned(),
        request_id: Bytes::new(),
        detail,
    };
    match act(shared, Actor::node(shared), action).await {
        // A step of an earlier, interrupted founding.
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        other => other.map(|_| ()),
    }
}

fn operator(shared: &Arc<Shared>, genesis: &Genesis) -> Result<OperatorRow, Status> {
    let digest = hex::decode(&genesis.operator_certificate_digest).map_err(|_| {
        Status::internal("genesis.toml: operator_certificate_digest is not hexadecimal")
    })?;
    Ok(OperatorRow {
        id: Bytes::copy_from_slice(&shared.entropy.id16()),
        name: genesis.operator_name.clone(),
        role: "operator".to_owned(),
        certificate_digest: digest.into(),
        revoked: false,
        not_after_us: genesis.operator_not_after_us,
    })
}

fn built_in(id: &str) -> Option<DatasetRow> {
    let text = dtm_catalog::definition::built_in_text(id)?;
    Some(dataset_row(&Definition::built_in(id)?, text))
}
