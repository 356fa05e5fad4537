//! Who is calling and what they may do.
//!
//! ```text
//!  TLS client certificate ──parse──▶ Certificate ──▶ Caller ──┐
//!  source key in metadata ──parse──▶ SourceKey ─confirm─▶ Caller ┴─▶ access::decide(caller, operation)
//! ```
//!
//! Pure but for parsing X.509: no clock, files or randomness; rows and times are passed in. The
//! TLS layer has checked the chain before a certificate comes here; this crate reads the name in
//! it and holds it against the rows of the meta group. Nobody owns state here.
//!
//! Invariant (SEC-2): what the table in [`access`] does not allow is denied.

pub mod access;
mod caller;
mod certificate;
mod confirm;
mod identity;
mod public_key;
mod source_key;
mod split;

pub use access::{Decision, Operation, authorize, decide};
pub use caller::{Caller, Credential, Role};
pub use certificate::Certificate;
pub use confirm::{confirm_credential, confirm_node, confirm_operator, confirm_source_key};
pub use identity::{Identity, OPERATOR_NAME_BYTES_MAX, operator_name_is_valid};
pub use public_key::{KeyKind, public_key};
pub use source_key::{KEY_ID_BYTES, SECRET_BYTES, SourceKey};
pub use split::{NotSigned, signed_by};

use dtm_types::ErrorCode;
use dtm_types::text::Told;

/// Why a caller is not who they say, or may not do that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The certificate is not well formed or holds no name of this software.
    #[error("certificate is not usable: {0}")]
    Certificate(&'static str),
    /// The certificate names another cluster.
    #[error("certificate belongs to cluster {found}, this is {expected}")]
    WrongCluster {
        /// In the certificate.
        found: dtm_types::ClusterId,
        /// Ours.
        expected: dtm_types::ClusterId,
    },
    /// A source key that is not well formed, or is not known.
    #[error("source key is not valid")]
    SourceKey,
    /// No row in the meta group stands behind the credential.
    #[error("{0} is not registered")]
    Unknown(String),
    /// Revoked, suspended, or past its time.
    #[error("{0} was revoked or has expired")]
    Revoked(String),
    /// In force from a later moment on, by the clock of this node: which may be behind.
    #[error(
        "{0} is not valid yet by the clock of this node: try another node, or check the clocks (dtm doctor)"
    )]
    NotYet(String),
    /// Known, but this operation is not theirs.
    #[error("{caller} may not {}", operation.name())]
    Denied {
        /// Who.
        caller: String,
        /// What.
        operation: Operation,
    },
}

impl Error {
    /// The code a caller sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Certificate(_) | Self::SourceKey | Self::Unknown(_) => ErrorCode::Unauthenticated,
            Self::WrongCluster { .. } => ErrorCode::WrongCluster,
            Self::Revoked(_) => ErrorCode::CredentialRevoked,
            Self::NotYet(_) => ErrorCode::Unavailable,
            Self::Denied { .. } => ErrorCode::PermissionDenied,
        }
    }

    /// What is told to the caller.
    pub fn told(&self) -> Told {
        match self {
            Self::Certificate(what) => Told::new("identity.certificate").with("what", what),
            Self::WrongCluster { found, expected } => {
                Told::new("identity.wrong_cluster").with("found", found).with("expected", expected)
            }
            Self::SourceKey => Told::new("identity.source_key"),
            Self::Unknown(who) => named(Told::new("identity.unknown"), who),
            Self::Revoked(who) => named(Told::new("identity.revoked"), who),
            Self::NotYet(who) => named(Told::new("identity.not_yet"), who),
            Self::Denied { caller, operation } => {
                let told = Told::new("identity.denied").with("who", caller);
                told.with_told("operation", operation.told())
            }
        }
    }

    /// Only what time alone mends: for the rest a credential or a role has to change first.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::NotYet(_))
    }
}

/// What may stand before a name in the words of an error, and its text.
const KINDS: [(&str, &str); 5] = [
    ("certificate of ", "identity.who.certificate_of"),
    ("certificate ", "identity.who.certificate"),
    ("key ", "identity.who.key"),
    ("node ", "identity.who.node"),
    ("source ", "identity.who.source"),
];

/// Says who it is about, in the reader's language.
fn named(told: Told, who: &str) -> Told {
    if who == Caller::Anonymous.to_string() {
        return Told::new("identity.anonymous");
    }
    let found = KINDS.iter().find_map(|(words, key)| Some((key, who.strip_prefix(words)?)));
    match found {
        Some((key, name)) => told.with_told("who", Told::new(key).with("name", name)),
        None => told.with("who", who),
    }
}

#[cfg(test)]
mod tests {
    use dtm_types::text::Lang;

    use super::*;

    #[test]
    fn who_it_is_about_is_told_in_the_readers_language() {
        let operator = Caller::Operator {
            name: "lan".to_owned(),
            role: Role::Operator,
            certificate_digest: [0; 32],
        };
        let revoked = Error::Revoked(format!("certificate of {operator}"));
        let told = revoked.told();
        assert_eq!(told.of(Lang::En), revoked.to_string());
        assert!(told.of(Lang::Vi).starts_with("chứng thư của operator lan"), "{told:?}");
        let nobody = Error::Unknown(Caller::Anonymous.to_string()).told();
        assert!(!nobody.of(Lang::Vi).contains("caller"), "{nobody:?}");
        for (words, _) in KINDS {
            let error = Error::Revoked(format!("{words}x"));
            assert_eq!(error.told().of(Lang::En), error.to_string());
        }
    }
}
