//! Errors as gRPC statuses: code, one sentence, and `google.rpc.ErrorInfo` with the stable name.

use std::collections::HashMap;
use std::time::Duration;

use dtm_types::text::{Lang, render};
use dtm_types::{ErrorCode, SourceId, StreamKey, chain};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of the error names.
const DOMAIN: &str = "dtm";
/// A detail longer than this stands in the message only: a header has its bounds.
const DETAIL_BYTES_MAX: usize = 1_024;

/// A status for a code; `detail` names the place and is shown behind the sentence.
pub(crate) fn status(code: ErrorCode, detail: impl std::fmt::Display) -> Status {
    status_with(code, detail, &[])
}

/// As [`status`], with machine-readable values such as a leader's address or a limit; the sentence
/// names them by their keys, the first also as `name`.
pub(crate) fn status_with(
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
        details.set_retry_info(Some(Duration::from_millis(200)));
    }
    Status::with_error_details(Code::from(code.grpc_code()), format!("{text}: {detail}"), details)
}

/// A refusal that people are told in their language: `refused.KEY` of the catalogue of texts.
pub(crate) fn refusal(code: ErrorCode, key: &str, values: &[(&str, &str)]) -> Status {
    let words = |lang| render(lang, &format!("refused.{key}"), values);
    status_with(code, words(Lang::En), &[("name", String::new()), ("detail_vi", words(Lang::Vi))])
}

/// What the HTTPS port answers to a gRPC client.
pub(crate) fn not_the_grpc_port() -> Status {
    refusal(ErrorCode::InvalidArgument, "not_the_grpc_port", &[])
}

/// A session's error as the client sees it.
pub(crate) fn of_session(error: &dtm_actors::Error) -> Status {
    let detail = chain(error);
    match error {
        dtm_actors::Error::Limit { name, value, .. } => status_with(
            error.code(),
            detail,
            &[("limit", (*name).to_owned()), ("value", value.to_string())],
        ),
        dtm_actors::Error::Propose {
            source: dtm_machine::seams::ProposeError::NotLeader { leader, .. },
            ..
        } => status_with(
            error.code(),
            detail,
            &[("leader_address", leader.clone().unwrap_or_default())],
        ),
        _ => status(error.code(), detail),
    }
}

/// Who the caller is, or that they may not, as a status.
pub(crate) fn of_identity(error: &dtm_identity::Error) -> Status {
    metrics::counter!("dtm_refusals_total", "code" => error.code().name()).increment(1);
    status(error.code(), error)
}

/// A source's code as a request says it.
pub(crate) fn source_id(source: &str) -> Result<SourceId, Status> {
    SourceId::parse(source).ok_or_else(|| status(ErrorCode::InvalidArgument, SourceId::RULE))
}

/// A stream's key as a request says it.
pub(crate) fn stream_key(source: &str, stream: &str) -> Result<StreamKey, Status> {
    source_id(source)?;
    let wrong = || status(ErrorCode::InvalidArgument, StreamKey::STREAM_RULE);
    StreamKey::parse(source, stream).ok_or_else(wrong)
}

/// A fault of this software.
pub(crate) fn internal(error: impl std::fmt::Display) -> Status {
    tracing::error!(%error, "internal error");
    status(ErrorCode::Internal, error)
}
