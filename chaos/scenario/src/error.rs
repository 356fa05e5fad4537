//! Why a drill is refused: where, which key, and what is allowed.

use dtm_types::text::{Lang, Told};

/// A drill that cannot be run as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {key}: {why}")]
pub struct Error {
    /// From 1.
    pub line: usize,
    /// The key, with that of its table: `step.who`.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub why: Told,
}

impl Error {
    /// In the user's language.
    #[must_use]
    pub fn told(&self, lang: Lang) -> String {
        Told::new("drill.error")
            .with("line", self.line)
            .with("key", &self.key)
            .with("why", self.why.of(lang))
            .of(lang)
    }
}
