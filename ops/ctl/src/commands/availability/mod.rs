//! `dtm availability probe|report|board|maintenance`.

mod board;
mod journal;
mod page;
mod probe;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use dtm_availability::{Account, Line, Maintenance, Period, account};
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde_json::json;

use crate::args::{AvailabilityCommand, Globals};
use crate::{Exit, Failure, Printer};
use journal::Journal;

/// UTC+07:00.
const LOCAL: Offset = Offset::constant(7);

pub(crate) async fn run(command: &AvailabilityCommand, globals: &Globals) -> Result<(), Failure> {
    let printer = Printer::new(globals);
    match command {
        AvailabilityCommand::Probe(args) => probe::run(args, globals).await,
        AvailabilityCommand::Report { period, data } => report(&printer, period.as_deref(), data),
        AvailabilityCommand::Board(args) => board::run(args, globals).await,
        AvailabilityCommand::Maintenance { data, from, to, what } => {
            let maintenance =
                Maintenance { from: minute_at(from)?, to: minute_at(to)?, reason: what.clone() };
            if maintenance.from >= maintenance.to {
                return Err(Failure::usage("cli.availability.backwards", &[]));
            }
            Journal::open(data)?.append(&Line::Planned { maintenance }, minute_now())?;
            printer.done("cli.availability.planned", &[("from", from), ("to", to)], &json!({}));
            Ok(())
        }
    }
}

/// Minutes since 1970-01-01 UTC.
#[expect(clippy::disallowed_methods, reason = "a probe tells the time of its machine")]
fn minute_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs() / 60).unwrap_or(i64::MAX)
}

fn minute_at(text: &str) -> Result<i64, Failure> {
    let wrong = || Failure::usage("cli.availability.time", &[("found", text)]);
    let local: DateTime = text.parse().map_err(|_| wrong())?;
    let at = LOCAL.to_timestamp(local).map_err(|_| wrong())?;
    Ok(at.as_second().div_euclid(60))
}

fn report(printer: &Printer<'_>, period: Option<&str>, folders: &[PathBuf]) -> Result<(), Failure> {
    let now = minute_now();
    let wrong = |_| {
        let found = period.unwrap_or_default();
        Failure::usage("cli.availability.period", &[("found", found)])
    };
    let year = Period::year_of(now).map_err(wrong)?;
    let asked = period.map_or(Ok(year), Period::parse).map_err(wrong)?;
    let probes = folders.iter().map(|folder| journal::read(folder));
    let probes: Vec<Vec<Line>> = probes.collect::<Result<_, _>>()?;
    let found = account(&asked, now, &probes);
    show(printer, &found);
    if found.allowance_left_minutes < 0.0 {
        return Err(Failure::Verdict { key: "cli.availability.missed", exit: Exit::Unhealthy });
    }
    Ok(())
}

fn show(printer: &Printer<'_>, found: &Account) {
    if printer.is_json() {
        return printer.json(&json!(found));
    }
    let figures = [
        ("period", found.period.clone()),
        ("percent", format!("{:.4}", found.availability_percent)),
        ("least", format!("{:.4}", found.availability_at_least_percent)),
        ("interrupted", found.interrupted.to_string()),
        ("partial", found.partial.to_string()),
        ("seen", found.seen.to_string()),
        ("unseen", found.unseen.to_string()),
        ("past", found.past.to_string()),
        ("allowance", format!("{:.1}", found.year_allowance_minutes)),
        ("left", format!("{:.1}", found.allowance_left_minutes)),
    ];
    let values: Vec<(&str, &str)> =
        figures.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for line in
        ["cli.availability.account", "cli.availability.minutes", "cli.availability.allowance"]
    {
        printer.say(line, &values);
    }
    let rows = found.interruptions.iter().map(|one| {
        let functions: Vec<_> = one.functions.iter().map(|function| function.name()).collect();
        let planned = one.planned.join("; ");
        vec![one.from.clone(), one.minutes.to_string(), functions.join(", "), planned]
    });
    if !found.interruptions.is_empty() {
        printer.table(&["from", "minutes", "not_working", "planned"], rows.collect(), &json!({}));
    }
    for (function, addresses) in &found.failed_minutes {
        for (address, minutes) in addresses {
            let values = [
                ("function", function.name()),
                ("address", address),
                ("count", &minutes.to_string()),
            ];
            printer.say("cli.availability.failed", &values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_hanoi() {
        let at = minute_at("2026-11-22T00:00").expect("a time");
        assert_eq!(at, Period::parse("2026-11-22").expect("a day").from);
        assert!(minute_at("yesterday").is_err());
    }
}
