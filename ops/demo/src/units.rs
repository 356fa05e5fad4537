//! The provincial units (data/units.tsv) with the days on which their kinds hold.

use jiff::civil::Date;

const TABLE: &str = include_str!("../data/units.tsv");

/// A provincial unit.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// Two digits.
    pub(crate) code: &'static str,
    /// Name without diacritics: the code of its source.
    pub(crate) slug: &'static str,
    /// Name.
    pub(crate) name: &'static str,
    /// Kinds, oldest first.
    pub(crate) kinds: Vec<DatedKind>,
    /// Number of communes: how much it sends.
    pub(crate) communes_count: u32,
    /// Code and name of some communes.
    pub(crate) communes: Vec<(&'static str, &'static str)>,
}

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Tỉnh.
    Province,
    /// Thành phố trực thuộc trung ương.
    City,
}

/// What a unit is between two days, both included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatedKind {
    kind: Kind,
    from: Date,
    to: Option<Date>,
}

impl Unit {
    /// Its kind on a day; none before the list begins.
    pub(crate) fn kind_on(&self, day: Date) -> Option<Kind> {
        let holds = |k: &&DatedKind| k.from <= day && k.to.is_none_or(|to| day <= to);
        self.kinds.iter().find(holds).map(|k| k.kind)
    }

    /// Kind and name, Vietnamese.
    pub(crate) fn title_vi(&self, day: Date) -> String {
        match self.kind_on(day) {
            Some(Kind::City) => format!("Thành phố {}", self.name),
            _ => format!("Tỉnh {}", self.name),
        }
    }

    /// Name and kind, English.
    pub(crate) fn title_en(&self, day: Date) -> String {
        match self.kind_on(day) {
            Some(Kind::City) => format!("{} City", self.name),
            _ => format!("{} Province", self.name),
        }
    }
}

/// All units, by code.
pub(crate) fn all() -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::with_capacity(34);
    for line in TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (unit, kind) = parse(line).expect("a test reads every line of the table");
        match units.last_mut() {
            Some(last) if last.code == unit.code => last.kinds.push(kind),
            _ => units.push(Unit { kinds: vec![kind], ..unit }),
        }
    }
    units
}

fn parse(line: &'static str) -> Option<(Unit, DatedKind)> {
    let mut cells = line.split('\t');
    let mut cell = || cells.next();
    let (code, slug, name) = (cell()?, cell()?, cell()?);
    let kind = match cell()? {
        "tinh" => Kind::Province,
        "thanh-pho" => Kind::City,
        _ => return None,
    };
    let from = cell()?.parse().ok()?;
    let to = match cell()? {
        "" => None,
        day => Some(day.parse().ok()?),
    };
    let _resolution = cell()?;
    let communes_count = cell()?.parse().ok()?;
    let communes = cell()?.split(';').map(|c| c.split_once('=')).collect::<Option<Vec<_>>>()?;
    let unit = Unit { code, slug, name, kinds: Vec::new(), communes_count, communes };
    Some((unit, DatedKind { kind, from, to }))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn unit_kinds_are_dated() {
        let units = all();
        let cities = |day| units.iter().filter(|u| u.kind_on(day) == Some(Kind::City)).count();
        assert_eq!(units.len(), 34);
        assert_eq!(cities(date(2025, 7, 1)), 6);
        assert_eq!(cities(date(2026, 1, 25)), 6);
        assert_eq!(cities(date(2026, 11, 21)), 9);
        assert_eq!(units.iter().map(|u| u.communes_count).sum::<u32>(), 3_321);
        let unit = units.iter().find(|u| u.slug == "bac-ninh").expect("in the list");
        assert_eq!(unit.kind_on(date(2025, 6, 30)), None);
        assert_eq!(unit.title_vi(date(2026, 8, 23)), "Tỉnh Bắc Ninh");
        assert_eq!(unit.title_vi(date(2026, 8, 24)), "Thành phố Bắc Ninh");
        assert!(units.iter().all(|u| u.communes.len() == 4 && u.slug.is_ascii()));
    }
}
