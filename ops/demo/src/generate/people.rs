//! People and agencies, made up.

use serde_json::{Value, json};

use super::Generator;

const FAMILY: [&str; 12] =
    ["Nguyễn", "Trần", "Lê", "Phạm", "Hoàng", "Phan", "Vũ", "Đặng", "Bùi", "Đỗ", "Ngô", "Lò"];
const MIDDLE: [&str; 8] = ["Văn", "Thị", "Hữu", "Đức", "Minh", "Ngọc", "Thanh", "Quốc"];
const GIVEN: [&str; 14] = [
    "An", "Bình", "Chi", "Dũng", "Giang", "Hà", "Hương", "Khánh", "Lan", "Nam", "Phúc", "Quỳnh",
    "Sơn", "Tú",
];
const STREETS: [&str; 6] = [
    "đường Lê Lợi",
    "đường Trần Phú",
    "phố Hàng Bạc",
    "thôn Đông",
    "tổ dân phố số 5",
    "bản Nà Lốc",
];
const POSITIONS: [&str; 3] = ["Chuyên viên", "Chuyên viên chính", "Cán bộ một cửa"];

impl Generator {
    pub(super) fn name(&mut self) -> String {
        format!("{} {} {}", self.pick(&FAMILY), self.pick(&MIDDLE), self.pick(&GIVEN))
    }

    /// A Party: a citizen, now and then an enterprise.
    pub(super) fn party(&mut self) -> Value {
        let (commune, _) = self.pick(&self.plan.communes.clone());
        let number = self.number(1..400);
        let line = format!("Số {number}, {}", self.pick(&STREETS));
        let address = json!({
            "commune_code": commune, "country_code": "VN", "line": line,
            "province_code": self.plan.province,
        });
        if self.chance(12) {
            let name = format!("Công ty TNHH {} {}", self.pick(&GIVEN), self.pick(&GIVEN));
            let tax_code = format!("01{:08}", self.number(0..100_000_000));
            return json!({
                "address": address, "full_name": name, "id_number": tax_code,
                "party_kind": "enterprise",
            });
        }
        // Twelve digits that begin with 000: no number of a real person does.
        let id_number = format!("000{:09}", self.number(0..1_000_000_000));
        let phone = format!("0900{:06}", self.number(0..1_000_000));
        json!({
            "address": address, "contact": { "phone": phone }, "full_name": self.name(),
            "id_number": id_number, "party_kind": "citizen",
        })
    }

    /// An OfficerRef.
    pub(super) fn officer(&mut self) -> Value {
        let code = format!("CB{:05}", self.number(1..100_000));
        json!({
            "full_name": self.name(), "officer_code": code, "position": self.pick(&POSITIONS),
        })
    }

    /// One of the agencies that handle dossiers: identifier and name.
    pub(super) fn handler(&mut self) -> (String, String) {
        let handlers = self.plan.clone();
        self.pick(&handlers.handlers)
    }

    pub(super) fn number(&mut self, range: std::ops::Range<u64>) -> u64 {
        rand::Rng::random_range(&mut self.rng, range)
    }
}

/// An AgencyRef.
pub(super) fn agency((code, name): &(String, String)) -> Value {
    json!({ "agency_code": code, "agency_name": name })
}
