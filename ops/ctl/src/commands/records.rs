//! `dtm records read|tail|lookup`.

use dtm_proto::admin::ListDatasetsRequest;
use dtm_proto::records::{LookupRequest, ReadRequest, StoredRecord};
use serde_json::{Value, json};

use super::text::time;
use crate::args::{Globals, ReadArgs, RecordsCommand};
use crate::{Exit, Failure, Printer, Remote};

pub(crate) async fn run(command: &RecordsCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    let remote = Remote::connect(globals).await?;
    match command {
        RecordsCommand::Read(args) => read(&remote, &printer, args, false).await,
        RecordsCommand::Tail(args) => read(&remote, &printer, args, true).await,
        RecordsCommand::Lookup { source, stream, sequence, dataset, id } => {
            if *sequence == 0 && id.is_empty() {
                return Err(Failure::usage("cli.lookup_what", &[]));
            }
            let message = LookupRequest {
                source: remote.known_source(source.as_deref())?,
                stream: stream.clone(),
                sequence: *sequence,
                dataset: dataset.clone(),
                message_id: id.clone(),
                current: true,
                purpose: String::new(),
            };
            let found = remote.records().lookup(remote.request(message)).await?.into_inner();
            match (&found.record, &found.refused) {
                (Some(record), _) if printer.is_json() => {
                    printer.json(&with_state(to_json(record), "stored"));
                }
                (Some(record), _) => {
                    printer.raw(&line(record, false));
                    tell_withheld(&printer, record.payload.is_empty());
                }
                (None, Some(refused)) => {
                    if printer.is_json() {
                        let document = super::quarantine::to_json(refused);
                        printer.json(&with_state(document, "refused"));
                    } else {
                        super::quarantine::tell(refused, &printer);
                    }
                    let (key, exit) = ("cli.lookup_refused", Exit::Failed);
                    return Err(Failure::Verdict { key, exit });
                }
                (None, None) => return Err(Failure::usage("cli.no_record", &[])),
            }
            Ok(())
        }
    }
}

async fn read(
    remote: &Remote,
    printer: &Printer<'_>,
    args: &ReadArgs,
    tail: bool,
) -> Result<(), Failure> {
    let position = hex::decode(&args.position);
    let position = position.map_err(|_| Failure::usage("cli.bad_position", &[]))?;
    // A data set may be read over all sources, where the context speaks for none.
    let named = args.source.as_deref();
    let source =
        if args.dataset.is_empty() { remote.known_source(named)? } else { remote.source(named) };
    let message = ReadRequest {
        source,
        dataset: args.dataset.clone(),
        stream: args.stream.clone(),
        position: position.into(),
        records_max: args.limit,
        current: args.current,
        digests_only: args.digests,
        purpose: args.purpose.clone(),
    };
    let (source, dataset) = (message.source.clone(), message.dataset.clone());
    let reader = remote.reader();
    let mut pages = if tail { reader.tail(message) } else { reader.read(message) }.hasty();
    let (mut count, mut is_withheld) = (0_u64, false);
    // Ends with what is stored, a tail by Ctrl-C, also while it prints; where no address goes on,
    // with the error, and then too the position of what was told is told.
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let ended = loop {
        let page = tokio::select! {
            page = pages.next() => page,
            _ = &mut interrupted => break Ok(()),
        };
        let page = match page {
            Ok(Some(page)) => page,
            Ok(None) => break Ok(()),
            Err(error) => break Err(Failure::from(error)),
        };
        for record in &page.records {
            count += 1;
            is_withheld |= record.payload.is_empty() && !args.digests;
            if printer.is_json() {
                printer.json_line(&to_json(record));
            } else {
                printer.raw(&line(record, args.digests));
            }
        }
    };
    if ended.is_err() && count == 0 {
        return ended;
    }
    if count == 0 && !tail {
        if !args.stream.is_empty() && dataset.is_empty() {
            expect_stream(remote, &source, &args.stream).await?;
        }
        expect_dataset(remote, &dataset).await?;
    }
    tell_withheld(printer, is_withheld);
    let position = hex::encode(&pages.request().position);
    if printer.is_json() {
        // The last line, and the only one with this member: where the next read goes on.
        printer.json_line(&json!({ "position": position, "count": count }));
        return ended;
    }
    // The position goes to stderr: stdout holds records only.
    let values = [("count", &*count.to_string()), ("position", &*position)];
    eprintln!("{}", printer.text("cli.read_summary", &values));
    ended
}

/// Records without their content are told once, with the reason.
fn tell_withheld(printer: &Printer<'_>, is_withheld: bool) {
    if is_withheld {
        eprintln!("{}", printer.text("cli.payload_withheld", &[]));
    }
}

fn with_state(mut document: Value, state: &str) -> Value {
    document["state"] = state.into();
    document
}

/// Nothing was read of a data set: it may not be published. Who may not ask is told nothing.
async fn expect_dataset(remote: &Remote, dataset: &str) -> Result<(), Failure> {
    if dataset.is_empty() {
        return Ok(());
    }
    let request =
        remote.request(ListDatasetsRequest { dataset: dataset.into(), ..Default::default() });
    match remote.admin().list_datasets(request).await {
        Ok(rows) if rows.get_ref().datasets.is_empty() => {
            Err(Failure::usage("cli.unknown_dataset", &[("name", dataset)]))
        }
        _ => Ok(()),
    }
}

/// Nothing was read of a stream: it may never have been opened. Who may not ask is told nothing.
async fn expect_stream(remote: &Remote, source: &str, stream: &str) -> Result<(), Failure> {
    match remote.stream_session(source, stream).await {
        Some(0) => Err(Failure::usage("cli.no_stream", &[("source", source), ("name", stream)])),
        _ => Ok(()),
    }
}

/// One record for people: where it stands, then its payload.
fn line(record: &StoredRecord, digests: bool) -> String {
    let payload = if digests {
        hex::encode(&record.payload_digest)
    } else {
        String::from_utf8_lossy(&record.payload).into_owned()
    };
    format!(
        "{}/{} #{} {} {payload}",
        record.source,
        record.stream,
        record.sequence,
        time(record.group_time_us)
    )
}

/// One record as `dtm records read -o json` prints it.
pub fn to_json(record: &StoredRecord) -> Value {
    let envelope = record.envelope.clone().unwrap_or_default();
    let mut document = json!({
        "source": record.source, "stream": record.stream, "sequence": record.sequence, "dataset": record.dataset,
        "schema_version": record.schema_version, "message_id": envelope.message_id,
        "group": record.group, "offset": record.offset, "leaf_index": record.leaf_index,
        "group_time_us": record.group_time_us, "record_hash": hex::encode(&record.record_hash),
        "payload_digest": hex::encode(&record.payload_digest),
        "form": record.form().as_str_name(), "mode": record.mode().as_str_name(),
    });
    if !record.payload.is_empty() {
        document["payload"] = serde_json::from_slice(&record.payload)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&record.payload)));
    }
    document
}
