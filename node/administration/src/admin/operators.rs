//! Operators.

use bytes::Bytes;
use dtm_doors::status::{internal, told};
use dtm_identity::{Identity, Operation, Role, operator_name_is_valid};
use dtm_machine::reads;
use dtm_proto::admin as wire;
use dtm_types::ErrorCode;
use dtm_types::command::admin::Op;
use dtm_types::command::{OperatorRow, RevokeOperator};
use dtm_types::text::Told;
use serde_json::json;
use tonic::{Request, Status};

use super::AdminDoor;

impl AdminDoor {
    pub(crate) async fn add_operator(
        &self,
        request: Request<wire::AddOperatorRequest>,
    ) -> Result<wire::AddOperatorResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::AddOperator, asked.context.as_ref()).await?;
        let role = Role::parse(&asked.role)
            .ok_or_else(|| told(ErrorCode::InvalidArgument, &Told::new("refused.role")))?;
        if !operator_name_is_valid(&asked.name) {
            return Err(told(ErrorCode::InvalidArgument, &Told::new("refused.operator_name")));
        }
        self.may_put(&asked.name, role, asked.update).await?;
        let identity =
            Identity::Operator { cluster: self.0.cluster_id, name: asked.name.clone(), role };
        let signed = self.sign(&asked.certificate_request, identity, asked.valid_days)?;
        let id = Bytes::copy_from_slice(&self.0.entropy.id16());
        let row = OperatorRow {
            id: id.clone(),
            name: asked.name.clone(),
            role: role.name().to_owned(),
            certificate_digest: signed.digest,
            revoked: false,
            not_after_us: signed.not_after_us,
        };
        let detail = json!({"operator": row.name, "role": row.role, "update": asked.update});
        self.act(asker, Op::PutOperator(row), None, detail).await?;
        Ok(wire::AddOperatorResponse { id, certificate_chain: signed.chain })
    }

    pub(crate) async fn list_operators(
        &self,
        request: Request<wire::ListOperatorsRequest>,
    ) -> Result<wire::ListOperatorsResponse, Status> {
        self.0.allow(&request, Operation::ListOperators, None).await?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let operators = reads::operators(meta.state.as_ref()).map_err(internal)?;
        Ok(wire::ListOperatorsResponse { operators })
    }

    pub(crate) async fn revoke_operator(
        &self,
        request: Request<wire::RevokeOperatorRequest>,
    ) -> Result<wire::RevokeOperatorResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::RevokeOperator, asked.context.as_ref()).await?;
        self.not_the_last(&asked.name).await?;
        let detail = json!({"operator": asked.name});
        let op = Op::RevokeOperator(RevokeOperator { name: asked.name.clone() });
        self.act(asker, op, None, detail).await?;
        Ok(wire::RevokeOperatorResponse {})
    }

    /// Whether a certificate may be entered under this name.
    async fn may_put(&self, name: &str, role: Role, update: bool) -> Result<(), Status> {
        refused_put(&self.operators().await?, (name, role, update), self.0.clock.now_us())
            .map_or(Ok(()), |(code, what)| Err(told(code, &what)))
    }

    /// Without an operator nobody could add one.
    async fn not_the_last(&self, name: &str) -> Result<(), Status> {
        if is_last(&self.operators().await?, name, self.0.clock.now_us()) {
            return Err(told(ErrorCode::InvalidArgument, &last(name)));
        }
        Ok(())
    }

    /// Two changes in the same moment, at two nodes, do not see each other here.
    async fn operators(&self) -> Result<Vec<OperatorRow>, Status> {
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        reads::operators(meta.state.as_ref()).map_err(internal)
    }
}

fn last(name: &str) -> Told {
    Told::new("refused.last_operator").with("name", name)
}

/// Why a certificate may not be entered under a name. A name whose certificate holds keeps it
/// unless the asker says that it is to end; the last operator stays one.
fn refused_put(
    operators: &[OperatorRow],
    (name, role, update): (&str, Role, bool),
    now_us: i64,
) -> Option<(ErrorCode, Told)> {
    let held = operators.iter().find(|row| row.name == name);
    match held {
        None if update => {
            Some((ErrorCode::NotFound, Told::new("refused.no_operator").with("name", name)))
        }
        Some(row) if !update && !row.revoked && row.not_after_us > now_us => {
            let what = Told::new("refused.operator_there").with("name", name);
            Some((ErrorCode::AlreadyExists, what.with("role", &row.role)))
        }
        _ if role != Role::Operator && is_last(operators, name, now_us) => {
            Some((ErrorCode::InvalidArgument, last(name)))
        }
        _ => None,
    }
}

/// Whether this is the only one who may administer and whose certificate holds.
fn is_last(operators: &[OperatorRow], name: &str, now_us: i64) -> bool {
    let mut valid = operators.iter().filter(|row| {
        row.role == Role::Operator.name() && !row.revoked && row.not_after_us > now_us
    });
    valid.next().is_some_and(|row| row.name == name) && valid.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_operators_that_hold_count() {
        let row = |name: &str, role: Role, revoked, not_after_us| OperatorRow {
            name: name.to_owned(),
            role: role.name().to_owned(),
            revoked,
            not_after_us,
            ..OperatorRow::default()
        };
        let mut rows = vec![
            row("anh", Role::Operator, false, 10),
            row("binh", Role::Auditor, false, 10),
            row("chi", Role::Operator, true, 10),
            row("dung", Role::Operator, false, 5),
        ];
        assert!(is_last(&rows, "anh", 5));
        assert!(!is_last(&rows, "binh", 5) && !is_last(&rows, "chi", 5));
        let put =
            |name, role, update| refused_put(&rows, (name, role, update), 5).map(|(code, _)| code);
        assert_eq!(put("anh", Role::Auditor, true), Some(ErrorCode::InvalidArgument), "the last");
        assert_eq!(put("anh", Role::Operator, true), None, "a new certificate for the last one");
        for (name, role) in
            [("anh", Role::Operator), ("anh", Role::Auditor), ("binh", Role::Auditor)]
        {
            assert_eq!(put(name, role, false), Some(ErrorCode::AlreadyExists), "{name} holds one");
        }
        assert_eq!(put("binh", Role::Operator, true), None);
        for gone in ["chi", "dung", "em"] {
            assert_eq!(put(gone, Role::Auditor, false), None, "{gone} holds none");
        }
        assert_eq!(put("em", Role::Auditor, true), Some(ErrorCode::NotFound));
        rows[3].not_after_us = 6;
        assert!(!is_last(&rows, "anh", 5) && !is_last(&rows, "dung", 5));
    }
}
