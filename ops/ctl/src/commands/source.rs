//! `dtm source add|list|show|key|certificate`.

use std::path::Path;

use dtm_proto::admin::{
    IssueSourceCertificateRequest, IssueSourceKeyRequest, ListSourcesRequest, PutSourceRequest,
    RevokeSourceCertificateRequest, RevokeSourceKeyRequest, SourceDetail,
};
use dtm_types::command::SourceLimits;
use dtm_types::format::Mode;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::source_row;
use super::text::{id, time};
use crate::args::{Globals, SourceArgs, SourceCommand, SourceKeyCommand};
use crate::{Failure, NewFile, Printer, Remote, confirm, key_files, make_request, pem, write_new};

/// SHA-256 of a certificate.
const DIGEST_BYTES: usize = 32;

pub(crate) async fn run(command: &SourceCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    let remote = Remote::connect(globals).await?;
    match command {
        SourceCommand::Add(args) => add(&remote, &printer, args).await,
        SourceCommand::List => {
            let sources = fetch(&remote, "").await?;
            let rows = sources.iter().map(|detail| row(detail, &printer)).collect();
            // Streams are told of one source at a time only.
            let document: Vec<_> = sources.iter().map(to_json).collect();
            printer.table(&HEAD, rows, &json!(document));
            Ok(())
        }
        SourceCommand::Show { source } => show(&remote, &printer, source).await,
        SourceCommand::Key(command) => key(&remote, &printer, command, globals).await,
        SourceCommand::Certificate { source, out, days } => {
            let (key, certificate) = key_files(out, source)?;
            let request = make_request(source)?;
            write_new(&key, request.key_pem.as_bytes(), 0o600).map_err(Failure::file(&key))?;
            let message = IssueSourceCertificateRequest {
                context: remote.why(),
                source: source.clone(),
                certificate_request: request.der.into(),
                valid_days: *days,
            };
            let made = match remote.admin().issue_source_certificate(remote.request(message)).await
            {
                Ok(made) => made.into_inner(),
                Err(status) => {
                    let _ = std::fs::remove_file(&key);
                    return Err(status.into());
                }
            };
            let chain = pem(&made.certificate_chain);
            write_new(&certificate, chain.as_bytes(), 0o644)
                .map_err(Failure::file(&certificate))?;
            let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
            let document = json!({ "source": source, "certificate": certificate, "key": key });
            printer.done(
                "cli.certificate_made",
                &[("name", source), ("file", &certificate)],
                &document,
            );
            Ok(())
        }
    }
}

async fn fetch(remote: &Remote, source: &str) -> Result<Vec<SourceDetail>, Failure> {
    let mut found = Vec::new();
    let mut request = ListSourcesRequest { source: source.into(), ..Default::default() };
    loop {
        let asked = remote.request(request.clone());
        let part = remote.admin().list_sources(asked).await?.into_inner();
        found.extend(part.sources);
        request.after = part.next;
        if request.after.is_empty() {
            return Ok(found);
        }
    }
}

/// A change starts from the row as it is, under whose version it is made.
async fn add(remote: &Remote, printer: &Printer<'_>, args: &SourceArgs) -> Result<(), Failure> {
    let present = if args.update {
        let found = fetch(remote, &args.source).await?.pop().and_then(|detail| detail.source);
        Some(found.ok_or_else(|| Failure::usage("cli.unknown_source", &[("name", &args.source)]))?)
    } else {
        None
    };
    let row = source_row::row(args, present);
    let message =
        PutSourceRequest { context: remote.why(), source: Some(row), update: args.update };
    let made = remote.admin().put_source(remote.request(message)).await?.into_inner();
    let (group, version) = (made.group.to_string(), made.version.to_string());
    let document = json!({ "source": args.source, "group": made.group, "version": made.version });
    let key = if args.update { "cli.source_changed" } else { "cli.source_added" };
    let values = [("name", &*args.source), ("group", &*group), ("version", &*version)];
    printer.done(key, &values, &document);
    Ok(())
}

async fn show(remote: &Remote, printer: &Printer<'_>, source: &str) -> Result<(), Failure> {
    let mut found = fetch(remote, source).await?;
    let Some(detail) = found.pop() else {
        return Err(Failure::usage("cli.unknown_source", &[("name", source)]));
    };
    if printer.is_json() {
        printer.json(&with_streams(to_json(&detail), &detail));
        return Ok(());
    }
    let (records, refused) = totals(&detail);
    let mut all = row(&detail, printer);
    // Limits have a table of their own.
    all.pop();
    all.extend([detail.streams.len().to_string(), records.to_string(), refused.to_string()]);
    let figures = ["streams", "records", "refused"];
    let head: Vec<_> = HEAD[..all.len() - figures.len()].iter().copied().chain(figures).collect();
    printer.table(&head, vec![all], &Value::Null);
    show_limits(printer, detail.source.as_ref().and_then(|source| source.limits));
    let agreements = detail.source.iter().flat_map(|source| &source.agreements);
    printer.raw("");
    printer.table(
        &["dataset", "modes", "form", "security", "priority", "ack_level"],
        agreements.map(source_row::told).collect(),
        &Value::Null,
    );
    credentials(&detail, printer);
    let streams = detail.streams.iter().map(|s| {
        vec![
            s.stream.clone(),
            s.dataset.clone(),
            s.through.to_string(),
            s.records.to_string(),
            s.refused.to_string(),
            s.duplicates.to_string(),
            s.reported.to_string(),
            s.unmasked.to_string(),
            time(s.last_time_us),
        ]
    });
    printer.raw("");
    printer.table(
        &[
            "stream",
            "dataset",
            "through",
            "records",
            "refused",
            "duplicates",
            "reported",
            "unmasked",
            "last",
        ],
        streams.collect(),
        &Value::Null,
    );
    Ok(())
}

/// The limits of its own, where there are any.
fn show_limits(printer: &Printer<'_>, own: Option<SourceLimits>) {
    let named = own.unwrap_or_default().named();
    let rows: Vec<_> =
        named.map(|(name, value)| vec![name.to_owned(), value.to_string()]).collect();
    if !rows.is_empty() {
        printer.raw("");
        printer.table(&["limit", "value"], rows, &Value::Null);
    }
}

/// Tables of a source's keys and certificates.
fn credentials(detail: &SourceDetail, printer: &Printer<'_>) {
    let state = |revoked: bool| {
        printer.text(if revoked { "cli.state.revoked" } else { "cli.state.in_force" }, &[])
    };
    let keys = detail.keys.iter();
    let keys: Vec<_> = keys
        .map(|k| {
            vec![
                hex::encode(&k.key_id),
                state(k.revoked),
                time(k.not_before_us),
                time(k.not_after_us),
            ]
        })
        .collect();
    printer.raw("");
    printer.table(&["key", "state", "from", "until"], keys, &Value::Null);
    let certificates = detail.certificates.iter().map(|c| {
        vec![hex::encode(&c.digest), state(c.revoked), time(c.issued_us), time(c.not_after_us)]
    });
    let head = ["certificate", "state", "from", "until"];
    printer.raw("");
    printer.table(&head, certificates.collect(), &Value::Null);
}

async fn key(
    remote: &Remote,
    printer: &Printer<'_>,
    command: &SourceKeyCommand,
    globals: &Globals,
) -> Result<(), Failure> {
    match command {
        SourceKeyCommand::Issue { source, days, out } => {
            issue(remote, printer, source, *days, out.as_deref()).await?;
        }
        SourceKeyCommand::Revoke { source, key_id } => {
            let bytes = hex::decode(key_id)
                .map_err(|_| Failure::usage("cli.bad_key_id", &[("name", key_id)]))?;
            confirm(globals, "cli.confirm_revoke_key", &[("name", source), ("key", key_id)])?;
            revoke(remote, source, bytes).await?;
            printer.done(
                "cli.key_revoked",
                &[("name", source), ("key", key_id)],
                &json!({ "source": source, "revoked": key_id }),
            );
        }
    }
    Ok(())
}

/// The key is shown once: its file is there before the key is made.
async fn issue(
    remote: &Remote,
    printer: &Printer<'_>,
    source: &str,
    valid_days: i64,
    out: Option<&Path>,
) -> Result<(), Failure> {
    let place = match out {
        Some(path) => Some((path, NewFile::create(path, 0o600).map_err(Failure::file(path))?)),
        None => None,
    };
    let message =
        IssueSourceKeyRequest { context: remote.why(), source: source.to_owned(), valid_days };
    let made = remote.admin().issue_source_key(remote.request(message)).await?.into_inner();
    let shown = Zeroizing::new(made.key);
    let (key_id, until) = (hex::encode(&made.key_id), time(made.not_after_us));
    match place {
        Some((path, place)) => {
            let line = Zeroizing::new(format!("{}\n", shown.as_str()));
            place.fill(line.as_bytes()).map_err(Failure::file(path))?;
            let file = path.display().to_string();
            let document =
                json!({ "source": source, "key_id": key_id, "not_after": until, "file": file });
            let values = [("name", source), ("file", &*file), ("time", &*until)];
            printer.done("cli.key_written", &values, &document);
        }
        None if printer.is_json() => {
            printer.json(&json!({ "source": source, "key_id": key_id, "not_after": until, "key": shown.as_str() }));
        }
        None => {
            let values = [("name", source), ("time", &*until)];
            eprintln!("{}", printer.text("cli.key_shown", &values));
            printer.raw(&shown);
        }
    }
    Ok(())
}

/// A key by its id of 8 bytes, or a certificate by its digest.
async fn revoke(remote: &Remote, source: &str, shown: Vec<u8>) -> Result<(), Failure> {
    let (context, source) = (remote.why(), source.to_owned());
    if shown.len() == DIGEST_BYTES {
        let message = RevokeSourceCertificateRequest { context, source, digest: shown.into() };
        remote.admin().revoke_source_certificate(remote.request(message)).await?;
    } else {
        let message = RevokeSourceKeyRequest { context, source, key_id: shown.into() };
        remote.admin().revoke_source_key(remote.request(message)).await?;
    }
    Ok(())
}

fn totals(detail: &SourceDetail) -> (u64, u64) {
    detail
        .streams
        .iter()
        .fold((0, 0), |(records, refused), s| (records + s.records, refused + s.refused))
}

/// Columns of [`row`].
const HEAD: [&str; 7] = ["source", "title", "agency", "group", "datasets", "state", "limits"];

fn row(detail: &SourceDetail, printer: &Printer<'_>) -> Vec<String> {
    let source = detail.source.clone().unwrap_or_default();
    let state = if source.suspended { "cli.state.suspended" } else { "cli.state.in_force" };
    let datasets: Vec<_> = source.agreements.iter().map(|a| a.dataset.as_str()).collect();
    let limits = source.limits.unwrap_or_default();
    let limits = limits.named().map(|(name, value)| format!("{name}={value}"));
    vec![
        source.source.clone(),
        source.title_vi.clone(),
        source.agency_code.clone(),
        source.group.to_string(),
        datasets.join(","),
        printer.text(state, &[]),
        limits.collect::<Vec<_>>().join(","),
    ]
}

/// What one source has sent, beside what it is.
fn with_streams(mut document: Value, detail: &SourceDetail) -> Value {
    let streams = detail.streams.iter().map(|s| {
        json!({ "stream": s.stream, "dataset": s.dataset, "through": s.through, "records": s.records,
                "refused": s.refused, "duplicates": s.duplicates, "reported": s.reported,
                "unmasked": s.unmasked, "last": time(s.last_time_us), "finished": s.finished })
    });
    document["streams"] = streams.collect();
    let (records, refused) = totals(detail);
    document["records"] = records.into();
    document["refused"] = refused.into();
    document
}

fn to_json(detail: &SourceDetail) -> Value {
    let source = detail.source.clone().unwrap_or_default();
    let agreements = source.agreements.iter().map(|a| {
        let modes: Vec<_> = a.modes.iter().filter_map(|m| Mode::try_from(*m).ok()).map(|m| m.as_str_name()).collect();
        json!({ "dataset": a.dataset, "modes": modes, "form": a.form().as_str_name(), "refuse_raw": a.refuse_raw,
                "security_status": a.security_status, "priority": a.priority,
                "ack_level": source_row::ack_level(a) })
    });
    let limits = source.limits.unwrap_or_default().named();
    let limits: serde_json::Map<_, _> =
        limits.map(|(name, value)| (name.to_owned(), value.into())).collect();
    let keys = detail.keys.iter().map(|k| {
        json!({ "key_id": hex::encode(&k.key_id), "revoked": k.revoked, "not_before": time(k.not_before_us),
                "not_after": time(k.not_after_us) })
    });
    let certificates = detail.certificates.iter().map(|c| {
        json!({ "digest": hex::encode(&c.digest), "serial": hex::encode(&c.serial),
                "revoked": c.revoked, "issued": time(c.issued_us), "not_after": time(c.not_after_us) })
    });
    json!({
        "source": source.source, "id": id(&source.id), "title_vi": source.title_vi, "title_en": source.title_en,
        "agency_code": source.agency_code, "class": source.class, "sector": source.sector, "locality": source.locality,
        "group": source.group, "suspended": source.suspended, "version": source.version,
        "agreements": agreements.collect::<Vec<_>>(), "limits": limits, "keys": keys.collect::<Vec<_>>(),
        "certificates": certificates.collect::<Vec<_>>(),
    })
}
