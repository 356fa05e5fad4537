//! How a command ends.

use dtm_types::ErrorCode;
use dtm_types::text::{Lang, render};
use tonic_types::StatusExt;

/// Exit codes that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed.
    Failed = 1,
    /// Wrong use.
    Usage = 2,
    /// The cluster or machine is not healthy.
    Unhealthy = 10,
    /// What was checked does not verify.
    Unverified = 20,
    /// The configuration does not hold.
    Config = 78,
}

/// A command that did not succeed: what to tell, and the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The cluster refused, or could not be asked.
    #[error("{0}")]
    Refused(#[from] Box<tonic::Status>),
    /// No connection.
    #[error(transparent)]
    Client(#[from] dtm_client::Error),
    /// What was to be published.
    #[error(transparent)]
    Publish(#[from] dtm_client::publish::Error),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] dtm_client::agent::Error),
    /// The definition of a data set does not read.
    #[error(transparent)]
    Definition(#[from] dtm_catalog::Error),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate request could not be made.
    #[error("certificate request could not be made: {0}")]
    Request(#[from] rcgen::Error),
    /// Wrong use; a text key of the catalogue with its values.
    #[error("{key}")]
    Usage {
        /// `cli.*`.
        key: &'static str,
        /// Placeholders.
        values: Vec<(&'static str, String)>,
    },
    /// It was done and came out badly; the result was printed.
    #[error("{key}")]
    Verdict {
        /// `cli.*`.
        key: &'static str,
        /// Exit code.
        exit: Exit,
    },
    /// The contexts file does not hold.
    #[error("{path}: {what}")]
    Contexts {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl Failure {
    /// Wrong use, explained by a text of the catalogue.
    pub fn usage(key: &'static str, values: &[(&'static str, &str)]) -> Self {
        Self::Usage {
            key,
            values: values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        }
    }

    /// A file that could not be read or written.
    pub fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }

    /// The process's exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Verdict { exit, .. } => *exit,
            Self::Contexts { .. } => Exit::Config,
            _ => Exit::Failed,
        }
    }

    /// What to tell the user. A refusal of the cluster names its code, whose page says what to do.
    pub fn tell(&self, lang: Lang) -> String {
        match self {
            Self::Refused(status) => match code_of(status) {
                Some(code) => {
                    let words =
                        render(lang, &format!("error.{code}"), &[("name", status.message())]);
                    format!("{words} [{code}]\n  {}\n  docs/errors/{code}.md", status.message())
                }
                None => format!("{:?}: {}", status.code(), status.message()),
            },
            Self::Usage { key, values } => {
                let values: Vec<_> =
                    values.iter().map(|(name, value)| (*name, value.as_str())).collect();
                render(lang, key, &values)
            }
            Self::Verdict { key, .. } => render(lang, key, &[]),
            other => other.to_string(),
        }
    }
}

/// The stable code that stands in the status's error info.
fn code_of(status: &tonic::Status) -> Option<ErrorCode> {
    let details = status.get_error_details();
    ErrorCode::from_name(&details.error_info()?.reason)
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_names_its_code_and_page() {
        let details = ErrorDetails::with_error_info(
            "unknown-source",
            "dtm",
            std::collections::HashMap::new(),
        );
        let status = tonic::Status::with_error_details(tonic::Code::NotFound, "tinh-99", details);
        let told = Failure::from(status).tell(Lang::Vi);
        assert!(told.contains("nguồn tinh-99 chưa được đăng ký [unknown-source]"), "{told}");
        assert!(told.contains("docs/errors/unknown-source.md"), "{told}");
        assert_eq!(Failure::from(tonic::Status::internal("x")).exit(), Exit::Failed);
    }
}
