//! Errors as gRPC statuses: code, one sentence, and `google.rpc.ErrorInfo` with the stable name.

use std::collections::HashMap;
use std::time::Duration;

use dtm_types::text::{Lang, Told, render};
use dtm_types::{ErrorCode, SourceId, StreamKey, chain};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of the error names.
const DOMAIN: &str = "dtm";
/// A detail longer than this stands in the message only: a header has its bounds.
const DETAIL_BYTES_MAX: usize = 1_024;
/// Key of the address that a client may go to instead: the leader's, where it is known.
pub const LEADER_ADDRESS: &str = "leader_address";
/// When to come back. An election takes less; where a majority is gone for long, clients wait longer
/// by themselves.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A status for a code; `detail` names the place and is shown behind the sentence.
pub fn status(code: ErrorCode, detail: impl std::fmt::Display) -> Status {
    status_with(code, detail, &[])
}

/// As [`status`], with machine-readable values such as a leader's address or a limit; the sentence
/// names them by their keys, the first also as `name`.
pub fn status_with(
    code: ErrorCode,
    detail: impl std::fmt::Display,
    values: &[(&str, String)],
) -> Status {
    let name = values.first().map(|(_, value)| ("name", value.as_str()));
    let placeholders: Vec<(&str, &str)> =
        values.iter().map(|(key, value)| (*key, value.as_str())).chain(name).collect();
    let text = render(Lang::En, &format!("error.{code}"), &placeholders);
    let mut metadata: HashMap<String, String> =
        values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let text_vi = render(Lang::Vi, &format!("error.{code}"), &placeholders);
    metadata.insert("message_vi".to_owned(), text_vi);
    metadata.insert("page".to_owned(), format!("docs/errors/{code}.md"));
    let detail = detail.to_string();
    if detail.len() <= DETAIL_BYTES_MAX {
        metadata.insert("detail".to_owned(), detail.clone());
    }
    let mut details = ErrorDetails::with_error_info(code.name(), DOMAIN, metadata);
    if code.retryable() {
        details.set_retry_info(Some(RETRY_AFTER));
    }
    Status::with_error_details(Code::from(code.grpc_code()), format!("{text}: {detail}"), details)
}

/// A refusal that people are told in their language.
pub fn told(code: ErrorCode, what: &Told) -> Status {
    told_with(code, what, &[])
}

/// As [`told`], with values as in [`status_with`].
pub fn told_with(code: ErrorCode, what: &Told, values: &[(&str, String)]) -> Status {
    let mut values = values.to_vec();
    if values.is_empty() {
        values.push(("name", String::new()));
    }
    let vi = what.of(Lang::Vi);
    if vi.len() <= DETAIL_BYTES_MAX {
        values.push(("detail_vi", vi));
    }
    status_with(code, what, &values)
}

/// A text that is kept is no longer than this.
pub fn at_most(field: &str, text: &str, max: usize) -> Result<(), Status> {
    if text.len() <= max {
        return Ok(());
    }
    let what = Told::new("refused.text_bytes").with("field", field).with("found", text.len());
    let values = [("limit", format!("{field}_bytes_max")), ("value", max.to_string())];
    Err(told_with(ErrorCode::TooLarge, &what.with("max", max), &values))
}

/// Why apply refuses, where a user meets it: its words, the same on every replica, and their text.
const APPLIED: [(&str, &str); 39] = [
    ("the source exists", "apply.source_exists"),
    ("a source code is 1 to 64 of a-z 0-9 . - _", "refused.source_code"),
    ("a source's row is at most 256 KiB", "apply.source_row_max"),
    ("the source does not exist", "apply.no_source"),
    ("the source was changed meanwhile", "apply.source_changed"),
    ("the source has no such key", "apply.no_key"),
    ("16 keys a source: revoke one first", "apply.keys_max"),
    ("this certificate is entered already", "apply.certificate_exists"),
    ("the source has no such certificate", "apply.no_certificate"),
    ("no such operator", "apply.no_operator"),
    ("this version is published and never changes", "apply.dataset_exists"),
    ("a definition is at most 1 MiB", "apply.definition_max"),
    ("unknown join token", "apply.no_token"),
    ("the join token was used or has expired", "apply.token_used"),
    ("no such approval", "apply.no_approval"),
    ("100 approvals are open: decide or wait", "apply.approvals_max"),
    ("the approval is granted already", "apply.approval_granted"),
    ("this is not what the approval was asked for", "apply.approval_other"),
    ("who asked for the approval is no operator any more", "apply.approval_asker_gone"),
    ("who asked for the approval does not decide on it", "apply.approval_own"),
    ("the approval was used", "apply.approval_used"),
    ("the approval was denied", "apply.approval_denied"),
    ("the approval is past its time", "apply.approval_expired"),
    ("the approval is not granted yet", "apply.approval_open"),
    ("the approval was granted for something else", "apply.approval_else"),
    ("who asked for the approval or granted it is no operator any more", "apply.approval_gone"),
    ("who granted the approval does not use it", "apply.approval_granter"),
    ("the settings were changed meanwhile", "apply.settings_changed"),
    ("at most 256 keys and 64 KiB are set", "apply.settings_max"),
    ("a key or value is too long, or too many", "apply.setting_long"),
    ("the layout was changed meanwhile", "apply.layout_changed"),
    ("while replicas stand by the primary changes by a promotion alone", "apply.layout_promote"),
    ("a site of the layout has no node", "apply.layout_no_node"),
    ("a layout of one site names no sites", "apply.layout_single"),
    ("a stretched layout names three sites", "apply.layout_stretched"),
    ("a layout with a standby names a primary and a standby site", "apply.layout_standby"),
    ("a layout names each site once", "apply.layout_twice"),
    ("this site does not stand by", "apply.layout_no_standby"),
    ("giving a standby up takes two people: detach its site", "apply.layout_detach"),
];

/// What apply refused, in the user's language where it is one of the usual reasons.
pub fn applied(code: ErrorCode, detail: &str) -> Status {
    match APPLIED.iter().find(|(words, _)| *words == detail) {
        Some((_, key)) => told(code, &Told::new(key)),
        None => status(code, detail),
    }
}

/// What the HTTPS port answers to a gRPC client.
pub fn not_the_grpc_port() -> Status {
    told(ErrorCode::InvalidArgument, &Told::new("refused.not_the_grpc_port"))
}

/// A session's error as the client sees it.
pub fn of_session(error: &dtm_actors::Error) -> Status {
    of_session_at(error, || None)
}

/// As [`of_session`]; `instead` names another node, and is asked where that one may serve the session.
pub fn of_session_at(
    error: &dtm_actors::Error,
    instead: impl FnOnce() -> Option<String>,
) -> Status {
    let code = error.code();
    let mut values = Vec::new();
    if let dtm_actors::Error::Limit { bound, .. } = error {
        let of = bound.of.name().to_owned();
        values.push(("limit", bound.name.to_owned()));
        values.extend([("value", bound.value.to_string()), ("limit_of", of)]);
    }
    if is_served_elsewhere(code) {
        values.extend(led_by(error).or_else(instead).map(|address| (LEADER_ADDRESS, address)));
    }
    match error.told() {
        Some(what) => told_with(code, &what, &values),
        None => status_with(code, chain(error), &values),
    }
}

/// Whether another node may serve what this one does not.
fn is_served_elsewhere(code: ErrorCode) -> bool {
    use ErrorCode::{NodeStopped, NotLeader, OutcomeUnknown, Unavailable};
    matches!(code, NotLeader | Unavailable | OutcomeUnknown | NodeStopped)
}

/// The leader that the error itself names.
fn led_by(error: &dtm_actors::Error) -> Option<String> {
    match error {
        dtm_actors::Error::Propose {
            source: dtm_machine::seams::ProposeError::NotLeader { leader, .. },
            ..
        } => leader.clone(),
        _ => None,
    }
}

/// Who the caller is, or that they may not, as a status.
pub fn of_identity(error: &dtm_identity::Error) -> Status {
    metrics::counter!("dtm_refusals_total", "code" => error.code().name()).increment(1);
    told(error.code(), &error.told())
}

/// A source's code as a request says it.
pub fn source_id(source: &str) -> Result<SourceId, Status> {
    let wrong = || told(ErrorCode::InvalidArgument, &Told::new("refused.source_code"));
    SourceId::parse(source).ok_or_else(wrong)
}

/// A stream's key as a request says it.
pub fn stream_key(source: &str, stream: &str) -> Result<StreamKey, Status> {
    source_id(source)?;
    let wrong = || told(ErrorCode::InvalidArgument, &Told::new("refused.stream_name"));
    StreamKey::parse(source, stream).ok_or_else(wrong)
}

/// A fault of this software.
pub fn internal(error: impl std::fmt::Display) -> Status {
    tracing::error!(%error, "internal error");
    status(ErrorCode::Internal, error)
}

#[cfg(test)]
mod tests {
    use dtm_actors::{Bound, BoundOf};
    use dtm_machine::seams::ProposeError;

    use super::*;

    fn values(status: &Status) -> HashMap<String, String> {
        status.get_details_error_info().expect("every status has it").metadata
    }

    #[test]
    fn what_apply_says_is_known_word_for_word() {
        let commands = [
            include_str!("../../../cluster/machine/src/commands/admin/sources.rs"),
            include_str!("../../../cluster/machine/src/commands/admin/certificates.rs"),
            include_str!("../../../cluster/machine/src/commands/admin/operators.rs"),
            include_str!("../../../cluster/machine/src/commands/admin/datasets.rs"),
            include_str!("../../../cluster/machine/src/commands/admin/nodes.rs"),
            include_str!("../../../cluster/machine/src/commands/admin/settings.rs"),
            include_str!("../../../cluster/machine/src/commands/admin/layout.rs"),
            include_str!("../../../cluster/machine/src/commands/admin/approvals/request.rs"),
            include_str!("../../../cluster/machine/src/commands/admin/approvals/decide.rs"),
            include_str!("../../../cluster/machine/src/commands/admin/approvals/take.rs"),
        ];
        for (words, key) in APPLIED {
            let said = format!("\"{words}\"");
            assert!(commands.iter().any(|file| file.contains(&said)), "{key}: {words}");
            let status = applied(ErrorCode::NotFound, words);
            assert_eq!(values(&status)["detail_vi"], Told::new(key).of(Lang::Vi), "{key}");
        }
        assert!(applied(ErrorCode::Internal, "else").message().contains("else"));
    }

    #[test]
    fn refusals_of_callers_and_sessions_are_told_in_both_languages() {
        let stream = StreamKey::parse("tinh-01", "main").expect("names");
        let limit = dtm_actors::Error::Limit {
            stream: stream.clone(),
            code: ErrorCode::TooLarge,
            bound: Bound { name: "record_bytes_max", value: 7, of: BoundOf::Node },
            found: 9,
        };
        let limit = of_session(&limit);
        let told = values(&limit);
        assert_eq!((&*told["limit"], &*told["value"]), ("record_bytes_max", "7"));
        assert!(told["detail_vi"].contains("giới hạn record_bytes_max"), "{told:?}");
        assert!(limit.message().contains("record_bytes_max is 7"), "{limit}");
        let gone = values(&of_session(&dtm_actors::Error::Superseded { stream, session: 5 }));
        assert!(gone["detail_vi"].contains("tinh-01/main"), "{gone:?}");
        let who = dtm_identity::Error::Unknown("operator lan".into());
        assert!(values(&of_identity(&who))["detail_vi"].contains("operator lan"));
    }

    #[test]
    fn who_finds_no_majority_is_told_where_else_to_try_and_when_to_come_back() {
        let stream = StreamKey::parse("tinh-01", "main").expect("names");
        let group = dtm_types::GroupId(3);
        let no_majority = ProposeError::Unavailable { group, cause: "no leader".to_owned() };
        let unavailable =
            dtm_actors::Error::Propose { stream: stream.clone(), source: no_majority };
        let told = of_session_at(&unavailable, || Some("b:1".to_owned()));
        assert_eq!(values(&told)[LEADER_ADDRESS], "b:1");
        let after = told.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(after, Some(RETRY_AFTER));
        let leader = Some("c:1".to_owned());
        let led = ProposeError::NotLeader { group, leader };
        let led = dtm_actors::Error::Propose { stream: stream.clone(), source: led };
        assert_eq!(values(&of_session_at(&led, || Some("b:1".to_owned())))[LEADER_ADDRESS], "c:1");
        let newer = dtm_actors::Error::Superseded { stream, session: 5 };
        let told = of_session_at(&newer, || panic!("no other node helps"));
        assert!(!values(&told).contains_key(LEADER_ADDRESS));
        assert!(told.get_details_retry_info().is_none());
    }
}
