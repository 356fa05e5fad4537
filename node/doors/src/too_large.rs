//! A message over the limit of its service is refused by the library that decodes it, in words of its
//! own: here it gets the code, the limit's name and value, and the page.

use std::pin::Pin;
use std::task::{Context, Poll};

use dtm_types::ErrorCode;
use http::HeaderMap;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::status::status_with;

/// What the library says.
const SAYS: &str = "decoded message length too large";

/// Layer over all services of the port.
#[derive(Clone, Copy)]
pub struct TellTooLarge;

/// A door whose refusals are told.
#[derive(Clone)]
pub struct Telling<S>(S);

impl<S> Layer<S> for TellTooLarge {
    type Service = Telling<S>;

    fn layer(&self, inner: S) -> Telling<S> {
        Telling(inner)
    }
}

impl<S, R, B> Service<R> for Telling<S>
where
    S: Service<R, Response = http::Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            tell(response.headers_mut());
            Ok(response)
        })
    }
}

/// Puts our words in the place of the library's. A refusal of the first message stands in the headers.
fn tell(headers: &mut HeaderMap) {
    if headers.get(Status::GRPC_STATUS).is_none_or(|code| code != "11") {
        return;
    }
    let Some(refused) = Status::from_header_map(headers) else { return };
    if refused.code() != Code::OutOfRange || !refused.message().contains(SAYS) {
        return;
    }
    let mut numbers =
        refused.message().split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    let (found, limit) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let values = [("limit", "message_bytes_max".to_owned()), ("value", limit.to_string())];
    let detail = format!("message_bytes_max = {limit} exceeded by {found}");
    let told = status_with(ErrorCode::TooLarge, detail, &values);
    for name in [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS] {
        headers.remove(name);
    }
    if let Err(status) = told.add_header(headers) {
        tracing::error!(%status, "a refusal does not fit into headers");
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    fn told(status: &Status) -> Status {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).expect("fits");
        tell(&mut headers);
        Status::from_header_map(&headers).expect("a status")
    }

    #[test]
    fn a_message_over_its_limit_is_told_with_name_and_value() {
        let said = "Error, decoded message length too large: found 6000184 bytes, the limit is: \
                    4194304 bytes";
        let told = told(&Status::out_of_range(said));
        assert_eq!(told.code(), Code::InvalidArgument);
        let info = told.get_details_error_info().expect("details");
        assert_eq!(info.reason, ErrorCode::TooLarge.name());
        assert_eq!(info.metadata["limit"], "message_bytes_max");
        assert_eq!(info.metadata["value"], "4194304");
        assert_eq!(info.metadata["page"], "docs/errors/too-large.md");
        assert!(told.message().contains("6000184"), "{told}");
    }

    #[test]
    fn nothing_else_is_changed() {
        for status in [Status::out_of_range("of something else"), Status::not_found(SAYS)] {
            let same = told(&status);
            assert_eq!((same.code(), same.message()), (status.code(), status.message()));
        }
        let mut headers = HeaderMap::new();
        tell(&mut headers);
        assert!(headers.is_empty());
    }
}
