//! `dtm agent`: watch, spool, send, until told to stop.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dtm_catalog::Definition;
use dtm_client::agent::{self, AgentConfig, Input, Report};
use dtm_client::{Event, IdPolicy};
use dtm_proto::ingest::RefusedRecord;
use dtm_types::text::{Lang, render};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::publish::{cluster_mark, definition};
use super::text::time;
use crate::args::{AgentArgs, Globals};
use crate::told::of_skipped;
use crate::{Failure, Printer, Remote};

/// Longest wait for the definition before the agent starts without it.
const DEFINITION_WITHIN: Duration = Duration::from_secs(10);
/// Pauses before the cluster is asked again, while it is away.
const ASK_AGAIN_FIRST: Duration = Duration::from_secs(1);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);
/// Reasons that are told of one refused record, and characters of each text.
const VIOLATIONS_MAX: usize = 8;
const TEXT_CHARS_MAX: usize = 200;

pub(crate) async fn run(args: &AgentArgs, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    let (endpoint, context) = Remote::endpoint(globals)?;
    let Some(source) = args.source.clone().or(context.source.clone()) else {
        return Err(Failure::usage("cli.no_source", &[]));
    };
    let mut config = AgentConfig::new(&source, &args.dataset, &args.spool);
    let ask = || {
        let connecting = Remote::over(endpoint.clone(), context.clone(), globals);
        definition_now(connecting, &args.dataset)
    };
    let built_in = config.definition.borrow().clone();
    let told = ask().await?;
    let is_told = told.is_some();
    let (known, definition) = watch::channel(told.or(built_in));
    config.definition = definition;
    let fetching = async move {
        if !is_told {
            until_known(ask, known).await;
        }
    };
    if let Some(stream) = &args.stream {
        config.publisher.stream = stream.clone();
    }
    if let Some(member) = &args.id_member {
        config.message_id_member = Some(member.clone());
        config.publisher.ids = IdPolicy::MessageId;
    }
    config.accept_loss = args.accept_loss;
    config.spool.spool_bytes_max = args.spool_bytes;
    config.cluster = Some(cluster_mark(&context)?);
    config.settle = Duration::from_secs(args.settle);
    config.delimiter = args.delimiter;
    let input = if args.input == Path::new("-") {
        Input::Reader(Box::new(std::io::stdin()))
    } else {
        Input::Folder(args.input.clone())
    };
    let stop = CancellationToken::new();
    let mut terminate =
        signal(SignalKind::terminate()).map_err(Failure::file(Path::new("SIGTERM")))?;
    let lang = globals.lang;
    let tell = move |report| tell(report, lang);
    let working = agent::run(endpoint.clone(), config, input, stop.clone(), Arc::new(tell));
    tokio::pin!(working, fetching);
    let mut is_fetching = true;
    let ended = loop {
        tokio::select! {
            done = &mut working => break done,
            () = &mut fetching, if is_fetching => is_fetching = false,
            _ = terminate.recv() => stop.cancel(),
            _ = tokio::signal::ctrl_c() => stop.cancel(),
        }
    };
    let acked = ended.map_err(|error| {
        let failure = Failure::Agent(error);
        tell_end(&failure, lang);
        Failure::Told
    })?;
    printer.done(
        "cli.agent_ended",
        &[("count", &acked.to_string())],
        &json!({ "acked_through": acked }),
    );
    Ok(())
}

/// The definition, if the cluster can be asked. An agent starts without the cluster too, or while it
/// has no quorum: then the built-in definition has to do.
async fn definition_now(
    connecting: impl Future<Output = Result<Remote, Failure>>,
    dataset: &str,
) -> Result<Option<Arc<Definition>>, Failure> {
    let asked = async {
        match connecting.await {
            Ok(remote) => definition(&remote, dataset, 0).await,
            Err(_) => Ok(None),
        }
    };
    match tokio::time::timeout(DEFINITION_WITHIN, asked).await {
        Err(_) => Ok(None),
        Ok(Err(Failure::Refused(status))) if is_passing(status.code()) => Ok(None),
        Ok(answer) => answer,
    }
}

/// Asks for the definition until the cluster tells it, and hands it to the agent: tables wait for
/// it. Ends without one where the cluster has none for good; then nothing waits any more.
async fn until_known<F>(mut ask: impl FnMut() -> F, known: watch::Sender<Option<Arc<Definition>>>)
where
    F: Future<Output = Result<Option<Arc<Definition>>, Failure>>,
{
    let mut pause = ASK_AGAIN_FIRST;
    // Ends with the agent at the latest.
    loop {
        match ask().await {
            Ok(Some(definition)) => {
                known.send_replace(Some(definition));
                return;
            }
            Ok(None) => tokio::time::sleep(pause).await,
            Err(_) => return,
        }
        pause = (pause * 2).min(ASK_AGAIN_MAX);
    }
}

/// A refusal that says nothing about the data set.
fn is_passing(code: Code) -> bool {
    use Code::{Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};
    matches!(
        code,
        Unavailable | DeadlineExceeded | ResourceExhausted | Cancelled | Unknown | Internal
    )
}

/// One JSON line a report on stderr, for whatever keeps the agent running.
fn tell(report: Report, lang: Lang) {
    // Whoever closed stderr does not want to know.
    tell_to(&mut std::io::stderr().lock(), report, lang).ok();
}

/// Each line whole in one write: an agent that is killed leaves none half written, and lines of
/// several writers are never mixed.
fn tell_to(out: &mut impl Write, report: Report, lang: Lang) -> std::io::Result<()> {
    let mut line = document(report, lang);
    line["time"] = now().into();
    out.write_all(format!("{line}\n").as_bytes())
}

/// Why the agent ends: the last line, for the same reader.
fn tell_end(failure: &Failure, lang: Lang) {
    let line = json!({ "ended": failure.tell(lang), "time": now() });
    // Whoever closed stderr does not want to know.
    std::io::stderr().lock().write_all(format!("{line}\n").as_bytes()).ok();
}

#[expect(clippy::disallowed_methods, reason = "only stamps the agent's own lines")]
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    time(i64::try_from(since.as_micros()).unwrap_or(0))
}

fn document(report: Report, lang: Lang) -> Value {
    match report {
        Report::Started { stream } => json!({ "stream": stream }),
        Report::Taken { file, through } => json!({ "taken": file, "through": through }),
        Report::Done { file } => json!({ "done": file }),
        Report::Skipped { file, reason } => {
            json!({ "skipped": file, "reason": of_skipped(&reason, lang) })
        }
        Report::Waiting { file } => {
            let reason = render(lang, "agent.waiting", &[("name", &file)]);
            json!({ "waiting": file, "reason": reason })
        }
        Report::Late { file, bytes, is_taken } => {
            let key = if is_taken { "agent.late" } else { "agent.late_unsent" };
            let reason = render(lang, key, &[("name", &file)]);
            json!({ "late": file, "bytes": bytes, "taken_again": is_taken, "reason": reason })
        }
        Report::Refused { file, line, record } => refused(file.as_deref(), line, &record),
        Report::Unsendable { file, line, reason } => {
            json!({ "unsendable": file, "line": line, "rule": reason.key(), "reason": reason.text(lang) })
        }
        Report::SpoolFull { bytes, site_bytes, spool_bytes_max } => {
            let site = site_bytes.to_string();
            let reason =
                (site_bytes > 0).then(|| render(lang, "agent.spool_waits", &[("site", &site)]));
            json!({ "spool_full": bytes, "spool_bytes_max": spool_bytes_max,
                    "waits_for_site": site_bytes, "reason": reason })
        }
        Report::Publisher(event) => publisher(event),
    }
}

/// A refused record: where it stands and what was expected there. What was found may be personal
/// data and this line goes into a log: it stays in the quarantine.
fn refused(file: Option<&str>, line: u64, record: &RefusedRecord) -> Value {
    let violations = record.violations.iter().take(VIOLATIONS_MAX).map(|violation| {
        json!({ "pointer": bounded(&violation.pointer), "rule": bounded(&violation.rule),
                "expected": bounded(&violation.expected) })
    });
    json!({
        "refused": 1, "file": file, "line": (line > 0).then_some(line),
        "sequence": record.sequence, "violations": violations.collect::<Vec<_>>(),
    })
}

fn bounded(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// An event of the publisher: its name and its fields, which programs read.
fn publisher(event: Event) -> Value {
    match event {
        // The agent tells each refusal by itself.
        Event::Refused(records) => json!({ "refused": records.len() }),
        Event::Conflict { sequence } => json!({ "publisher": "conflict", "sequence": sequence }),
        Event::LossDetected { from, to } => {
            json!({ "publisher": "loss_detected", "from": from, "to": to })
        }
        Event::LossMended { from, to } => {
            json!({ "publisher": "loss_mended", "from": from, "to": to })
        }
        Event::Connected { node, address, session, group, next_sequence } => json!({
            "publisher": "connected", "node": node, "address": &*address, "session": session,
            "group": group, "next_sequence": next_sequence
        }),
        Event::Disconnected { error } => {
            json!({ "publisher": "disconnected", "error": error.to_string() })
        }
        Event::Retrying { error, after } => json!({
            "publisher": "retrying", "error": error.to_string(),
            "after_ms": u64::try_from(after.as_millis()).unwrap_or(u64::MAX)
        }),
    }
}

#[cfg(test)]
mod tests {
    use dtm_client::agent::SkipReason;

    use super::*;

    /// Keeps what each write brought.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_definition_is_asked_for_until_the_cluster_tells_it() {
        let (known, definition) = watch::channel(None);
        let mut asked = 0;
        let ask = || {
            asked += 1;
            let told = (asked > 1).then(|| Definition::built_in("payment").map(Arc::new));
            async move { Ok(told.flatten()) }
        };
        until_known(ask, known).await;
        assert!(definition.borrow().is_some() && definition.has_changed().is_err());

        let (known, definition) = watch::channel(None);
        let never = || async { Err(Failure::usage("cli.unknown_dataset", &[("name", "x")])) };
        until_known(never, known).await;
        assert!(definition.borrow().is_none() && definition.has_changed().is_err());
    }

    #[test]
    fn why_a_file_is_skipped_is_told_in_the_users_language() {
        let broken = dtm_client::publish::Error::Utf16 { file: "a.csv".into() };
        for (reason, vi) in
            [(SkipReason::Input(broken), "mã UTF-16"), (SkipReason::WrittenOver, "ghi đè")]
        {
            let told = |lang| {
                let (file, reason) = ("a.csv".to_owned(), reason.clone());
                let line = document(Report::Skipped { file, reason }, lang);
                line["reason"].as_str().expect("a text").to_owned()
            };
            assert!(told(Lang::Vi).contains(vi), "{}", told(Lang::Vi));
            assert!(!told(Lang::En).contains(vi), "{}", told(Lang::En));
        }
    }

    #[test]
    fn a_report_is_one_line_in_one_write() {
        let mut writes = Writes::default();
        let spool_full = || Report::SpoolFull { bytes: 7, site_bytes: 3, spool_bytes_max: 9 };
        for _ in 0..2 {
            tell_to(&mut writes, spool_full(), Lang::En).expect("written");
        }
        assert_eq!(writes.0.len(), 2);
        for line in &writes.0 {
            let (last, text) = line.split_last().expect("not empty");
            let read: Value = serde_json::from_slice(text).expect("JSON");
            assert_eq!((*last, &read["spool_full"]), (b'\n', &json!(7)));
            assert_eq!(read["waits_for_site"], 3);
            assert!(read["reason"].as_str().is_some_and(|told| told.contains("the standby")));
        }
    }
}
