//! `dtm operator add|list|revoke`.

use std::path::Path;

use dtm_proto::admin::{AddOperatorRequest, ListOperatorsRequest, RevokeOperatorRequest};
use serde_json::json;

use super::text::time;
use crate::args::{Globals, OperatorCommand};
use crate::{Failure, Printer, Remote, confirm, key_files, make_request, pem, write_new};

pub(crate) async fn run(command: &OperatorCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    match command {
        OperatorCommand::Add { name, role, out, days, update } => {
            let message = AddOperatorRequest {
                name: name.clone(),
                role: role.clone(),
                valid_days: *days,
                update: *update,
                ..AddOperatorRequest::default()
            };
            add(globals, &printer, message, out).await?;
        }
        OperatorCommand::List => {
            let remote = Remote::connect(globals).await?;
            let list = remote
                .admin()
                .list_operators(remote.request(ListOperatorsRequest {}))
                .await?
                .into_inner();
            let state = |revoked: bool| {
                printer.text(if revoked { "cli.state.revoked" } else { "cli.state.in_force" }, &[])
            };
            let rows = list.operators.iter();
            let rows = rows
                .map(|o| {
                    vec![o.name.clone(), o.role.clone(), state(o.revoked), time(o.not_after_us)]
                })
                .collect();
            let document: Vec<_> = list
                .operators
                .iter()
                .map(|o| json!({ "name": o.name, "role": o.role, "revoked": o.revoked, "not_after": time(o.not_after_us),
                                 "certificate_digest": hex::encode(&o.certificate_digest) }))
                .collect();
            printer.table(&["name", "role", "state", "until"], rows, &json!(document));
        }
        OperatorCommand::Revoke { name } => {
            confirm(globals, "cli.confirm_revoke_operator", &[("name", name)])?;
            let remote = Remote::connect(globals).await?;
            let message = RevokeOperatorRequest { context: remote.why(), name: name.clone() };
            remote.admin().revoke_operator(remote.request(message)).await?;
            printer.done("cli.operator_revoked", &[("name", name)], &json!({ "revoked": name }));
        }
    }
    Ok(())
}

/// Makes the key here; only the request leaves this machine.
async fn add(
    globals: &Globals,
    printer: &Printer<'_>,
    mut message: AddOperatorRequest,
    out: &Path,
) -> Result<(), Failure> {
    let (name, role, update) = (message.name.clone(), message.role.clone(), message.update);
    let (key, certificate) = key_files(out, &name)?;
    let remote = Remote::connect(globals).await?;
    let request = make_request(&name)?;
    // The key first: a certificate without its key is of no use.
    write_new(&key, request.key_pem.as_bytes(), 0o600).map_err(Failure::file(&key))?;
    message.context = remote.why();
    message.certificate_request = request.der.into();
    let made = match remote.admin().add_operator(remote.request(message)).await {
        Ok(made) => made.into_inner(),
        Err(status) => {
            // Nobody holds a certificate for it.
            let _ = std::fs::remove_file(&key);
            return Err(status.into());
        }
    };
    let chain = pem(&made.certificate_chain);
    write_new(&certificate, chain.as_bytes(), 0o644).map_err(Failure::file(&certificate))?;
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    printer.done(
        if update { "cli.operator_updated" } else { "cli.operator_added" },
        &[("name", &name), ("role", &role), ("file", &certificate)],
        &json!({ "name": name, "role": role, "certificate": certificate, "key": key }),
    );
    Ok(())
}
