//! What stands around a payload: the message's own id, times and labels.
//!
//! The lists are those of the portal's circular (channels of Art. 18.3) and of section 11.1 of the
//! data sets; what a sender does not say is empty.

use dtm_types::format::Envelope;

use crate::chars;
use crate::lexical::{compare_dates, to_date};
use crate::violation::{Rule, Violation};

/// Longest text of an envelope, the message id included, in bytes.
pub const ENVELOPE_TEXT_BYTES_MAX: usize = 256;
/// The last microsecond of the year 9999, as Unix time.
const TIME_US_MAX: i64 = 253_402_300_799_999_999;
/// Ways that messages take (Art. 18.3).
const CHANNELS: &[&str] = &["a", "b", "c"];
/// Where a message belongs.
const ENVIRONMENTS: &[&str] = &["test", "production"];
/// How a dossier was received.
const RECEPTION_METHODS: &[&str] = &["online", "entry", "other"];

/// What is wrong with a message's id, with the time at which it happened and with the rest of its
/// envelope. Pointers name the field of the message. Hot path: called once a record.
pub fn check_envelope(
    message_id: &str,
    event_time_us: i64,
    envelope: Option<&Envelope>,
) -> Vec<Violation> {
    let mut found = Findings(Vec::new());
    found.text("/message_id", message_id);
    found.time("/event_time_us", event_time_us);
    let Some(envelope) = envelope else { return found.0 };
    found.time("/envelope/sent_time_us", envelope.sent_time_us);
    let texts = [
        ("/envelope/sender_agency_code", &envelope.sender_agency_code),
        ("/envelope/sender_system_id", &envelope.sender_system_id),
        ("/envelope/receiver_system_id", &envelope.receiver_system_id),
        ("/envelope/origin_system_id", &envelope.origin_system_id),
        ("/envelope/origin_record_id", &envelope.origin_record_id),
        ("/envelope/purpose_code", &envelope.purpose_code),
    ];
    for (pointer, text) in texts {
        found.text(pointer, text);
    }
    found.one_of("/envelope/channel", &envelope.channel, CHANNELS);
    found.one_of("/envelope/environment", &envelope.environment, ENVIRONMENTS);
    found.one_of("/envelope/reception_method", &envelope.reception_method, RECEPTION_METHODS);
    let from = found.date("/envelope/valid_from", &envelope.valid_from);
    let to = found.date("/envelope/valid_to", &envelope.valid_to);
    if let (Some(from), Some(to)) = (from, to)
        && compare_dates(&to, &from).is_lt()
    {
        let expected = format!("≥ {from}");
        found.push("/envelope/valid_to", expected, &envelope.valid_to);
    }
    found.0
}

/// True for a text that may stand in an envelope or in a stream's defaults.
pub fn is_envelope_text(text: &str) -> bool {
    let is_plain = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    let is_allowed = |c: char| !c.is_control() && chars::fault(c).is_none();
    text.len() <= ENVELOPE_TEXT_BYTES_MAX && (is_plain || text.chars().all(is_allowed))
}

struct Findings(Vec<Violation>);

impl Findings {
    fn push(&mut self, pointer: &str, expected: String, found: &str) {
        self.0.push(Violation::new(Rule::Label, pointer, expected, found.as_bytes()));
    }

    fn text(&mut self, pointer: &str, text: &str) {
        if !is_envelope_text(text) {
            self.push(pointer, format!("≤ {ENVELOPE_TEXT_BYTES_MAX} B, U+0020 …"), text);
        }
    }

    fn time(&mut self, pointer: &str, time_us: i64) {
        if !(0..=TIME_US_MAX).contains(&time_us) {
            self.push(pointer, format!("0 … {TIME_US_MAX}"), &time_us.to_string());
        }
    }

    fn one_of(&mut self, pointer: &str, value: &str, list: &[&str]) {
        if !value.is_empty() && !list.contains(&value) {
            self.push(pointer, list.join(", "), value);
        }
    }

    /// The canonical form of a date that is there and right.
    fn date(&mut self, pointer: &str, value: &str) -> Option<String> {
        if value.is_empty() {
            return None;
        }
        let date = to_date(value);
        if date.is_none() {
            self.push(pointer, "YYYY-MM-DD, YYYY-MM-DDThh:mm:ss+07:00".to_owned(), value);
        }
        date
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(message_id: &str, time_us: i64, envelope: &Envelope) -> Vec<String> {
        let found = check_envelope(message_id, time_us, Some(envelope));
        assert!(found.iter().all(|v| v.rule == Rule::Label && !v.expected.is_empty()));
        found.into_iter().map(|v| v.pointer).collect()
    }

    #[test]
    fn a_whole_envelope_is_taken() {
        let envelope = Envelope {
            sent_time_us: TIME_US_MAX,
            sender_agency_code: "H29".into(),
            sender_system_id: "Cổng dịch vụ công 34".into(),
            channel: "b".into(),
            environment: "production".into(),
            reception_method: "online".into(),
            valid_from: "2026-01-01".into(),
            valid_to: "2026-01-01T08:00:00+07:00".into(),
            ..Envelope::default()
        };
        assert_eq!(pointers("urn:uuid:7", 1, &envelope), [""; 0]);
        assert!(check_envelope("", 0, None).is_empty());
    }

    #[test]
    fn each_field_is_named_that_is_wrong() {
        let long = "x".repeat(ENVELOPE_TEXT_BYTES_MAX + 1);
        let envelope = Envelope {
            sent_time_us: -1,
            purpose_code: long.clone(),
            origin_record_id: "a\nb".into(),
            channel: "d".into(),
            environment: "Production".into(),
            reception_method: "post".into(),
            valid_from: "yesterday".into(),
            valid_to: "2026-02-30".into(),
            ..Envelope::default()
        };
        let found = pointers("a\0b", i64::MAX, &envelope);
        let fields = [
            "sent_time_us",
            "origin_record_id",
            "purpose_code",
            "channel",
            "environment",
            "reception_method",
            "valid_from",
            "valid_to",
        ];
        let mut expected = vec!["/message_id".to_owned(), "/event_time_us".to_owned()];
        expected.extend(fields.map(|field| format!("/envelope/{field}")));
        assert_eq!(found, expected);
        assert_eq!(pointers(&long, 0, &Envelope::default()), ["/message_id"]);
    }

    #[test]
    fn validity_does_not_end_before_it_begins() {
        let dates = |from: &str, to: &str| Envelope {
            valid_from: from.into(),
            valid_to: to.into(),
            ..Envelope::default()
        };
        assert_eq!(pointers("", 0, &dates("2026-05-02", "2026-05-01")), ["/envelope/valid_to"]);
        assert_eq!(pointers("", 0, &dates("2026-05-02", "2026-05-02")), [""; 0]);
    }
}
