//! The data sets that come with the software.

use super::Definition;

/// Ids of the built-in data sets.
pub const BUILT_IN_IDS: &[&str] = &["dossier_sync", "dossier_progress", "petition_sync", "payment"];

const TEXTS: &[&str] = &[
    include_str!("../../definitions/dossier_sync.toml"),
    include_str!("../../definitions/dossier_progress.toml"),
    include_str!("../../definitions/petition_sync.toml"),
    include_str!("../../definitions/payment.toml"),
];

/// The definition file of a built-in data set, as it is published when a cluster is founded.
pub fn built_in_text(id: &str) -> Option<&'static str> {
    let at = BUILT_IN_IDS.iter().position(|known| *known == id)?;
    Some(TEXTS[at])
}

pub(super) fn definition(id: &str) -> Option<Definition> {
    let at = BUILT_IN_IDS.iter().position(|known| *known == id)?;
    let definition = Definition::parse(TEXTS[at], &format!("{id}.toml"));
    Some(definition.expect("built-in definitions are parsed by a test"))
}
