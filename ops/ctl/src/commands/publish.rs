//! `dtm publish`: files, folders and standard input.

use std::path::Path;
use std::sync::Arc;

use dtm_catalog::Definition;
use dtm_client::publish::{PublishOptions, PublishProgress, Summary, publish_path, publish_reader};
use dtm_client::{Form, IdPolicy};
use dtm_proto::admin::ListDatasetsRequest;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::args::{Globals, PublishArgs, SendForm};
use crate::{Exit, Failure, Printer, Remote};

/// Refused lines that are shown; the rest is in the quarantine.
const SHOWN_MAX: usize = 20;

pub(crate) async fn run(args: &PublishArgs, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    let (endpoint, context) = Remote::endpoint(globals)?;
    let remote = Remote::over(endpoint.clone(), context, globals).await?;
    let source = remote.source(args.source.as_deref());
    if source.is_empty() {
        return Err(Failure::usage("cli.no_source", &[]));
    }
    let mut options = PublishOptions::new(&source, &args.dataset);
    options.definition = definition(&remote, &args.dataset, args.schema_version).await?;
    options.publisher.schema_version = args.schema_version;
    options.publisher.stream = args.stream.clone().unwrap_or_default();
    options.publisher.form = match args.form {
        SendForm::Raw => Form::Raw,
        SendForm::Masked => Form::Masked,
    };
    if let Some(member) = &args.id_member {
        options.message_id_member = Some(member.clone());
        options.publisher.ids = IdPolicy::MessageId;
    }
    let bar = progress_bar(printer.is_json());
    let on_progress = |progress: &PublishProgress| show(&bar, progress);
    let mut summaries = Vec::new();
    for input in &args.inputs {
        let summary = if input == Path::new("-") {
            if options.publisher.stream.is_empty() {
                return Err(Failure::usage("cli.stdin_needs_stream", &[]));
            }
            publish_reader(&endpoint, &options, "-", Box::new(std::io::stdin()), &on_progress)
                .await?
        } else {
            publish_path(&endpoint, &options, input, &on_progress).await?
        };
        summaries.push((input.display().to_string(), summary));
    }
    bar.finish_and_clear();
    report(&printer, &summaries, globals);
    if summaries.iter().any(|(_, summary)| summary.exit_status() != 0) {
        return Err(Failure::Verdict { key: "cli.some_refused", exit: Exit::Failed });
    }
    Ok(())
}

/// The definition that the cluster has: tables need it for the types of their columns.
pub(super) async fn definition(
    remote: &Remote,
    dataset: &str,
    version: u32,
) -> Result<Option<Arc<Definition>>, Failure> {
    let request = remote.request(ListDatasetsRequest { dataset: dataset.into() });
    let rows = remote.admin().list_datasets(request).await?.into_inner().datasets;
    let wanted = rows.into_iter().filter(|row| version == 0 || row.schema_version == version);
    let Some(row) = wanted.max_by_key(|row| row.schema_version) else {
        return Err(Failure::usage("cli.unknown_dataset", &[("name", dataset)]));
    };
    Ok(Some(Arc::new(Definition::parse(&row.definition, dataset)?)))
}

fn progress_bar(is_hidden: bool) -> ProgressBar {
    let target =
        if is_hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
    bar.set_style(style.expect("a fixed template"));
    bar
}

fn show(bar: &ProgressBar, progress: &PublishProgress) {
    bar.set_length(progress.bytes_total.max(progress.bytes_read));
    bar.set_position(progress.bytes_read);
    bar.set_message(format!("{} ✓{} ✗{}", progress.file, progress.acked_through, progress.refused));
}

fn report(printer: &Printer<'_>, summaries: &[(String, Summary)], globals: &Globals) {
    if printer.is_json() {
        let documents: Vec<_> =
            summaries.iter().map(|(input, summary)| to_json(input, summary)).collect();
        return printer.json(&json!(documents));
    }
    for (input, summary) in summaries {
        printer.say(
            "cli.published",
            &[
                ("name", input),
                ("sent", &summary.sent.to_string()),
                ("skipped", &summary.skipped.to_string()),
                ("refused", &summary.refused.to_string()),
                ("duplicates", &summary.duplicates.to_string()),
            ],
        );
        for refusal in summary.refusals.iter().take(SHOWN_MAX) {
            let line = refusal.line.to_string();
            let reason = refusal.reasons(globals.lang).join("; ");
            printer.say(
                "cli.refused_line",
                &[("name", &refusal.file), ("line", &line), ("reason", &reason)],
            );
        }
        if summary.conflicts > 0 {
            printer.say("cli.conflicts", &[("count", &summary.conflicts.to_string())]);
        }
    }
}

fn to_json(input: &str, summary: &Summary) -> Value {
    let refusals = summary.refusals.iter().map(|refusal| {
        json!({ "file": refusal.file, "line": refusal.line, "sequence": refusal.sequence,
                "pointers": refusal.pointers, "reasons_vi": refusal.reasons_vi, "reasons_en": refusal.reasons_en })
    });
    json!({
        "input": input, "sent": summary.sent, "skipped": summary.skipped, "refused": summary.refused,
        "conflicts": summary.conflicts, "duplicates": summary.duplicates, "acked_through": summary.acked_through,
        "files_already_stored": summary.files_already_stored, "bytes_read": summary.bytes_read,
        "refusals": refusals.collect::<Vec<_>>(),
    })
}
