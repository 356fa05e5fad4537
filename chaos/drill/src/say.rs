//! Texts for people, in their language.

use std::sync::OnceLock;

use dtm_scenario::Action;
use dtm_types::text::{Lang, render};

static LANG: OnceLock<Lang> = OnceLock::new();

/// Chooses the language, once.
pub(crate) fn speak(lang: Lang) {
    // Said twice: the first holds.
    let _ = LANG.set(lang);
}

/// The language.
pub(crate) fn lang() -> Lang {
    LANG.get().copied().unwrap_or_default()
}

/// A text of the catalogue.
pub(crate) fn text(key: &str, values: &[(&str, &str)]) -> String {
    render(lang(), key, values)
}

/// What a step does.
pub(crate) fn action(action: &Action) -> String {
    let does = text(&format!("drill.do.{}", action.word()), &[]);
    format!("{does} {}", action.details()).trim_end().to_owned()
}
