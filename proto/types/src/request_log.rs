//! Words of the log lines that follow one request from the door to its ack (docs/running.md).

use crate::command::command::Op;

/// Target of these lines: `telemetry.log = "info,dtm_request=debug"` shows them and nothing else.
/// Each has `request_id` ([`RequestId`](crate::RequestId)), the same on every node.
pub const REQUEST_LOG: &str = "dtm_request";

/// What a command asks for, in one word.
pub fn operation(op: Option<&Op>) -> &'static str {
    match op {
        Some(Op::OpenSession(_)) => "open_session",
        Some(Op::AppendBatch(_)) => "append_batch",
        Some(Op::CloseSession(_)) => "close_session",
        Some(Op::DeclareLost(_)) => "declare_lost",
        Some(Op::PutKey(_)) => "put_key",
        Some(Op::Admin(_)) => "admin",
        Some(Op::Genesis(_)) => "genesis",
        Some(Op::CountRefusals(_)) => "count_refusals",
        Some(Op::RewrapKeys(_)) => "rewrap_keys",
        Some(Op::RaiseVersion(_)) => "raise_version",
        Some(Op::Anchor(_)) => "anchor",
        None => "none",
    }
}
