//! A connection to the cluster of the context.

use std::fs;

use dtm_client::{Credential, Endpoint, Reader, TlsFiles};
use dtm_proto::admin::Context as Why;
use dtm_proto::admin::admin_service_client::AdminServiceClient;
use dtm_proto::admin::backup_service_client::BackupServiceClient;
use dtm_proto::records::records_service_client::RecordsServiceClient;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use crate::Failure;
use crate::args::Globals;
use crate::contexts::{self, Context, Contexts};

/// Largest answer that is taken, bytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// A connection, and what goes with each call.
pub struct Remote {
    channel: Channel,
    endpoint: Endpoint,
    context: Context,
    reason: String,
}

impl Remote {
    /// Connects to the first address of the context that answers.
    ///
    /// # Errors
    /// [`Failure::Usage`] without a context, [`Failure::Unreachable`] where no address answers.
    pub async fn connect(globals: &Globals) -> Result<Self, Failure> {
        let (endpoint, context) = Self::endpoint(globals)?;
        Self::over(endpoint, context, globals).await
    }

    /// As [`Remote::connect`], over what [`Remote::endpoint`] gave.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] where no address answers.
    pub async fn over(
        endpoint: Endpoint,
        context: Context,
        globals: &Globals,
    ) -> Result<Self, Failure> {
        let mut tried = Vec::new();
        for address in endpoint.seeds() {
            match endpoint.channel(address).await {
                Ok(channel) => {
                    let reason = globals.reason.clone();
                    return Ok(Self { channel, endpoint, context, reason });
                }
                Err(error) => tried.push(error),
            }
        }
        Err(Failure::Unreachable { tried })
    }

    /// What the SDK needs to connect by itself, with the context.
    ///
    /// # Errors
    /// [`Failure::Usage`], [`Failure::Client`], [`Failure::File`].
    pub fn endpoint(globals: &Globals) -> Result<(Endpoint, Context), Failure> {
        let contexts = Contexts::load(&contexts::path())?;
        let context = contexts.pick(globals.context.as_deref())?.clone();
        Ok((Self::reached_by(&context)?, context))
    }

    /// What a context's files and addresses are good for; connects to nothing.
    ///
    /// # Errors
    /// [`Failure::Client`], [`Failure::File`].
    pub(crate) fn reached_by(context: &Context) -> Result<Endpoint, Failure> {
        let files = TlsFiles {
            ca: context.ca.clone(),
            certificate: context.certificate.clone(),
            key: context.key.clone(),
        };
        let mut endpoint = Endpoint::new(context.address.clone(), &files)?;
        if let Some(file) = &context.source_key_file {
            let key = Zeroizing::new(fs::read_to_string(file).map_err(Failure::file(file))?);
            endpoint = endpoint.with_credential(Credential::source_key(&key)?);
        }
        Ok(endpoint)
    }

    /// Reads that go on at another address of the context where one goes away.
    pub fn reader(&self) -> Reader {
        Reader::new(self.endpoint.clone())
    }

    /// The administration of the cluster.
    pub fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Backups.
    pub(crate) fn backups(&self) -> BackupServiceClient<Channel> {
        BackupServiceClient::new(self.channel.clone())
    }

    /// Stored records.
    pub fn records(&self) -> RecordsServiceClient<Channel> {
        RecordsServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The last session of a stream, 0 = it was never opened; `None` where that cannot be asked.
    pub async fn stream_session(&self, source: &str, stream: &str) -> Option<u64> {
        let status = dtm_client::stream_status(&self.endpoint, source, stream).await;
        status.ok().map(|status| status.session)
    }

    /// A request with the context's credential.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        self.endpoint.request(message)
    }

    /// Why, under a fresh request id: a repeated call with the same one is one action.
    pub fn why(&self) -> Option<Why> {
        let request_id = uuid::Uuid::now_v7().as_bytes().to_vec().into();
        Some(Why { reason: self.reason.clone(), request_id, second_factor: String::new() })
    }

    /// The named source, else the context's.
    ///
    /// # Errors
    /// [`Failure::Usage`] where neither is there.
    pub fn known_source(&self, named: Option<&str>) -> Result<String, Failure> {
        let source = self.source(named);
        if source.is_empty() { Err(Failure::usage("cli.no_source", &[])) } else { Ok(source) }
    }

    /// Keeps these addresses in the context for the day that its own do not answer. Nothing is said
    /// where the file cannot be written: what was asked for is done.
    pub fn learn(globals: &Globals, addresses: &[String]) {
        let file = contexts::path();
        let Ok(mut all) = Contexts::load(&file) else { return };
        if all.learn(globals.context.as_deref(), addresses) {
            let _ = all.save(&file);
        }
    }

    /// The named source, else the context's; empty where neither is there.
    pub fn source(&self, named: Option<&str>) -> String {
        named.or(self.context.source.as_deref()).unwrap_or_default().to_owned()
    }
}
