//! `dtm approval list|show|grant|deny|sign`.

use dtm_proto::admin::{
    ApprovalDetail, DenyApprovalRequest, GetApprovalRequest, GrantApprovalRequest,
    ListApprovalsRequest,
};
use dtm_types::ApprovalId;
use dtm_types::command::{ApprovalRow, ApprovalState};
use serde_json::{Value, json};

use super::text::{id, time};
use crate::args::{ApprovalCommand, Globals};
use crate::{Failure, Printer, Remote, confirm};

pub(crate) async fn run(command: &ApprovalCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    if let ApprovalCommand::Sign { file } = command {
        return super::split::sign(globals, &printer, file);
    }
    let remote = Remote::connect(globals).await?;
    match command {
        ApprovalCommand::Sign { .. } => Ok(()),
        ApprovalCommand::List { all } => list(&remote, &printer, *all).await,
        ApprovalCommand::Show { id } => {
            show(&fetch(&remote, *id).await?, &printer);
            Ok(())
        }
        ApprovalCommand::Grant { id } => grant(globals, &remote, &printer, *id).await,
        ApprovalCommand::Deny { id } => deny(globals, &remote, &printer, *id).await,
    }
}

async fn list(remote: &Remote, printer: &Printer<'_>, all: bool) -> Result<(), Failure> {
    let request = remote.request(ListApprovalsRequest { all });
    let found = remote.admin().list_approvals(request).await?.into_inner().approvals;
    let rows = found.iter().map(|detail| {
        let row = row(detail);
        let state = printer.text(&format!("cli.approval.{}", state(detail)), &[]);
        vec![
            id(&row.id),
            row.kind.clone(),
            row.object.clone(),
            person(&detail.requested_by, &row.requested_by),
            state,
            time(row.expires_us),
            row.reason.clone(),
        ]
    });
    let document: Vec<_> = found.iter().map(document).collect();
    let columns = ["approval", "kind", "object", "asked_by", "state", "until", "reason"];
    printer.table(&columns, rows.collect(), &json!(document));
    Ok(())
}

async fn fetch(remote: &Remote, id: ApprovalId) -> Result<ApprovalDetail, Failure> {
    let request = remote.request(GetApprovalRequest { id: id.0.to_vec().into() });
    let found = remote.admin().get_approval(request).await?.into_inner().approval;
    Ok(found.unwrap_or_default())
}

fn show(detail: &ApprovalDetail, printer: &Printer<'_>) {
    if printer.is_json() {
        return printer.json(&document(detail));
    }
    let row = row(detail);
    let state = printer.text(&format!("cli.approval.{}", state(detail)), &[]);
    printer.say("cli.approval_what", &[("kind", &*row.kind), ("object", &*row.object)]);
    let digest = hex::encode(&row.object_digest);
    printer.say("cli.approval_id", &[("id", &*id(&row.id)), ("digest", &*digest)]);
    let by = person(&detail.requested_by, &row.requested_by);
    let values =
        [("by", &*by), ("time", &*time(row.requested_us)), ("reason", &*or_dash(&row.reason))];
    printer.say("cli.approval_asked", &values);
    printer.say("cli.approval_state", &[("state", &*state), ("until", &*time(row.expires_us))]);
    let acts = [
        ("cli.approval_decided", &detail.decided_by, &row.decided_by, row.decided_us),
        ("cli.approval_used", &detail.used_by, &row.used_by, row.used_us),
    ];
    for (key, name, who, time_us) in acts.into_iter().filter(|(_, _, who, _)| !who.is_empty()) {
        let reason = or_dash(&row.decision_reason);
        let values = [("by", &*person(name, who)), ("time", &*time(time_us)), ("reason", &*reason)];
        printer.say(key, &values);
    }
}

/// Shows what is granted before it asks: that, and nothing else, is granted.
async fn grant(
    globals: &Globals,
    remote: &Remote,
    printer: &Printer<'_>,
    approval: ApprovalId,
) -> Result<(), Failure> {
    let detail = fetch(remote, approval).await?;
    let row = row(&detail);
    let by = person(&detail.requested_by, &row.requested_by);
    let values = [("kind", &*row.kind), ("object", &*row.object), ("by", &*by)];
    confirm(globals, "cli.confirm_grant_approval", &values)?;
    let request = GrantApprovalRequest {
        context: remote.why(),
        id: row.id.clone(),
        object_digest: row.object_digest.clone(),
    };
    remote.admin().grant_approval(remote.request(request)).await?;
    let shown = approval.to_string();
    let document = json!({ "granted": shown, "kind": row.kind, "object": row.object });
    printer.done("cli.approval_granted", &[("id", &shown)], &document);
    Ok(())
}

async fn deny(
    globals: &Globals,
    remote: &Remote,
    printer: &Printer<'_>,
    approval: ApprovalId,
) -> Result<(), Failure> {
    let shown = approval.to_string();
    confirm(globals, "cli.confirm_deny_approval", &[("id", &shown)])?;
    let request = DenyApprovalRequest { context: remote.why(), id: approval.0.to_vec().into() };
    remote.admin().deny_approval(remote.request(request)).await?;
    printer.done("cli.approval_denied", &[("id", &shown)], &json!({ "denied": shown }));
    Ok(())
}

fn row(detail: &ApprovalDetail) -> ApprovalRow {
    detail.approval.clone().unwrap_or_default()
}

/// A word that programs rely on; its text is `cli.approval.WORD`.
fn state(detail: &ApprovalDetail) -> &'static str {
    if detail.expired {
        return "expired";
    }
    match row(detail).state() {
        ApprovalState::Granted => "granted",
        ApprovalState::Denied => "denied",
        ApprovalState::Used => "used",
        ApprovalState::Open | ApprovalState::Unspecified => "open",
    }
}

/// Who is no operator any more is shown by the id.
fn person(name: &str, who: &[u8]) -> String {
    if name.is_empty() { id(who) } else { name.to_owned() }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn document(detail: &ApprovalDetail) -> Value {
    let row = row(detail);
    let person = |name: &str, who: &[u8], time_us: i64| {
        (!who.is_empty()).then(|| json!({ "name": name, "id": id(who), "time": time(time_us) }))
    };
    json!({
        "id": id(&row.id), "kind": row.kind, "object": row.object,
        "digest": hex::encode(&row.object_digest), "state": state(detail), "reason": row.reason,
        "decision_reason": row.decision_reason, "expires": time(row.expires_us),
        "requested": person(&detail.requested_by, &row.requested_by, row.requested_us),
        "decided": person(&detail.decided_by, &row.decided_by, row.decided_us),
        "used": person(&detail.used_by, &row.used_by, row.used_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_an_approval_past_its_time_says_so() {
        let detail = |state: ApprovalState, expired| ApprovalDetail {
            approval: Some(ApprovalRow { state: state.into(), ..ApprovalRow::default() }),
            expired,
            ..ApprovalDetail::default()
        };
        assert_eq!(state(&detail(ApprovalState::Granted, false)), "granted");
        assert_eq!(state(&detail(ApprovalState::Granted, true)), "expired");
        assert_eq!(document(&detail(ApprovalState::Used, false))["state"], "used");
        assert_eq!(person("", &[1; 16]), id(&[1; 16]));
    }
}
