//! The drill book: the drills that come with the product.

/// A drill of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookEntry {
    /// Its name, as in the file.
    pub name: &'static str,
    /// The file's text, for [`crate::Drill::parse`].
    pub text: &'static str,
}

macro_rules! book {
    ($($name:literal),* $(,)?) => {
        /// The drills that come with the product, in the order in which they are run. Each runs on
        /// a cluster that `dtm-drill` starts itself: of one site, or of the sites that it names.
        pub const BOOK: &[BookEntry] = &[$(BookEntry {
            name: $name,
            text: include_str!(concat!("../../drills/", $name, ".toml")),
        }),*];
    };
}

book![
    "leader-kill",
    "power-loss",
    "power-cut",
    "pause",
    "partition",
    "node-loss",
    "rolling-restart",
    "slow-disk",
    "clock-jump",
    "key-rotation",
    "certificate-rotation",
    "restore-from-backup",
    "site-cut",
    "site-isolated",
    "site-loss",
    "site-return",
    "site-failback",
    "stretched-loss",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Drill;

    #[test]
    fn every_drill_of_the_book_is_read_and_names_itself() {
        for entry in BOOK {
            let drill = Drill::parse(entry.text).unwrap_or_else(|e| panic!("{}: {e}", entry.name));
            assert_eq!(drill.name, entry.name);
            // A copy that is not waited for may lack the last moments, a backup what came after it,
            // and nothing before.
            let may_lose_ms = match entry.name {
                "site-loss" | "site-return" => Some(5_000),
                "restore-from-backup" => Some(60_000),
                _ => None,
            };
            let is_behind = may_lose_ms.is_some() && drill.targets.rpo_ms == may_lose_ms;
            assert!(is_behind || drill.targets.rpo_records == Some(0), "{}", entry.name);
            assert!(drill.targets.rto_ms.is_some(), "{}", entry.name);
        }
    }

    #[test]
    fn steps_and_targets_are_told_for_people() {
        let text = include_str!("../drills/site-failback.toml");
        let drill = Drill::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let steps = drill.steps_told(dtm_types::text::Lang::En);
        assert_eq!(steps[0][3], "site:a <-> site:b");
        assert_eq!(steps[3][4], "10.000 s");
        let targets = drill.targets_told(dtm_types::text::Lang::En);
        assert_eq!(targets[1][2], "120.000 s");
        assert_eq!(targets[1][0], "rto");
    }
}
