//! `dtm records read|tail|lookup`.

use dtm_proto::records::{LookupRequest, ReadRequest, StoredRecord};
use serde_json::{Value, json};

use super::text::time;
use crate::args::{Globals, ReadArgs, RecordsCommand};
use crate::{Failure, Printer, Remote};

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
                (Some(record), _) => printer.json(&to_json(record)),
                (None, Some(refused)) => printer.json(&super::quarantine::to_json(refused)),
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
    let position =
        hex::decode(&args.position).map_err(|_| Failure::usage("cli.bad_position", &[]))?;
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
    let mut client = remote.records();
    let request = remote.request(message);
    let answer = if tail { client.tail(request).await? } else { client.read(request).await? };
    let mut stream = answer.into_inner();
    let mut last_position = Vec::new();
    let mut count = 0_u64;
    while let Some(page) = stream.message().await? {
        for record in &page.records {
            count += 1;
            if printer.is_json() {
                printer.json_line(&to_json(record));
            } else {
                printer.raw(&line(record, args.digests));
            }
        }
        if !page.position.is_empty() {
            last_position = page.position.to_vec();
        }
    }
    if count == 0 && !tail && !args.stream.is_empty() && dataset.is_empty() {
        expect_stream(remote, &source, &args.stream).await?;
    }
    let position = hex::encode(last_position);
    if printer.is_json() {
        // The last line, and the only one with this member: where the next read goes on.
        printer.json_line(&json!({ "position": position, "count": count }));
        return Ok(());
    }
    // The position goes to stderr: stdout holds records only.
    let values = [("count", &*count.to_string()), ("position", &*position)];
    eprintln!("{}", printer.text("cli.read_summary", &values));
    Ok(())
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

fn to_json(record: &StoredRecord) -> Value {
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
