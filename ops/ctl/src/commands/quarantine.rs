//! `dtm quarantine list|show|resend`.

use std::path::Path;

use dtm_proto::records::{QuarantineRequest, QuarantinedRecord, ResendRequest};
use serde_json::{Value, json};

use super::text::time;
use crate::args::{Globals, QuarantineCommand};
use crate::{Exit, Failure, Printer, Remote};

/// Most records that `show` looks through.
const SEARCH_RECORDS_MAX: u64 = 100_000;

pub(crate) async fn run(command: &QuarantineCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    let remote = Remote::connect(globals).await?;
    match command {
        QuarantineCommand::List { source, limit } => {
            list(&remote, &printer, source.as_deref(), *limit).await
        }
        QuarantineCommand::Resend { id, source, file } => {
            resend(&remote, &printer, source.as_deref(), id, file.as_deref()).await
        }
        QuarantineCommand::Show { id, source } => {
            show(&remote, &printer, source.as_deref(), id).await
        }
    }
}

async fn list(
    remote: &Remote,
    printer: &Printer<'_>,
    source: Option<&str>,
    limit: u64,
) -> Result<(), Failure> {
    let message = QuarantineRequest {
        source: remote.known_source(source)?,
        records_max: limit,
        ..Default::default()
    };
    let mut stream = remote.records().quarantine(remote.request(message)).await?.into_inner();
    let (mut rows, mut document, mut beyond) = (Vec::new(), Vec::new(), 0);
    while let Some(page) = stream.message().await? {
        for record in &page.records {
            let reason = messages(record, printer).next().unwrap_or_default();
            rows.push(vec![
                record.id.clone(),
                format!("{}/{}", record.source, record.stream),
                record.sequence.to_string(),
                record.dataset.clone(),
                time(record.group_time_us),
                state(record, printer),
                reason,
            ]);
            document.push(to_json(record));
        }
        beyond = beyond.max(page.beyond_quota);
    }
    printer.table(
        &["id", "stream", "sequence", "dataset", "time", "state", "reason"],
        rows,
        &json!({ "records": document, "beyond_quota": beyond }),
    );
    if beyond > 0 {
        printer.say("cli.beyond_quota", &[("count", &beyond.to_string())]);
    }
    Ok(())
}

async fn show(
    remote: &Remote,
    printer: &Printer<'_>,
    source: Option<&str>,
    id: &str,
) -> Result<(), Failure> {
    let message = QuarantineRequest {
        source: remote.known_source(source)?,
        records_max: SEARCH_RECORDS_MAX,
        ..Default::default()
    };
    let mut stream = remote.records().quarantine(remote.request(message)).await?.into_inner();
    while let Some(page) = stream.message().await? {
        let Some(record) = page.records.iter().find(|record| record.id == id) else {
            continue;
        };
        if printer.is_json() {
            printer.json(&to_json(record));
            return Ok(());
        }
        tell(record, printer);
        return Ok(());
    }
    Err(Failure::usage("cli.no_record", &[]))
}

/// One refused record for people: where it stood, why it was refused, and its content where the
/// caller may read that.
pub(super) fn tell(record: &QuarantinedRecord, printer: &Printer<'_>) {
    let place = format!("{}/{} #{}", record.source, record.stream, record.sequence);
    printer.say(
        "cli.refused_record",
        &[("id", &record.id), ("place", &place), ("time", &time(record.group_time_us))],
    );
    for message in messages(record, printer) {
        printer.raw(&format!("  - {message}"));
    }
    if !record.resend_of.is_empty() {
        let of = printer.text("cli.resend_of", &[("id", &record.resend_of)]);
        printer.raw(&format!("  {of}"));
    }
    printer.raw(&format!("  {}", state(record, printer)));
    if !record.payload.is_empty() {
        printer.raw(&String::from_utf8_lossy(&record.payload));
    }
}

async fn resend(
    remote: &Remote,
    printer: &Printer<'_>,
    source: Option<&str>,
    id: &str,
    file: Option<&Path>,
) -> Result<(), Failure> {
    let payload = match file {
        None => Vec::new(),
        Some(path) => std::fs::read(path).map_err(Failure::file(path))?.trim_ascii().to_vec(),
    };
    let why = remote.why().unwrap_or_default();
    let message = ResendRequest {
        source: remote.known_source(source)?,
        id: id.to_owned(),
        payload: payload.into(),
        reason: why.reason,
        request_id: why.request_id,
    };
    let answer = remote.records().resend(remote.request(message)).await?.into_inner();
    let refused = answer.refused.as_ref();
    if printer.is_json() {
        printer.json(&json!({
            "id": id, "stream": answer.stream, "sequence": answer.sequence,
            "leaf_index": answer.leaf_index, "duplicate": answer.is_duplicate,
            "stored": refused.is_none() && !answer.is_duplicate, "refused": refused.map(to_json),
        }));
    } else {
        let key = match refused {
            Some(_) => "cli.resent_refused",
            None if answer.is_duplicate => "cli.resent_duplicate",
            None => "cli.resent",
        };
        let sequence = answer.sequence.to_string();
        printer.say(key, &[("id", id), ("stream", &answer.stream), ("sequence", &sequence)]);
        for message in refused.into_iter().flat_map(|record| messages(record, printer)) {
            printer.raw(&format!("  - {message}"));
        }
    }
    match refused {
        Some(_) => Err(Failure::Verdict { key: "cli.some_refused", exit: Exit::Failed }),
        None => Ok(()),
    }
}

/// The reasons in the user's language, the other one where there is none.
fn messages<'a>(
    record: &'a QuarantinedRecord,
    printer: &Printer<'_>,
) -> impl Iterator<Item = String> + 'a {
    let is_vi = printer.is_vi();
    let (first, second) = (&record.messages_vi, &record.messages_en);
    let chosen = match (is_vi, first.is_empty(), second.is_empty()) {
        (true, false, _) | (false, _, true) => first,
        _ => second,
    };
    chosen.iter().cloned()
}

/// What became of it since.
fn state(record: &QuarantinedRecord, printer: &Printer<'_>) -> String {
    let Some(resent) = &record.resent else { return printer.text("cli.resent_not", &[]) };
    let key = match (resent.sequence, resent.is_duplicate) {
        (1.., _) => "cli.resent_stored",
        (0, true) => "cli.resent_held",
        (0, false) => "cli.resent_again",
    };
    let (sequence, count) = (resent.sequence.to_string(), resent.refused.to_string());
    printer.text(key, &[("stream", &resent.stream), ("sequence", &sequence), ("count", &count)])
}

/// One refused record.
pub(super) fn to_json(record: &QuarantinedRecord) -> Value {
    let violations = record.violations.iter().map(|v| {
        json!({ "pointer": v.pointer, "rule": v.rule, "expected": v.expected, "found": v.found })
    });
    json!({
        "id": record.id, "source": record.source, "stream": record.stream, "sequence": record.sequence,
        "dataset": record.dataset, "message_id": record.message_id, "time": time(record.group_time_us),
        "violations": violations.collect::<Vec<_>>(), "messages_vi": record.messages_vi,
        "messages_en": record.messages_en,
        "resend_of": (!record.resend_of.is_empty()).then_some(&record.resend_of),
        "resent": record.resent.as_ref().map(|resent| json!({
            "stream": resent.stream, "sequence": resent.sequence, "duplicate": resent.is_duplicate,
            "refused": resent.refused })),
        "payload": (!record.payload.is_empty()).then(|| String::from_utf8_lossy(&record.payload).into_owned()),
    })
}
