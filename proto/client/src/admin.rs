//! What operators do: calls of `dtm.admin.v1` with the operator's certificate.

use crate::reader::with_seeds;
use crate::{Endpoint, Error};
use dtm_proto::admin::Context;
use dtm_proto::admin::admin_service_client::AdminServiceClient;
use tonic::transport::Channel;

const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Administrative calls.
#[derive(Clone, Debug)]
pub struct Admin {
    endpoint: Endpoint,
}

impl Admin {
    /// Calls with the certificate of this endpoint.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// The reason of an action with a fresh request id. A call that is repeated keeps its
    /// context, so that it is one action.
    #[must_use]
    pub fn context(reason: impl Into<String>) -> Context {
        let id: [u8; 16] = rand::random();
        Context {
            reason: reason.into(),
            request_id: id.to_vec().into(),
            second_factor: String::new(),
        }
    }

    /// Runs one call, against the next seed where one does not answer:
    ///
    /// `admin.call(|mut client| { let r = request.clone(); async move { client.put_source(r).await } })`
    ///
    /// # Errors
    /// What the cluster said, or why nobody answered.
    pub async fn call<T, F>(
        &self,
        mut call: impl FnMut(AdminServiceClient<Channel>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        with_seeds(&self.endpoint, "", |channel| {
            call(AdminServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
        })
        .await
    }
}
