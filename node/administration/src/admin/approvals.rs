//! Approvals: a second person's word, asked for and given. What it takes is decided by apply
//! (`dtm_machine::approval`); here it is shown, and asked for where a call comes without it.

use bytes::Bytes;
use dtm_doors::status::{applied, internal, status, told, told_with};
use dtm_identity::{Caller, Operation};
use dtm_machine::seams::StateRead;
use dtm_machine::{approval, reads};
use dtm_proto::admin as wire;
use dtm_types::command::admin::Op;
use dtm_types::command::{
    ApprovalRow, ApprovalState, DenyApproval, GrantApproval, OperatorRow, RequestApproval,
};
use dtm_types::text::Told;
use dtm_types::{ApprovalId, ErrorCode};
use serde_json::json;
use tonic::{Request, Status};

use super::{AdminDoor, Asker};

const SECOND_US: i64 = 1_000_000;
/// Version of meta from which on there are approvals.
pub(crate) const APPROVALS: u32 = 2;

/// What a second person is to say yes to.
pub(crate) struct Deed {
    pub kind: &'static str,
    pub object: String,
}

/// Names of who asked and who granted, for the sealed detail of what is done.
pub(crate) struct Approved {
    pub id: Bytes,
    pub requested_by: String,
    pub granted_by: String,
}

impl AdminDoor {
    pub(crate) async fn list_approvals(
        &self,
        request: Request<wire::ListApprovalsRequest>,
    ) -> Result<wire::ListApprovalsResponse, Status> {
        self.0.allow(&request, Operation::ListApprovals, None).await?;
        let all = request.get_ref().all;
        let now_us = self.0.clock.now_us();
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let people = reads::operators(meta.state.as_ref()).map_err(internal)?;
        let mut rows = reads::approvals(meta.state.as_ref()).map_err(internal)?;
        rows.retain(|row| all || approval::is_pending(row, now_us));
        rows.sort_unstable_by(|a, b| (b.requested_us, &b.id).cmp(&(a.requested_us, &a.id)));
        let approvals = rows.into_iter().map(|row| detail(row, &people, now_us)).collect();
        Ok(wire::ListApprovalsResponse { approvals })
    }

    pub(crate) async fn get_approval(
        &self,
        request: Request<wire::GetApprovalRequest>,
    ) -> Result<wire::GetApprovalResponse, Status> {
        self.0.allow(&request, Operation::ListApprovals, None).await?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let row = held(meta.state.as_ref(), &request.get_ref().id)?;
        let people = reads::operators(meta.state.as_ref()).map_err(internal)?;
        let approval = Some(detail(row, &people, self.0.clock.now_us()));
        Ok(wire::GetApprovalResponse { approval })
    }

    pub(crate) async fn request_approval(
        &self,
        request: Request<wire::RequestApprovalRequest>,
    ) -> Result<wire::RequestApprovalResponse, Status> {
        let asked = request.get_ref();
        let asker =
            self.asker(&request, Operation::RequestApproval, asked.context.as_ref()).await?;
        let Some(kind) = approval::KINDS.into_iter().find(|kind| *kind == asked.kind) else {
            let what = Told::new("refused.approval_kind").with("kinds", approval::KINDS.join(", "));
            return Err(told(ErrorCode::InvalidArgument, &what));
        };
        let valid_us = i64::from(asked.valid_seconds) * SECOND_US;
        if valid_us > approval::VALID_US_MAX {
            let what = Told::new("refused.approval_seconds").with("seconds", asked.valid_seconds);
            let what = what.with("max", approval::VALID_US_MAX / SECOND_US);
            return Err(told(ErrorCode::InvalidArgument, &what));
        }
        let row = self.ask(asker, Deed { kind, object: asked.object.clone() }, valid_us).await?;
        Ok(wire::RequestApprovalResponse { id: row.id, expires_us: row.expires_us })
    }

    pub(crate) async fn grant_approval(
        &self,
        request: Request<wire::GrantApprovalRequest>,
    ) -> Result<wire::GrantApprovalResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::GrantApproval, asked.context.as_ref()).await?;
        let op = Op::GrantApproval(GrantApproval {
            id: asked.id.clone(),
            object_digest: asked.object_digest.clone(),
            reason: asker.reason.clone(),
        });
        self.decide(asker, &asked.id, op).await?;
        Ok(wire::GrantApprovalResponse {})
    }

    pub(crate) async fn deny_approval(
        &self,
        request: Request<wire::DenyApprovalRequest>,
    ) -> Result<wire::DenyApprovalResponse, Status> {
        let asked = request.get_ref();
        let asker = self.asker(&request, Operation::DenyApproval, asked.context.as_ref()).await?;
        let reason = asker.reason.clone();
        let op = Op::DenyApproval(DenyApproval { id: asked.id.clone(), reason });
        self.decide(asker, &asked.id, op).await?;
        Ok(wire::DenyApprovalResponse {})
    }

    async fn decide(&self, asker: Asker, id: &[u8], op: Op) -> Result<(), Status> {
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let row = held(meta.state.as_ref(), id)?;
        let people = reads::operators(meta.state.as_ref()).map_err(internal)?;
        let detail = json!({
            "approval": text(id), "kind": row.kind, "object": row.object,
            "requested_by": name(&people, &row.requested_by), "requested_for": row.reason,
        });
        self.act(asker, op, None, detail).await.map(|_| ())
    }

    /// Enters a request. A repeated call with one request id is one request.
    async fn ask(&self, asker: Asker, deed: Deed, valid_us: i64) -> Result<ApprovalRow, Status> {
        let id = ApprovalId::from_slice(&asker.request_id);
        let id = id.unwrap_or_else(|| ApprovalId(self.0.entropy.id16()));
        let op = RequestApproval {
            id: Bytes::copy_from_slice(&id.0),
            kind: deed.kind.to_owned(),
            object_digest: Bytes::copy_from_slice(&approval::digest(deed.kind, &deed.object)),
            object: deed.object,
            reason: asker.reason.clone(),
            valid_us,
        };
        let detail = json!({"approval": id.to_string(), "kind": op.kind, "object": op.object});
        self.act(asker, Op::RequestApproval(op), None, detail).await?;
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        held(meta.state.as_ref(), &id.0)
    }

    /// The approval of exactly this that the caller brings. Apply looks again, in the entry that uses
    /// it up; here nothing is begun that would only be refused.
    ///
    /// # Errors
    /// `ApprovalNeeded`: without one, after it was asked for at once; with one that does not hold.
    pub(super) async fn approved(
        &self,
        asker: &Asker,
        deed: Deed,
        id: &Bytes,
    ) -> Result<Approved, Status> {
        let meta = self.0.directory.meta_now(self.0.view()).await?;
        let state = meta.state.as_ref();
        if reads::head(state).map_err(internal)?.format_version < APPROVALS {
            return Err(told(ErrorCode::NotSupported, &Told::new("refused.approval_version")));
        }
        let people = reads::operators(state).map_err(internal)?;
        let now_us = self.0.clock.now_us();
        if id.is_empty() {
            let rows = reads::approvals(state).map_err(internal)?;
            let known = pending(rows, &deed, person(&people, &asker.caller), now_us);
            let row = match known {
                Some(row) => row,
                None => self.ask(super::removal::of_its_own(asker), deed, 0).await?,
            };
            return Err(needed(&row));
        }
        let row = held(state, id)?;
        if let Some((code, why)) = obstacle(&row, &deed, now_us) {
            return Err(applied(code, why));
        }
        let [requested_by, granted_by] =
            [&row.requested_by, &row.decided_by].map(|id| name(&people, id));
        Ok(Approved { id: row.id, requested_by, granted_by })
    }
}

/// What stands against the use of an approval, in the words of apply.
fn obstacle(row: &ApprovalRow, deed: &Deed, now_us: i64) -> Option<(ErrorCode, &'static str)> {
    let needed = |why| Some((ErrorCode::ApprovalNeeded, why));
    match row.state() {
        ApprovalState::Used => needed("the approval was used"),
        ApprovalState::Denied => needed("the approval was denied"),
        _ if approval::is_expired(row, now_us) => {
            Some((ErrorCode::Expired, "the approval is past its time"))
        }
        ApprovalState::Granted => {
            let digest = approval::digest(deed.kind, &deed.object);
            let is_other = row.kind != deed.kind || row.object_digest != digest[..];
            is_other.then_some((
                ErrorCode::ApprovalNeeded,
                "the approval was granted for something else",
            ))
        }
        _ => needed("the approval is not granted yet"),
    }
}

/// What the same person asked for before, so that a call that is repeated asks once.
fn pending(
    rows: Vec<ApprovalRow>,
    deed: &Deed,
    who: Option<&OperatorRow>,
    now_us: i64,
) -> Option<ApprovalRow> {
    let digest = approval::digest(deed.kind, &deed.object);
    rows.into_iter().filter(|row| approval::is_pending(row, now_us)).find(|row| {
        row.object_digest == digest[..] && who.is_some_and(|who| who.id == row.requested_by)
    })
}

fn needed(row: &ApprovalRow) -> Status {
    let id = text(&row.id);
    let key = match row.state() {
        ApprovalState::Granted => "refused.approval_granted",
        _ => "refused.approval_asked",
    };
    let what = Told::new(key).with("id", &id);
    told_with(ErrorCode::ApprovalNeeded, &what, &[("approval", id)])
}

fn held(state: &dyn StateRead, id: &[u8]) -> Result<ApprovalRow, Status> {
    let Some(id) = ApprovalId::from_slice(id) else {
        return Err(status(ErrorCode::InvalidArgument, "an approval id has 16 bytes"));
    };
    let row = reads::approval(state, id).map_err(internal)?;
    row.ok_or_else(|| applied(ErrorCode::NotFound, "no such approval"))
}

fn detail(row: ApprovalRow, people: &[OperatorRow], now_us: i64) -> wire::ApprovalDetail {
    let [requested_by, decided_by, used_by] =
        [&row.requested_by, &row.decided_by, &row.used_by].map(|id| name(people, id));
    let expired = approval::is_expired(&row, now_us) && row.state() != ApprovalState::Denied;
    wire::ApprovalDetail { approval: Some(row), requested_by, decided_by, used_by, expired }
}

fn person<'a>(people: &'a [OperatorRow], caller: &Caller) -> Option<&'a OperatorRow> {
    let Caller::Operator { certificate_digest, .. } = caller else { return None };
    people.iter().find(|row| row.certificate_digest == certificate_digest[..])
}

fn name(people: &[OperatorRow], id: &[u8]) -> String {
    let found = people.iter().find(|row| !id.is_empty() && row.id == id);
    found.map(|row| row.name.clone()).unwrap_or_default()
}

fn text(id: &[u8]) -> String {
    ApprovalId::from_slice(id).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: ApprovalState, deed: &Deed) -> ApprovalRow {
        ApprovalRow {
            id: vec![1; 16].into(),
            kind: deed.kind.to_owned(),
            object: deed.object.clone(),
            object_digest: approval::digest(deed.kind, &deed.object).to_vec().into(),
            state: state.into(),
            requested_by: vec![2; 16].into(),
            expires_us: 10,
            ..ApprovalRow::default()
        }
    }

    fn deed(object: &str) -> Deed {
        Deed { kind: approval::REMOVE_NODE, object: object.to_owned() }
    }

    #[test]
    fn an_approval_that_apply_would_refuse_begins_nothing() {
        use ApprovalState::{Denied, Granted, Open, Used};
        let this = deed("node=1");
        let codes = [Open, Granted, Denied, Used]
            .map(|state| obstacle(&row(state, &this), &this, 9).map(|(code, _)| code));
        let needed = Some(ErrorCode::ApprovalNeeded);
        assert_eq!(codes, [needed, None, needed, needed]);
        let late = obstacle(&row(Granted, &this), &this, 10).map(|(code, _)| code);
        assert_eq!(late, Some(ErrorCode::Expired));
        assert!(obstacle(&row(Granted, &deed("node=2")), &this, 9).is_some(), "another object");
    }

    #[test]
    fn a_call_that_is_repeated_asks_once() {
        let this = deed("node=1");
        let who = OperatorRow { id: vec![2; 16].into(), ..OperatorRow::default() };
        let other = OperatorRow { id: vec![3; 16].into(), ..OperatorRow::default() };
        let rows = || vec![row(ApprovalState::Denied, &this), row(ApprovalState::Open, &this)];
        let found = |deed: &Deed, who, now_us| pending(rows(), deed, Some(who), now_us).is_some();
        assert!(found(&this, &who, 9));
        assert!(!found(&this, &who, 10), "past its time");
        assert!(!found(&this, &other, 9), "somebody else asked");
        assert!(!found(&deed("node=2"), &who, 9));
    }
}
