//! Labels of metrics whose number is bounded.

use std::collections::HashSet;
use std::sync::LazyLock;

use dtm_types::SourceId;
use parking_lot::Mutex;

/// Sources with a series of their own on one node; further ones share `other`.
const SOURCES_MAX: usize = 1_000;
const OTHER: &str = "other";

/// As the metrics recorder, one a process.
static SOURCES: LazyLock<Mutex<HashSet<SourceId>>> = LazyLock::new(Mutex::default);

/// The label of a source.
pub(crate) fn source(source: &SourceId) -> String {
    let mut known = SOURCES.lock();
    let has_own =
        known.contains(source) || (known.len() < SOURCES_MAX && known.insert(source.clone()));
    if has_own { source.as_str().to_owned() } else { OTHER.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_labels_is_bounded() {
        let labels: HashSet<String> = (0..SOURCES_MAX + 50)
            .map(|n| source(&SourceId::parse(&format!("s-{n}")).expect("a source's code")))
            .collect();
        assert!(labels.len() <= SOURCES_MAX + 1 && labels.contains(OTHER));
    }
}
