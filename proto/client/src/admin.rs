//! What operators do: calls of `dtm.admin.v1` with the operator's certificate, and the file of
//! contexts that says which cluster and which certificate.

use crate::reader::with_seeds;
use crate::{Endpoint, Error, TlsFiles};
use dtm_proto::admin::Context;
use dtm_proto::admin::admin_service_client::AdminServiceClient;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
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

/// A cluster and who one is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextEntry {
    /// Name by which it is chosen.
    pub name: String,
    /// gRPC addresses, `host:port`.
    pub addresses: Vec<String>,
    /// CA certificate, PEM. Relative paths start at the contexts file.
    pub ca: PathBuf,
    /// Operator certificate, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Name in the servers' certificates, where it is not the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// The contexts file: TOML, unknown keys refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// Name of the context in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The contexts.
    #[serde(default, rename = "context")]
    pub contexts: Vec<ContextEntry>,
}

/// Why a contexts file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// It does not read.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// Line, key and what is wrong.
        reason: String,
    },
    /// No such context.
    #[error("{file} has no context {name}")]
    Unknown {
        /// The file.
        file: String,
        /// The name asked for.
        name: String,
    },
    /// None was chosen.
    #[error("{file} names no current context")]
    NoneChosen {
        /// The file.
        file: String,
    },
    /// Its certificates or addresses cannot be used.
    #[error(transparent)]
    Endpoint(#[from] Error),
}

impl Contexts {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ContextError::File`] with line and key.
    pub fn load(file: &Path) -> Result<Self, ContextError> {
        let failed =
            |reason: String| ContextError::File { file: file.display().to_string(), reason };
        let text = std::fs::read_to_string(file).map_err(|e| failed(e.to_string()))?;
        toml::from_str(&text).map_err(|e| failed(e.to_string()))
    }

    /// The text of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("strings and lists always have a TOML form")
    }

    /// The endpoint of a context; of the current one where no name is given.
    ///
    /// # Errors
    /// [`ContextError`].
    pub fn endpoint(&self, file: &Path, name: Option<&str>) -> Result<Endpoint, ContextError> {
        let shown = || file.display().to_string();
        let name = name
            .or(self.current.as_deref())
            .ok_or_else(|| ContextError::NoneChosen { file: shown() })?;
        let entry = self
            .contexts
            .iter()
            .find(|entry| entry.name == name)
            .ok_or_else(|| ContextError::Unknown { file: shown(), name: name.to_owned() })?;
        let base = file.parent().unwrap_or(Path::new("."));
        let files = TlsFiles {
            ca: base.join(&entry.ca),
            certificate: entry.certificate.as_ref().map(|path| base.join(path)),
            key: entry.key.as_ref().map(|path| base.join(path)),
        };
        let endpoint = Endpoint::new(entry.addresses.iter().cloned(), &files)?;
        Ok(match &entry.server_name {
            Some(name) => endpoint.with_server_name(name),
            None => endpoint,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_kept_and_unknown_keys_refused() {
        let text = "current = 'a'\n[[context]]\nname = 'a'\naddresses = ['h:1']\nca = 'ca.pem'\n";
        let contexts: Contexts = toml::from_str(text).expect("it reads");
        assert_eq!(toml::from_str::<Contexts>(&contexts.to_toml()).expect("it reads"), contexts);
        assert!(toml::from_str::<Contexts>("wrong = 1").is_err());
        let file = Path::new("/nowhere/contexts.toml");
        assert!(matches!(contexts.endpoint(file, Some("b")), Err(ContextError::Unknown { .. })));
        let error = contexts.endpoint(file, None).expect_err("there is no such file");
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }
}
