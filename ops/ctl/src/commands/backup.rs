//! `dtm backup create|list|verify|remove`. A restore makes a node and an export opens keys: the binary carries
//! them out.

use std::num::NonZeroUsize;
use std::path::Path;

use dtm_backup::{Folder, Manifest};
use dtm_proto::admin::create_backup_response::Answer;
use dtm_proto::admin::{BackupDone, BackupProgress, BackupStep, CreateBackupRequest};
use dtm_types::text::{Lang, render};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::text::{id, time};
use crate::args::{BackupCommand, Globals};
use crate::{Exit, Failure, Printer, Remote, confirm};

pub(crate) async fn run(command: &BackupCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    match command {
        BackupCommand::Create { full } => create(*full, globals, &printer).await,
        BackupCommand::List { folder } => list(folder, &printer),
        BackupCommand::Verify { folder, backup } => verify(folder, backup.as_deref(), &printer),
        BackupCommand::Remove { folder, keep_chains } => {
            remove(folder, *keep_chains, globals, &printer)
        }
        BackupCommand::Export(_) | BackupCommand::Restore(_) => panic!("the binary does it"),
    }
}

async fn create(full: bool, globals: &Globals, printer: &Printer<'_>) -> Result<(), Failure> {
    let remote = Remote::connect(globals).await?;
    let message = CreateBackupRequest { context: remote.why(), full };
    let asked = remote.backups().create_backup(remote.request(message)).await?;
    let mut answers = asked.into_inner();
    let bar = bar(printer);
    let done = loop {
        match answers.message().await?.and_then(|answer| answer.answer) {
            Some(Answer::Progress(progress)) => bar.set_message(step(&progress, printer)),
            Some(Answer::Done(done)) => break done,
            None => {
                bar.finish_and_clear();
                return Err(Failure::Verdict { key: "cli.backup_cut", exit: Exit::Failed });
            }
        }
    };
    bar.finish_and_clear();
    let (name, bytes) = (id(&done.backup), done.bytes.to_string());
    let cut = time(done.anchor_us);
    let values = [
        ("name", name.as_str()),
        ("folder", done.folder.as_str()),
        ("bytes", bytes.as_str()),
        ("time", cut.as_str()),
    ];
    let key = if done.parent.is_empty() { "cli.backup_full" } else { "cli.backup_continued" };
    printer.done(key, &values, &document(&done));
    Ok(())
}

fn document(done: &BackupDone) -> Value {
    let parent = (!done.parent.is_empty()).then(|| id(&done.parent));
    json!({
        "backup": id(&done.backup), "parent": parent, "folder": done.folder, "bytes": done.bytes,
        "anchor_leaf": done.anchor_leaf, "cut": time(done.anchor_us),
        "manifest_sha256": hex::encode(&done.manifest_digest),
    })
}

/// Shown on a terminal only.
fn bar(printer: &Printer<'_>) -> ProgressBar {
    if printer.is_json() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("a template"));
    bar
}

fn step(progress: &BackupProgress, printer: &Printer<'_>) -> String {
    let (group, groups) = (progress.group.to_string(), progress.groups.to_string());
    let megabytes = (progress.bytes >> 20).to_string();
    let values =
        [("group", group.as_str()), ("groups", groups.as_str()), ("count", megabytes.as_str())];
    match progress.step() {
        BackupStep::Anchor | BackupStep::Unspecified => {
            printer.text("cli.backup_step_anchor", &values)
        }
        BackupStep::Write => printer.text("cli.backup_step_write", &values),
        BackupStep::Verify => printer.text("cli.backup_step_verify", &values),
    }
}

fn list(folder: &Path, printer: &Printer<'_>) -> Result<(), Failure> {
    let all = dtm_backup::list(&Folder::new(folder)).map_err(|error| of_folder(folder, error))?;
    let rows = all.iter().map(|found| match &found.manifest {
        Ok((of, _)) => vec![
            found.name.clone(),
            time(of.anchor_us()),
            of.parent_id().map(|parent| parent.to_string()).unwrap_or_else(|| "-".to_owned()),
            of.incarnation.to_string(),
            of.bytes().to_string(),
            printer.text("cli.backup_state.whole", &[]),
        ],
        Err(dtm_backup::Error::Unfinished { .. }) => {
            without(&found.name, printer.text("cli.backup_state.unfinished", &[]))
        }
        Err(error) => without(&found.name, error.to_string()),
    });
    let documents: Vec<Value> = all
        .iter()
        .map(|found| match &found.manifest {
            Ok((of, digest)) => listed(of, digest),
            Err(error) => json!({ "backup": found.name, "error": error.to_string() }),
        })
        .collect();
    let columns = ["backup", "cut", "parent", "incarnation", "bytes", "state"];
    printer.table(&columns, rows.collect(), &json!(documents));
    Ok(())
}

fn without(name: &str, state: String) -> Vec<String> {
    let none = || "-".to_owned();
    vec![name.to_owned(), none(), none(), none(), none(), state]
}

fn listed(of: &Manifest, digest: &[u8]) -> Value {
    json!({
        "backup": of.id().to_string(), "parent": of.parent_id().map(|parent| parent.to_string()),
        "cluster": of.cluster_id().to_string(), "incarnation": of.incarnation,
        "cut": time(of.anchor_us()), "anchor_leaf": of.anchor_leaf, "groups": of.groups.len(),
        "began": time(of.began_us), "ended": time(of.ended_us), "bytes": of.bytes(),
        "manifest_sha256": hex::encode(digest),
    })
}

fn verify(folder: &Path, backup: Option<&str>, printer: &Printer<'_>) -> Result<(), Failure> {
    let target = Folder::new(folder);
    let failed = |error| of_folder(folder, error);
    let name = dtm_backup::find(&target, backup).map_err(failed)?;
    let chain = dtm_backup::chain(&target, &name).map_err(failed)?;
    let bytes = read_all(&target, &chain, printer).map_err(failed)?;
    let (count, read) = (chain.len().to_string(), bytes.to_string());
    printer.done(
        "cli.backup_verified",
        &[("name", &name), ("count", &count), ("bytes", &read)],
        &json!({ "backup": name, "backups": chain.len(), "bytes": bytes, "whole": true }),
    );
    Ok(())
}

/// Every byte of some backups, without a key; how many.
fn read_all(
    target: &Folder,
    backups: &[Manifest],
    printer: &Printer<'_>,
) -> Result<u64, dtm_backup::Error> {
    let bar = bar(printer);
    let mut bytes = 0;
    let read = backups.iter().try_for_each(|of| {
        let read = dtm_backup::verify(target, &of.id().to_string(), None, &mut |more| {
            bytes += more;
            let count = (bytes >> 20).to_string();
            bar.set_message(printer.text("cli.backup_step_verify", &[("count", &count)]));
        });
        read.map(|_| ())
    });
    bar.finish_and_clear();
    read.map(|()| bytes)
}

fn remove(
    folder: &Path,
    keep: NonZeroUsize,
    globals: &Globals,
    printer: &Printer<'_>,
) -> Result<(), Failure> {
    let target = Folder::new(folder);
    let failed = |error| of_folder(folder, error);
    let chains = dtm_backup::chains(&target, keep).map_err(failed)?;
    let gone: Vec<&Manifest> = chains.surplus.iter().flatten().collect();
    let (count, sum) = (gone.len().to_string(), gone.iter().map(|of| of.bytes()).sum::<u64>());
    let of_chains = chains.surplus.len().to_string();
    let (bytes, place) = (sum.to_string(), folder.display().to_string());
    let values = [
        ("count", count.as_str()),
        ("chains", of_chains.as_str()),
        ("bytes", bytes.as_str()),
        ("folder", place.as_str()),
    ];
    if !gone.is_empty() {
        confirm(globals, "cli.confirm_remove_backups", &values)?;
    }
    let mut read = Vec::new();
    for surplus in &chains.surplus {
        // All that goes is in this one; it is read once, and its chain joins.
        let Some(newest) = chains.holder(surplus).and_then(|chain| chain.last()) else { continue };
        if read.contains(&newest.id()) {
            continue;
        }
        let whole = dtm_backup::chain(&target, &newest.id().to_string()).map_err(failed)?;
        read_all(&target, &whole, printer).map_err(failed)?;
        read.push(newest.id());
    }
    for surplus in chains.surplus.iter().filter(|surplus| chains.holder(surplus).is_some()) {
        dtm_backup::remove_chain(&target, surplus).map_err(failed)?;
    }
    let names: Vec<String> = gone.iter().map(|of| of.id().to_string()).collect();
    let document = json!({ "removed": names, "bytes": sum, "kept_chains": chains.kept.len() });
    printer.done("cli.backups_removed", &values, &document);
    Ok(())
}

/// What a backup lacks is a verdict on it; what the file system says is not.
fn of_folder(folder: &Path, error: dtm_backup::Error) -> Failure {
    match error {
        dtm_backup::Error::Io { source, .. } => Failure::file(folder)(source),
        error => Failure::Backup(error),
    }
}

/// The exit code of what is wrong with a backup.
pub(crate) fn exit(error: &dtm_backup::Error) -> Exit {
    use dtm_backup::Error::{Empty, Io, Taker, TooEarly, TooLate, Unknown};
    match error {
        Io { .. } | Taker(_) | Unknown(_) | Empty => Exit::Failed,
        TooEarly { .. } | TooLate { .. } => Exit::Failed,
        _ => Exit::Unverified,
    }
}

/// What is wrong with a backup, in the user's language where it is met often.
pub(crate) fn tell(error: &dtm_backup::Error, lang: Lang) -> String {
    use dtm_backup::Error;
    match error {
        Error::Damaged { backup, file, from, to, what } => {
            let (from, to) = (from.to_string(), to.to_string());
            let values = [
                ("name", backup.as_str()),
                ("file", file.as_str()),
                ("from", from.as_str()),
                ("to", to.as_str()),
                ("what", *what),
            ];
            render(lang, "cli.backup_damaged", &values)
        }
        Error::FileMissing { backup, file } => {
            render(lang, "cli.backup_file_missing", &[("name", backup), ("file", file)])
        }
        Error::WrongKey { backup, file } => {
            render(lang, "cli.backup_wrong_key", &[("name", backup), ("file", file)])
        }
        Error::Unfinished { backup } => render(lang, "cli.backup_unfinished", &[("name", backup)]),
        Error::Unknown(name) => render(lang, "cli.backup_unknown", &[("name", name)]),
        Error::Empty => render(lang, "cli.backup_none", &[]),
        Error::TooLate { newest_us, .. } => {
            render(lang, "cli.backup_too_late", &[("time", &exact(*newest_us))])
        }
        Error::TooEarly { group, first_us, .. } => {
            let (group, first) = (group.to_string(), exact(*first_us));
            render(lang, "cli.backup_too_early", &[("group", &group), ("time", &first)])
        }
        Error::Chain { backup, parent, what } => {
            let (backup, parent) = (backup.to_string(), parent.to_string());
            let values = [("name", backup.as_str()), ("parent", parent.as_str()), ("what", *what)];
            render(lang, "cli.backup_chain", &values)
        }
        other => dtm_types::chain(other),
    }
}

/// A moment that can be given back as it is: cut to a second it would be another one.
fn exact(time_us: i64) -> String {
    jiff::Timestamp::from_microsecond(time_us)
        .map_or_else(|_| time(time_us), |moment| moment.to_string())
}
