//! `dtm publish`: files, folders and standard input, one after the other. What concerns one of them
//! alone is told, and the next is published.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dtm_catalog::Definition;
use dtm_client::publish::{
    Error, GoOn, PublishOptions, PublishProgress, Summary, folder_files, publish_path,
    publish_reader,
};
use dtm_client::{Endpoint, Form, IdPolicy};
use dtm_types::command::DatasetRow;
use dtm_types::text::Lang;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::dataset::fetch;
use crate::args::{Globals, PublishArgs, SendForm};
use crate::contexts::{self, Context};
use crate::told::of_input;
use crate::{Exit, Failure, Printer, Remote};

/// Refused lines that are shown; the rest is in the quarantine.
const SHOWN_MAX: usize = 20;

pub(crate) async fn run(args: &PublishArgs, globals: &Globals) -> Result<(), Failure> {
    let (endpoint, context) = Remote::endpoint(globals)?;
    let history = history_folder(&context)?;
    let remote = Remote::over(endpoint.clone(), context, globals).await?;
    let source = remote.source(args.source.as_deref());
    if source.is_empty() {
        return Err(Failure::usage("cli.no_source", &[]));
    }
    let mut options = PublishOptions::new(&source, &args.dataset);
    options.definition = definition(&remote, &args.dataset, args.schema_version).await?;
    options.history = Some(history);
    options.go_on = match (args.resume, args.append) {
        (true, _) => GoOn::Resume,
        (_, true) => GoOn::Append,
        _ => GoOn::Known,
    };
    options.delimiter = args.delimiter;
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
    let is_stdin = |input: &PathBuf| input == Path::new("-");
    if options.publisher.stream.is_empty() && args.inputs.iter().any(is_stdin) {
        return Err(Failure::usage("cli.stdin_needs_stream", &[]));
    }
    let mut work = Work {
        printer: Printer::new(globals),
        lang: globals.lang,
        bar: progress_bar(drawn_on(globals.output == crate::args::Output::Json)),
        documents: Vec::new(),
        has_refused: false,
        has_unsendable: false,
        has_failed: false,
    };
    let ended = work.all(&endpoint, &options, &args.inputs).await;
    work.bar.finish_and_clear();
    if work.printer.is_json() {
        work.printer.json(&json!(work.documents));
    }
    ended?;
    let key = match (work.has_failed, work.has_refused, work.has_unsendable) {
        (true, _, _) => "cli.some_not_sent",
        (_, true, _) => "cli.some_refused",
        (_, _, true) => "cli.some_unsendable",
        _ => return Ok(()),
    };
    Err(Failure::Verdict { key, exit: Exit::Failed })
}

/// Where it is noted what streams hold: beside the contexts, a folder for each cluster, which its
/// root certificate names.
fn history_folder(context: &Context) -> Result<PathBuf, Failure> {
    Ok(contexts::path().with_file_name("streams").join(cluster_mark(context)?))
}

/// By what a cluster is known while it is away: the digest of its CA.
pub(super) fn cluster_mark(context: &Context) -> Result<String, Failure> {
    let ca = std::fs::read(&context.ca).map_err(Failure::file(&context.ca))?;
    Ok(hex::encode(&Sha256::digest(ca)[..8]))
}

/// What is published and how it went.
struct Work<'a> {
    printer: Printer<'a>,
    lang: Lang,
    bar: ProgressBar,
    documents: Vec<Value>,
    has_refused: bool,
    has_unsendable: bool,
    has_failed: bool,
}

impl Work<'_> {
    async fn all(
        &mut self,
        endpoint: &Endpoint,
        options: &PublishOptions,
        inputs: &[PathBuf],
    ) -> Result<(), Failure> {
        for input in inputs {
            if !input.is_dir() {
                self.one(endpoint, options, input).await?;
                continue;
            }
            let found = match folder_files(input) {
                Ok(found) => found,
                Err(error) => {
                    self.failed(input, &error);
                    continue;
                }
            };
            for folder in &found.folders {
                self.passed_by("cli.folder_passed", folder);
            }
            for file in &found.unknown {
                self.has_failed = true;
                self.passed_by("cli.file_passed", file);
            }
            for file in &found.files {
                self.one(endpoint, options, file).await?;
            }
        }
        Ok(())
    }

    /// One file or standard input.
    ///
    /// # Errors
    /// Only what will meet the next input too.
    async fn one(
        &mut self,
        endpoint: &Endpoint,
        options: &PublishOptions,
        input: &Path,
    ) -> Result<(), Failure> {
        let bar = self.bar.clone();
        let on_progress = move |progress: &PublishProgress| show(&bar, progress);
        let done = if input == Path::new("-") {
            let stdin = Box::new(std::io::stdin());
            publish_reader(endpoint, options, "-", stdin, &on_progress).await
        } else {
            publish_path(endpoint, options, input, &on_progress).await
        };
        match done {
            Ok(summary) => {
                self.has_refused |= summary.refused > summary.unsendable || summary.conflicts > 0;
                self.has_unsendable |= summary.unsendable > 0;
                self.report(&input.display().to_string(), &summary);
                Ok(())
            }
            Err(error) if error.concerns_one_input() => {
                self.failed(input, &error);
                Ok(())
            }
            Err(error) => {
                let name = input.display().to_string();
                self.documents.push(json!({ "input": name, "error": of_input(&error, self.lang) }));
                Err(error.into())
            }
        }
    }

    fn failed(&mut self, input: &Path, error: &Error) {
        self.has_failed = true;
        let told = of_input(error, self.lang);
        self.documents.push(json!({ "input": input.display().to_string(), "error": told }));
        self.aside(&told);
    }

    fn passed_by(&mut self, key: &str, path: &Path) {
        let name = path.display().to_string();
        let told = self.printer.text(key, &[("name", &name)]);
        self.documents.push(json!({ "input": name, "passed_by": told }));
        self.aside(&told);
    }

    /// A line beside the results.
    fn aside(&self, text: &str) {
        self.bar.suspend(|| {
            // Whoever closed stderr does not want to know.
            let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
        });
    }

    fn report(&mut self, input: &str, summary: &Summary) {
        self.documents.push(to_json(input, summary));
        let (printer, lang) = (&self.printer, self.lang);
        self.bar.suspend(|| report(printer, lang, input, summary));
    }
}

/// The definition that the cluster has: tables need it for the types of their columns.
pub(super) async fn definition(
    remote: &Remote,
    dataset: &str,
    version: u32,
) -> Result<Option<Arc<Definition>>, Failure> {
    let row = version_of(fetch(remote, dataset).await?, dataset, version)?;
    Ok(Some(Arc::new(Definition::parse(&row.definition, dataset)?)))
}

/// The version that is asked for, 0 = the newest, of all that are published.
fn version_of(rows: Vec<DatasetRow>, dataset: &str, version: u32) -> Result<DatasetRow, Failure> {
    let mut published: Vec<_> = rows.iter().map(|row| row.schema_version).collect();
    published.sort_unstable();
    let wanted = rows.into_iter().filter(|row| version == 0 || row.schema_version == version);
    if let Some(row) = wanted.max_by_key(|row| row.schema_version) {
        return Ok(row);
    }
    if published.is_empty() {
        return Err(Failure::usage("cli.unknown_dataset", &[("name", dataset)]));
    }
    let versions: Vec<_> = published.iter().map(u32::to_string).collect();
    let (version, versions) = (version.to_string(), versions.join(", "));
    let values = [("name", dataset), ("version", &version), ("versions", &versions)];
    Err(Failure::usage("cli.unknown_schema_version", &values))
}

/// On a terminal; elsewhere, and beside results for programs, nothing is drawn.
fn drawn_on(is_hidden: bool) -> ProgressDrawTarget {
    if is_hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

fn progress_bar(target: ProgressDrawTarget) -> ProgressBar {
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

fn report(printer: &Printer<'_>, lang: Lang, input: &str, summary: &Summary) {
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
        let reason = refusal.reasons(lang).join("; ");
        printer.say(
            "cli.refused_line",
            &[("name", &refusal.file), ("line", &line), ("reason", &reason)],
        );
    }
    let more = summary.refused.saturating_sub(summary.refusals.len().min(SHOWN_MAX) as u64);
    if more > 0 {
        printer.say("cli.refused_more", &[("count", &more.to_string())]);
    }
    if summary.conflicts > 0 {
        printer.say("cli.conflicts", &[("count", &summary.conflicts.to_string())]);
    }
    if summary.sent + summary.skipped + summary.refused == 0 {
        printer.say("cli.empty_input", &[("name", input)]);
    }
}

fn to_json(input: &str, summary: &Summary) -> Value {
    let refusals = summary.refusals.iter().map(|refusal| {
        json!({ "file": refusal.file, "line": refusal.line, "sequence": refusal.sequence,
                "pointers": refusal.pointers, "reasons_vi": refusal.reasons_vi, "reasons_en": refusal.reasons_en })
    });
    json!({
        "input": input, "sent": summary.sent, "skipped": summary.skipped, "refused": summary.refused,
        "refused_earlier": summary.refused_earlier, "unsendable": summary.unsendable,
        "conflicts": summary.conflicts, "duplicates": summary.duplicates, "acked_through": summary.acked_through,
        "files_already_stored": summary.files_already_stored, "bytes_read": summary.bytes_read,
        "refusals": refusals.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use indicatif::TermLike;

    use super::*;

    /// A terminal that keeps what was written.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().expect("no panic under it").push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().expect("no panic under it").clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_bar_shows_how_far_a_file_is_and_what_was_refused() {
        let screen = Screen::default();
        let bar = progress_bar(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        let progress = |bytes_read, acked_through, refused| PublishProgress {
            file: "a.csv".to_owned(),
            bytes_read,
            bytes_total: 4_096,
            acked_through,
            refused,
            ..PublishProgress::default()
        };
        show(&bar, &progress(1_024, 70, 0));
        assert_eq!((bar.position(), bar.length()), (1_024, Some(4_096)));
        bar.tick();
        let shown = |screen: &Screen| screen.0.lock().expect("no panic under it").clone();
        let text = shown(&screen);
        assert!(text.contains("a.csv ✓70 ✗0") && text.contains("1.00 KiB/4.00 KiB"), "{text:?}");
        show(&bar, &progress(4_096, 280, 3));
        bar.tick();
        let text = shown(&screen);
        assert!(text.contains("a.csv ✓280 ✗3") && text.contains("4.00 KiB/4.00 KiB"), "{text:?}");
        // Standard input has no size: the bar grows with it.
        show(&bar, &PublishProgress { bytes_total: 0, ..progress(9_000, 300, 3) });
        assert_eq!((bar.position(), bar.length()), (9_000, Some(9_000)));
        bar.finish_and_clear();
        assert_eq!(shown(&screen).trim(), "", "nothing of it stays");
        assert!(drawn_on(true).is_hidden());
    }

    fn rows(versions: &[u32]) -> Vec<DatasetRow> {
        let row = |&schema_version| DatasetRow { schema_version, ..DatasetRow::default() };
        versions.iter().map(row).collect()
    }

    #[test]
    fn a_version_that_is_not_there_names_those_that_are() {
        let found = |version| version_of(rows(&[2, 1, 4]), "fish", version);
        assert_eq!(found(0).expect("the newest").schema_version, 4);
        assert_eq!(found(2).expect("published").schema_version, 2);
        let failure = found(3).expect_err("there is none");
        assert_eq!(failure.exit(), Exit::Failed);
        let told = failure.tell(Lang::En);
        assert!(told.contains("fish has no version 3; published are 1, 2, 4"), "{told}");
        assert!(told.contains("--schema-version"), "{told}");
        let none = version_of(Vec::new(), "fish", 3).expect_err("not published").tell(Lang::En);
        assert_eq!(none, "data set fish is not published");
    }
}
