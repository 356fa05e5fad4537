//! `dtm backup restore|export`: what needs the keys of a backup.

use dtm_backup::Wanted;
use dtm_ctl::args::{ExportArgs, Globals, RestoreArgs};
use dtm_ctl::{Failure, Printer};
use serde_json::{Value, json};

use super::{Error, FIRST_NODE, options};
use crate::restore::{self, Restored};

/// Between two reports of how far a restore is, bytes.
const REPORT_EVERY: u64 = 16 << 20;
/// Between two reports of how far an export is, records.
const REPORT_EVERY_RECORDS: u64 = 100_000;

pub(super) async fn restore(
    args: &RestoreArgs,
    globals: &Globals,
    now_us: i64,
) -> Result<(), Error> {
    let name = args.node.node.as_deref().unwrap_or(FIRST_NODE);
    let options = restore::Options {
        node: options(&args.node, name, "", "", 0),
        from: args.from.clone(),
        backup: args.which.backup.clone(),
        until_us: args.which.until,
        keyring: args.which.keyring.clone(),
        master: args.which.master.clone(),
        incarnation: args.incarnation,
    };
    let (runtime, shown) = (tokio::runtime::Handle::current(), globals.clone());
    let restored = tokio::task::spawn_blocking(move || {
        let (printer, mut told) = (Printer::new(&shown), 0);
        restore::restore(&options, now_us, &runtime, &mut |done, all| {
            if (done >= told + REPORT_EVERY || done == all && told < all) && !printer.is_json() {
                told = done;
                let (count, all) = ((done >> 20).to_string(), (all >> 20).to_string());
                let line = printer.text("cli.restore_step", &[("count", &count), ("all", &all)]);
                eprintln!("{line}");
            }
        })
    });
    let restored = restored.await.expect("it is not cancelled").map_err(of_restore)?;
    let printer = Printer::new(globals);
    let (config, backup) = (restored.config.display().to_string(), restored.backup.to_string());
    let records: u64 = restored.groups.iter().map(|group| group.found.records).sum();
    let beyond: u64 = restored.groups.iter().map(|group| group.beyond).sum();
    let (count, life) = (records.to_string(), restored.incarnation.to_string());
    let (cut, beyond) = (dtm_ctl::time(restored.anchor_us), beyond.to_string());
    let until = restored.until_us.map(dtm_ctl::time);
    let values = [
        ("count", count.as_str()),
        ("name", backup.as_str()),
        ("time", until.as_deref().unwrap_or(&cut)),
        ("incarnation", life.as_str()),
        ("config", config.as_str()),
        ("beyond", beyond.as_str()),
    ];
    let document = document(&restored, name);
    match until {
        // The text of a whole restore has no place for what was left.
        None => printer.done("cli.restored", &values[..5], &document),
        Some(_) => printer.done("cli.restored_until", &values, &document),
    }
    let master = args.node.folder.join("keys/master.key").display().to_string();
    printer.say("cli.keep_master", &[("name", &master)]);
    printer.say("cli.restore_next", &[]);
    printer.say("cli.next_serve", &[("config", &config)]);
    Ok(())
}

fn document(restored: &Restored, name: &str) -> Value {
    let records: u64 = restored.groups.iter().map(|group| group.found.records).sum();
    let ledgers = restored.groups.iter().map(|of| {
        json!({
            "group": of.group.0, "index": of.index, "not_taken": of.beyond, "records": of.found.records,
            "ledger_size": of.found.ledger_size,
            "ledger_root": hex::encode(of.found.ledger_root),
            "state_sha256": hex::encode(of.found.state_digest),
        })
    });
    json!({
        "backup": restored.backup.to_string(), "cut": dtm_ctl::time(restored.anchor_us),
        "until": restored.until_us.map(dtm_ctl::time), "incarnation": restored.incarnation.0,
        "records": records, "groups": restored.groups.len(), "config": restored.config,
        "node": name, "node_id": restored.node.to_string(),
        "ledgers": ledgers.collect::<Vec<_>>(),
    })
}

pub(super) async fn export(args: &ExportArgs, globals: &Globals) -> Result<(), Error> {
    let options = restore::ExportOptions {
        from: args.from.clone(),
        backup: args.which.backup.clone(),
        keyring: args.which.keyring.clone(),
        master: args.which.master.clone(),
        wanted: Wanted {
            dataset: args.dataset.clone(),
            source: args.source.clone(),
            until_us: args.which.until,
        },
        into: args.into.clone(),
    };
    let shown = globals.clone();
    let exported = tokio::task::spawn_blocking(move || {
        let (printer, mut told) = (Printer::new(&shown), 0);
        restore::export(&options, &mut |records| {
            if records >= told + REPORT_EVERY_RECORDS && !printer.is_json() {
                told = records;
                eprintln!(
                    "{}",
                    printer.text("cli.export_step", &[("count", &records.to_string())])
                );
            }
        })
    });
    let (backup, done) = exported.await.expect("it is not cancelled").map_err(of_restore)?;
    let printer = Printer::new(globals);
    let (backup, folder) = (backup.to_string(), args.into.display().to_string());
    let sources = done
        .sources
        .iter()
        .map(|(source, records)| json!({ "source": source, "records": records }));
    let document = json!({
        "backup": backup, "dataset": args.dataset, "until": args.which.until.map(dtm_ctl::time),
        "into": folder, "records": done.records, "not_publishable": done.unsendable,
        "sources": sources.collect::<Vec<_>>(),
    });
    let (count, sources) = (done.records.to_string(), done.sources.len().to_string());
    let values = [
        ("count", count.as_str()),
        ("dataset", args.dataset.as_str()),
        ("sources", sources.as_str()),
        ("name", backup.as_str()),
        ("folder", folder.as_str()),
    ];
    printer.done("cli.exported", &values, &document);
    if done.unsendable > 0 {
        let count = done.unsendable.to_string();
        eprintln!("{}", printer.text("cli.export_unsendable", &[("count", &count)]));
    }
    Ok(())
}

fn of_restore(error: restore::Error) -> Error {
    match error {
        restore::Error::Backup(error) => Error::Failure(Failure::Backup(error)),
        error => Error::Restore(error),
    }
}
