//! Who sends in the demo: the procedure systems of the 34 provincial units and of some ministries.
//!
//! Identifiers have the form of the circular and are made up (data/NOTICE.md).

use jiff::civil::Date;

use crate::units;

/// A sending system.
#[derive(Clone, Debug)]
pub(crate) struct SourcePlan {
    /// Code of the source.
    pub(crate) code: String,
    /// Whose system it is, Vietnamese.
    pub(crate) title_vi: String,
    /// Whose system it is, English.
    pub(crate) title_en: String,
    /// Electronic identifier of that agency.
    pub(crate) agency_code: String,
    /// Class of the system.
    pub(crate) class: &'static str,
    /// Code of the provincial unit; empty for a ministry.
    pub(crate) locality: &'static str,
    /// Agencies that handle dossiers: identifier and name.
    pub(crate) handlers: Vec<(String, String)>,
    /// Where its people live: code and name of communes.
    pub(crate) communes: Vec<(&'static str, &'static str)>,
    /// Provincial unit of those communes.
    pub(crate) province: &'static str,
    /// Share of the traffic.
    pub(crate) weight: u32,
}

/// Ministries of the demo: code, name, English name.
const MINISTRIES: [(&str, &str, &str); 6] = [
    ("bo-cong-an", "Bộ Công an", "Ministry of Public Security"),
    ("bo-tu-phap", "Bộ Tư pháp", "Ministry of Justice"),
    ("bo-tai-chinh", "Bộ Tài chính", "Ministry of Finance"),
    ("bo-noi-vu", "Bộ Nội vụ", "Ministry of Home Affairs"),
    ("bo-y-te", "Bộ Y tế", "Ministry of Health"),
    ("bo-xay-dung", "Bộ Xây dựng", "Ministry of Construction"),
];

/// Systems that serve electronic transactions, one of the four classes of the register.
const CLASS: &str = "electronic_transactions";
/// Communes stand for how much a province sends; a ministry sends as much as a middling one.
const MINISTRY_WEIGHT: u32 = 90;

/// Identifier of the ministry at `index` of the list.
pub(crate) fn ministry_code(index: usize) -> String {
    format!("X{:02}.000.00", index + 1)
}

/// Every source, ministries first; titles as of this day.
pub(crate) fn all(day: Date) -> Vec<SourcePlan> {
    let units = units::all();
    let capital = units.first().expect("the table begins with Hà Nội").clone();
    let ministries = MINISTRIES.iter().enumerate().map(|(index, (code, vi, en))| {
        let handler = |department: u32, name: &str| {
            (format!("X{:02}.{department:03}.00", index + 1), format!("{name}, {vi}"))
        };
        SourcePlan {
            code: (*code).to_owned(),
            title_vi: (*vi).to_owned(),
            title_en: (*en).to_owned(),
            agency_code: ministry_code(index),
            class: CLASS,
            locality: "",
            handlers: vec![handler(101, "Cục thứ nhất"), handler(102, "Bộ phận Một cửa")],
            communes: capital.communes.clone(),
            province: capital.code,
            weight: MINISTRY_WEIGHT,
        }
    });
    let provinces = units.iter().map(|unit| {
        let handler = |group: &str, name: &str| {
            (format!("T{}.{group}", unit.code), format!("{name} {}", unit.name))
        };
        SourcePlan {
            code: unit.slug.to_owned(),
            title_vi: unit.title_vi(day),
            title_en: unit.title_en(day),
            agency_code: format!("T{}.000.00", unit.code),
            class: CLASS,
            locality: unit.code,
            handlers: vec![
                handler("101.02", "Sở Tư pháp"),
                handler("105.01", "Sở Xây dựng"),
                handler("201.00", "Trung tâm Phục vụ hành chính công"),
            ],
            communes: unit.communes.clone(),
            province: unit.code,
            weight: unit.communes_count,
        }
    });
    ministries.chain(provinces).collect()
}

#[cfg(test)]
mod tests {
    use dtm_types::SourceId;
    use jiff::civil::date;

    use super::*;

    #[test]
    fn every_province_and_some_ministries_send() {
        let plans = all(date(2026, 11, 21));
        assert_eq!(plans.len(), 34 + MINISTRIES.len());
        let codes: std::collections::BTreeSet<_> = plans.iter().map(|p| &p.code).collect();
        assert_eq!(codes.len(), plans.len());
        assert!(plans.iter().all(|p| SourceId::parse(&p.code).is_some() && p.weight > 0));
        assert!(plans.iter().any(|p| p.title_vi == "Thành phố Đồng Nai"));
    }
}
