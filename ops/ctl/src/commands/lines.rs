//! Lines between sites, as `dtm site status` shows them: each as both of its ends see it.

use dtm_proto::admin::{LineStatus, SiteLine, SiteStatusResponse};
use serde_json::{Value, json};

use crate::Printer;

/// A line of the answer with what its end says of it.
fn each(status: &SiteStatusResponse) -> impl Iterator<Item = (&SiteLine, &LineStatus)> {
    status.lines.iter().filter_map(|line| Some((line, line.status.as_ref()?)))
}

/// It goes over its first channel.
fn is_well(line: &LineStatus) -> bool {
    line.channel == Some(0)
}

/// Lines that do not go over their first channel; in one sentence how many there are, where all do.
pub(super) fn table(status: &SiteStatusResponse, printer: &Printer<'_>) {
    if status.lines.is_empty() {
        return;
    }
    printer.raw("");
    let rows: Vec<Vec<String>> = each(status)
        .filter(|(_, line)| !is_well(line))
        .map(|(named, line)| row(named, line, printer))
        .collect();
    if rows.is_empty() {
        let count = each(status).count().to_string();
        return printer.say("cli.lines_well", &[("count", &count)]);
    }
    printer.table(&["ends", "site", "channel", "cut_for", "round_trip"], rows, &Value::Null);
}

fn row(named: &SiteLine, line: &LineStatus, printer: &Printer<'_>) -> Vec<String> {
    let up = |text: String| if line.channel.is_some() { text } else { "-".to_owned() };
    let cut_for = line.first_cut_ms.map_or("-".to_owned(), |ms| format!("{} s", ms / 1_000));
    vec![
        format!("{} → {}", named.node, named.peer),
        format!("{} → {}", named.site, named.peer_site),
        channel(line, printer),
        cut_for,
        up(format!("{} ms", line.round_trip_us / 1_000)),
    ]
}

/// The channel in use, in words; people count from one.
fn channel(line: &LineStatus, printer: &Printer<'_>) -> String {
    let channels = line.channels.to_string();
    match line.channel {
        None => printer.text("cli.line_cut", &[]),
        Some(0) => printer.text("cli.line_first", &[]),
        Some(at) => {
            let values = [("channel", &*(at + 1).to_string()), ("channels", &*channels)];
            printer.text("cli.line_other", &values)
        }
    }
}

/// What is not as it should be with lines, in words, and whom to tell.
pub(super) fn troubles(status: &SiteStatusResponse, printer: &Printer<'_>) -> Vec<String> {
    let mut troubles: Vec<String> = each(status)
        .filter(|(_, line)| !is_well(line) || line.awaits)
        .map(|(named, line)| {
            let ends = [("node", &*named.node), ("peer", &*named.peer)];
            if line.awaits {
                return printer.text("cli.line_awaits", &ends);
            }
            let Some(at) = line.channel else { return printer.text("cli.line_is_cut", &ends) };
            let seconds = (line.first_cut_ms.unwrap_or_default() / 1_000).to_string();
            let (channel, [node, peer]) = ((at + 1).to_string(), ends);
            let values = [node, peer, ("channel", &*channel), ("seconds", &*seconds)];
            printer.text("cli.line_on_second", &values)
        })
        .collect();
    if !troubles.is_empty() && !status.contact.is_empty() {
        troubles.push(printer.text("cli.line_contact", &[("contact", &status.contact)]));
    }
    troubles
}

pub(super) fn document(status: &SiteStatusResponse) -> Value {
    let lines = each(status).map(|(named, line)| {
        json!({ "node": named.node, "site": named.site, "peer": named.peer,
            "peer_site": named.peer_site, "channel": line.channel, "channels": line.channels,
            "first_cut_ms": line.first_cut_ms, "awaits": line.awaits,
            "round_trip_us": line.round_trip_us })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_well_over_its_first_channel_alone() {
        let line = |channel| LineStatus { channel, channels: 2, ..LineStatus::default() };
        assert!(is_well(&line(Some(0))));
        assert!(!is_well(&line(Some(1))) && !is_well(&line(None)));
        let named = SiteLine { node: "n1".into(), peer: "n4".into(), ..SiteLine::default() };
        let of = |status| SiteLine { status: Some(status), ..named.clone() };
        let lines = vec![of(line(Some(1))), of(line(None)), named.clone()];
        let status = SiteStatusResponse { lines, ..SiteStatusResponse::default() };
        assert_eq!(each(&status).count(), 2, "an end that says nothing is left out");
        let told = document(&status);
        assert_eq!((&told[0]["channel"], &told[1]["channel"]), (&json!(1), &Value::Null));
    }
}
