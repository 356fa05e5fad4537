//! The row of a source as `dtm source add` asks for it: a new one, or a present one with what was
//! named changed in it.

use dtm_types::command::{AckLevel, Agreement, SourceRow};
use dtm_types::format::{Form, Mode};

use crate::args::{SendForm, SendMode, SourceArgs, SourceLimit};

/// What is not named stays as it is in `present`, or is what a new source has.
pub(super) fn row(args: &SourceArgs, present: Option<SourceRow>) -> SourceRow {
    let mut row = present.unwrap_or_default();
    row.source.clone_from(&args.source);
    for (field, named) in [
        (&mut row.title_vi, &args.title),
        (&mut row.title_en, &args.title_en),
        (&mut row.agency_code, &args.agency),
        (&mut row.class, &args.class),
        (&mut row.sector, &args.sector),
        (&mut row.locality, &args.locality),
    ] {
        if let Some(named) = named {
            field.clone_from(named);
        }
    }
    if let Some(suspend) = args.suspend {
        row.suspended = suspend;
    }
    if !args.datasets.is_empty() {
        let held = std::mem::take(&mut row.agreements);
        let named = args.datasets.iter().map(|dataset| {
            let kept = held.iter().find(|agreement| agreement.dataset == *dataset);
            kept.cloned().unwrap_or_else(|| fresh(dataset))
        });
        row.agreements = named.collect();
    }
    for agreement in &mut row.agreements {
        change(agreement, args);
    }
    if !args.limits.is_empty() {
        let limits = row.limits.get_or_insert_default();
        for SourceLimit { name, value } in &args.limits {
            assert!(limits.set(name, *value), "the command line takes no other");
        }
    }
    row
}

/// An agreement for people: data set, modes, form, security status, priority and ack level.
pub(super) fn told(agreement: &Agreement) -> Vec<String> {
    let modes = agreement.modes.iter().filter_map(|mode| Mode::try_from(*mode).ok());
    let modes: Vec<_> = modes.map(|mode| small(mode.as_str_name(), "MODE_")).collect();
    let mut form = small(agreement.form().as_str_name(), "FORM_");
    if agreement.refuse_raw {
        form.push_str(", refuse-raw");
    }
    vec![
        agreement.dataset.clone(),
        modes.join(", "),
        form,
        label(agreement.security_status, "public internal restricted"),
        label(agreement.priority, "low normal high"),
        ack_level(agreement).to_owned(),
    ]
}

/// As the option has it.
pub(super) fn ack_level(agreement: &Agreement) -> &'static str {
    if agreement.ack_level() == AckLevel::Site { "site" } else { "majority" }
}

/// The name as the options of `dtm source add` have it.
fn small(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// A label of 1 to 3; 0 = as the data set says.
fn label(value: u32, names: &str) -> String {
    let at = value.checked_sub(1).map(|at| at as usize);
    at.and_then(|at| names.split(' ').nth(at)).unwrap_or("-").to_owned()
}

/// Both ways, as it is, labels as the data set says.
fn fresh(dataset: &str) -> Agreement {
    Agreement {
        dataset: dataset.to_owned(),
        modes: vec![Mode::Realtime.into(), Mode::Batch.into()],
        form: Form::Raw.into(),
        ..Agreement::default()
    }
}

fn change(agreement: &mut Agreement, args: &SourceArgs) {
    if !args.modes.is_empty() {
        let modes = args.modes.iter().map(|mode| match mode {
            SendMode::Realtime => Mode::Realtime.into(),
            SendMode::Batch => Mode::Batch.into(),
        });
        agreement.modes = modes.collect();
    }
    match args.form {
        None => {}
        Some(SendForm::Raw) => agreement.form = Form::Raw.into(),
        Some(SendForm::Masked) => agreement.form = Form::Masked.into(),
    }
    if let Some(refuse_raw) = args.refuse_raw {
        agreement.refuse_raw = refuse_raw;
    }
    if let Some(security) = args.security {
        agreement.security_status = security as u32;
    }
    if let Some(priority) = args.priority {
        agreement.priority = priority as u32;
    }
    if let Some(level) = args.ack_level {
        agreement.ack_level = level as i32;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use dtm_types::command::SourceLimits;

    use super::*;
    use crate::args::{Cli, Command, SourceCommand};

    fn args(line: &str) -> SourceArgs {
        let words = ["dtm", "source", "add", "x"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(Command::Source(SourceCommand::Add(args))) => args,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_new_source_sends_both_ways_as_it_is() {
        let row = row(&args("--title T --dataset a,b"), None);
        assert_eq!((row.title_vi.as_str(), row.suspended, row.version), ("T", false, 0));
        assert_eq!(row.agreements, [fresh("a"), fresh("b")]);
        let missing = ["dtm", "source", "add", "x", "--title", "T"];
        assert!(Cli::try_parse_from(missing).is_err(), "a new source needs a data set");
    }

    #[test]
    fn a_change_changes_what_is_named_and_nothing_else() {
        let asked = "--title T --agency A --dataset a,b --mode batch --form masked --refuse-raw \
                     --security restricted";
        let mut present = row(&args(asked), None);
        let shown = ["a", "batch", "masked, refuse-raw", "restricted", "-", "majority"];
        assert_eq!(told(&present.agreements[0]), shown);
        present.version = 7;
        present.group = 3;
        present.agreements[1].responsible_agency = "A01".to_owned();
        present.limits = Some(SourceLimits { stream_names_max: 9, ..SourceLimits::default() });

        let suspended = row(&args("--update --suspend"), Some(present.clone()));
        assert_eq!(suspended, SourceRow { suspended: true, ..present.clone() });
        let resumed = row(&args("--update --suspend=false"), Some(suspended));
        assert_eq!(resumed, present);
        let safe = row(&args("--update --ack-level site"), Some(present.clone()));
        assert!(safe.agreements.iter().all(|of| ack_level(of) == "site"), "{safe:?}");
        assert_eq!(safe.agreements[0].ack_level(), AckLevel::Site);

        let changed = row(&args("--update --dataset b,c --priority high"), Some(present.clone()));
        let [kept, new] = &changed.agreements[..] else { panic!("{changed:?}") };
        assert_eq!(*kept, Agreement { priority: 3, ..present.agreements[1].clone() });
        assert_eq!(*new, Agreement { priority: 3, ..fresh("c") });
        assert_eq!(changed, SourceRow { agreements: changed.agreements.clone(), ..present });
    }

    #[test]
    fn limits_are_named_one_by_one() {
        let first = row(
            &args("--dataset a --limit record_bytes_max=65_536 --limit streams_open_max=2"),
            None,
        );
        let set = SourceLimits {
            record_bytes_max: 65_536,
            streams_open_max: 2,
            ..SourceLimits::default()
        };
        assert_eq!(first.limits, Some(set));
        let changed = "--update --limit streams_open_max=0 --limit quarantine_records_max=5";
        let second = row(&args(changed), Some(first)).limits.expect("some are set");
        let named: Vec<_> = second.named().collect();
        assert_eq!(named, [("record_bytes_max", 65_536), ("quarantine_records_max", 5)]);
        for wrong in
            ["streams_open_max", "streams=2", "streams_open_max=two", "stream_names_max=4294967296"]
        {
            let words = ["dtm", "source", "add", "x", "--dataset", "a", "--limit", wrong];
            assert!(Cli::try_parse_from(words).is_err(), "{wrong}");
        }
    }
}
