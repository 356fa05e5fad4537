//! Reads a gRPC status: `google.rpc.ErrorInfo.reason` is the name of an `ErrorCode`,
//! `RetryInfo` says when to come back, `ErrorInfo.metadata["leader_address"]` where to go.

use crate::Error;
use dtm_types::ErrorCode;
use std::sync::Arc;
use tonic_types::StatusExt;

/// Longest text of a server that is kept.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The error that a status means, said by `address`.
pub(crate) fn error_of(address: &str, stream: &str, status: &tonic::Status) -> Error {
    let info = status.get_details_error_info();
    let code = info.as_ref().and_then(|info| {
        let reason = info.reason.to_ascii_lowercase().replace('_', "-");
        ErrorCode::from_name(&reason)
    });
    let superseded = match code {
        Some(code) => code == ErrorCode::Superseded,
        None => status.code() == tonic::Code::Aborted,
    };
    if superseded {
        return Error::Superseded { stream: stream.to_owned() };
    }
    let mut message = status.message().to_owned();
    if message.is_empty() {
        message = innermost(status);
    }
    if message.len() > MESSAGE_BYTES_MAX {
        let cut = (0..=MESSAGE_BYTES_MAX).rev().find(|&at| message.is_char_boundary(at));
        message.truncate(cut.unwrap_or(0));
    }
    let mut values = info.map(|info| info.metadata).unwrap_or_default();
    let leader = values.remove("leader_address");
    Error::Rejected {
        address: address.to_owned(),
        code,
        grpc: status.code(),
        message,
        retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
        leader,
        values: Arc::new(values),
    }
}

/// Text of the innermost cause of an error; a chain of at most 16.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    for _ in 0..16 {
        match cause.source() {
            Some(next) => cause = next,
            None => break,
        }
    }
    cause.to_string()
}
