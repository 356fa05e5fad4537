//! What the TOML reader says about a definition, as texts of the catalogue: its sentences are taken
//! apart, so that both languages say the same in words of the page.

use dtm_types::text::Told;

/// Starts of the reader's words for what it expected or found, and their texts.
const WORDS: [(&str, &str); 11] = [
    ("u32", "definition.kind.whole"),
    ("u8", "definition.kind.small"),
    ("a sequence", "definition.kind.list"),
    ("sequence", "definition.kind.list"),
    ("a string", "definition.kind.text"),
    ("a boolean", "definition.kind.bool"),
    ("map", "definition.kind.table"),
    ("a mask", "definition.kind.mask"),
    ("both languages", "definition.kind.label"),
    ("wanted exactly 1 element", "definition.kind.mask"),
    ("wanted string or table", "definition.kind.mask"),
];

/// The reader's sentence as a text.
pub(super) fn of_reader(message: &str) -> Told {
    // The words of `Bound` for a value that is neither of its kinds.
    if message.starts_with("expected a whole number, or a decimal") {
        return Told::new("definition.bound_value");
    }
    let parts = |start: &str| message.strip_prefix(start)?.split_once(", expected ");
    let choices = [
        ("unknown field ", "definition.unknown_key"),
        ("unknown variant ", "definition.unknown_value"),
    ];
    for (start, key) in choices {
        if let Some((found, known)) = parts(start) {
            let known = known.strip_prefix("one of ").unwrap_or(known).replace("` or `", "`, `");
            return Told::new(key).with("found", found).with("known", known);
        }
    }
    for start in ["invalid type: ", "invalid value: "] {
        if let Some((found, expected)) = parts(start) {
            let told = with_word(Told::new("definition.wrong_value"), "found", found);
            return with_word(told, "expected", expected);
        }
    }
    match word(message) {
        Some(what) => Told::new("definition.expected").with_told("expected", what),
        None => Told::new("definition.syntax").with("what", message),
    }
}

fn word(theirs: &str) -> Option<Told> {
    let known = WORDS.iter().find(|(start, _)| theirs.starts_with(start));
    known.map(|(_, key)| Told::new(key))
}

/// A value is shown as it stands in the file, without the name of its kind.
fn with_word(told: Told, name: &'static str, theirs: &str) -> Told {
    for kind in ["string ", "integer ", "boolean ", "floating point "] {
        if let Some(value) = theirs.strip_prefix(kind) {
            return told.with(name, value);
        }
    }
    match word(theirs) {
        Some(known) => told.with_told(name, known),
        None => told.with(name, theirs),
    }
}
