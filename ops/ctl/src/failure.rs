//! How a command ends.

use std::io::ErrorKind;

use dtm_types::text::{Lang, render};

use crate::told;

/// What was asked for is not there: the command was right and failed.
const NOT_FOUND: [&str; 7] = [
    "cli.unknown_context",
    "cli.unknown_node",
    "cli.unknown_source",
    "cli.unknown_dataset",
    "cli.unknown_schema_version",
    "cli.no_record",
    "cli.no_stream",
];

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
    /// No address of the context answers.
    #[error("no address answers")]
    Unreachable {
        /// What became of each; none where the time for all of them was over.
        tried: Vec<dtm_client::Error>,
    },
    /// What was to be published.
    #[error(transparent)]
    Publish(#[from] dtm_client::publish::Error),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] dtm_client::agent::Error),
    /// A backup is damaged, not whole, or not there.
    #[error(transparent)]
    Backup(dtm_backup::Error),
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
    /// It was told already, as its reader wanted it.
    #[error("told already")]
    Told,
    /// The contexts file does not hold.
    #[error("{path}:{line}: {what}")]
    Contexts {
        /// The file.
        path: String,
        /// Where, from 1.
        line: usize,
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
            Self::Usage { key, .. } if NOT_FOUND.contains(key) => Exit::Failed,
            Self::Usage { .. } => Exit::Usage,
            Self::Verdict { exit, .. } => *exit,
            Self::Contexts { .. } => Exit::Config,
            Self::Backup(error) => crate::commands::backup::exit(error),
            _ => Exit::Failed,
        }
    }

    /// What to tell the user. A refusal of the cluster names its code, whose page says what to do.
    pub fn tell(&self, lang: Lang) -> String {
        match self {
            Self::Refused(status) => told::refusal(status, lang),
            Self::Client(error) => told::of_client(error, lang),
            Self::Publish(error) => told::of_input(error, lang),
            Self::Agent(error) => told::of_agent(error, lang),
            Self::Definition(error) => error.tell(lang),
            Self::Usage { key, values } => {
                let values: Vec<_> =
                    values.iter().map(|(name, value)| (*name, value.as_str())).collect();
                render(lang, key, &values)
            }
            Self::Verdict { key, .. } => render(lang, key, &[]),
            Self::Backup(error) => crate::commands::backup::tell(error, lang),
            Self::Unreachable { tried } => {
                let each: Vec<_> =
                    tried.iter().map(|e| format!("\n  {}", told::of_client(e, lang))).collect();
                render(lang, "cli.unreachable", &[("each", &each.concat())])
            }
            Self::Contexts { path, line, what } => {
                let line = line.to_string();
                render(lang, "cli.contexts", &[("file", path), ("line", &line), ("what", what)])
            }
            Self::File { path, source } => {
                let key = match source.kind() {
                    ErrorKind::NotFound => "cli.file_none",
                    ErrorKind::AlreadyExists => "cli.file_there",
                    ErrorKind::PermissionDenied => "cli.file_denied",
                    _ => return self.to_string(),
                };
                render(lang, key, &[("file", path)])
            }
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn refused(reason: &str, message: &str, values: &[(&str, &str)]) -> Failure {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let values: std::collections::HashMap<_, _> = values.collect();
        let details = ErrorDetails::with_error_info(reason, "dtm", values);
        tonic::Status::with_error_details(tonic::Code::NotFound, message, details).into()
    }

    #[test]
    fn a_refusal_names_its_code_and_page() {
        let told = refused("unknown-source", "tinh-99", &[]).tell(Lang::Vi);
        assert!(told.contains("nguồn tinh-99 chưa được đăng ký [unknown-source]"), "{told}");
        assert!(told.contains("docs/errors/unknown-source.md"), "{told}");
        assert_eq!(Failure::from(tonic::Status::internal("x")).exit(), Exit::Failed);
    }

    #[test]
    fn a_refusal_is_told_in_one_language_and_once() {
        let message = "data set cà phê is not published: cà phê";
        let values = [("name", "cà phê"), ("detail", "cà phê"), ("message_vi", "…")];
        let told = refused("unknown-dataset", message, &values).tell(Lang::Vi);
        assert_eq!(
            told,
            "bộ dữ liệu cà phê chưa được công bố [unknown-dataset]\n  docs/errors/unknown-dataset.md"
        );
        let values = [("detail", "the last one"), ("detail_vi", "người cuối cùng")];
        let failure = refused("invalid-argument", "no: the last one", &values);
        let (vi, en) = (failure.tell(Lang::Vi), failure.tell(Lang::En));
        assert!(vi.contains("\n  người cuối cùng\n") && !vi.contains("the last"), "{vi}");
        assert!(en.contains("\n  the last one\n") && !en.contains("người"), "{en}");
    }

    #[test]
    fn errors_of_files_and_of_the_way_are_told_in_the_users_language() {
        let lost = dtm_client::Error::Connect { address: "n1:9443".into(), reason: "x".into() };
        let told = Failure::from(lost).tell(Lang::Vi);
        assert_eq!(told, "không kết nối được n1:9443: x");
        let values = std::collections::HashMap::from([
            ("detail".to_owned(), "stream a/b: no".to_owned()),
            ("detail_vi".to_owned(), "luồng a/b: không".to_owned()),
        ]);
        let refused = dtm_client::Error::Rejected {
            address: "n1:9443".into(),
            code: Some(dtm_types::ErrorCode::NotAgreed),
            grpc: tonic::Code::PermissionDenied,
            message: "the agreement of this source does not cover it: stream a/b: no".into(),
            retry_after: None,
            leader: None,
            values: std::sync::Arc::new(values),
        };
        let failure = Failure::Publish(dtm_client::publish::Error::Client(refused));
        let (vi, en) = (failure.tell(Lang::Vi), failure.tell(Lang::En));
        assert!(vi.contains("thỏa thuận") && vi.contains("\n  luồng a/b: không\n"), "{vi}");
        assert!(en.contains("\n  stream a/b: no\n  docs/errors/not-agreed.md"), "{en}");
        let none = std::io::Error::from(ErrorKind::NotFound);
        let told = Failure::file(std::path::Path::new("a/b.key"))(none).tell(Lang::Vi);
        assert!(told.contains("a/b.key") && told.starts_with("không"), "{told}");
        let file = dtm_client::publish::Error::Utf16 { file: "a.csv".into() };
        assert!(Failure::Publish(file).tell(Lang::Vi).starts_with("a.csv"));
    }

    #[test]
    fn a_cut_connection_and_a_broken_contexts_file_are_told_with_what_to_do() {
        let cut = Failure::from(tonic::Status::unknown("transport error"));
        assert!(cut.tell(Lang::Vi).contains("9443"), "{}", cut.tell(Lang::Vi));
        let scratch = tempfile::tempdir().expect("a folder");
        let file = scratch.path().join("contexts.toml");
        std::fs::write(&file, "current = \"a\"\n\nkey = = 1\n").expect("written");
        let broken = crate::contexts::Contexts::load(&file).expect_err("broken");
        let told = broken.tell(Lang::Vi);
        assert!(told.contains("contexts.toml:3: ") && told.contains("dtm context add"), "{told}");
    }

    #[test]
    fn what_is_not_there_is_no_wrong_use() {
        assert_eq!(Failure::usage("cli.unknown_node", &[("name", "n9")]).exit(), Exit::Failed);
        assert_eq!(Failure::usage("cli.no_stream", &[]).exit(), Exit::Failed);
        assert_eq!(Failure::usage("cli.transfer_what", &[]).exit(), Exit::Usage);
    }
}
