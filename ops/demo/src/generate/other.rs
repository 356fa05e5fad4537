//! Petitions and payments.

use serde_json::{Value, json};

use super::Generator;
use super::people::agency;

const SUBJECTS: [&str; 5] = [
    "Chậm trả kết quả so với giấy hẹn",
    "Yêu cầu giấy tờ ngoài thành phần hồ sơ",
    "Thanh toán trực tuyến báo lỗi",
    "Không đăng nhập được để nộp hồ sơ",
    "Hướng dẫn tại bộ phận Một cửa chưa rõ",
];

impl Generator {
    /// petition_sync: half of them are answered.
    pub(super) fn petition(&mut self) -> Value {
        let at = self.some_dossier();
        let dossier = self.recent[at].clone();
        let about = self.chance(70);
        let answered = self.chance(50);
        let number = self.made + 1;
        let wait = self.number(1..10) as i64;
        let answer_day = self.later(dossier.received, wait).to_string();
        let officer = self.officer();
        let given = |value: Value| if answered { value } else { Value::Null };
        json!({
            "answer_content": given("Đã chuyển đơn vị chuyên môn xử lý.".into()),
            "answer_date": given(answer_day.into()),
            "answering_officer": given(officer),
            "details": { "nguoi_gui": self.name(), "noi_dung": "Nội dung trình diễn" },
            "petition_code": format!("PAKN-{}-{number:08}", self.plan.agency_code),
            "procedure_code": if about { dossier.procedure.code.into() } else { Value::Null },
            "receiving_agency": agency(&dossier.handler),
            "subject": self.pick(&SUBJECTS),
        })
    }

    /// payment
    pub(super) fn payment(&mut self) -> Value {
        let at = self.some_dossier();
        let dossier = self.recent[at].clone();
        let number = self.made + 1;
        let account = format!("{:010}", self.number(0..10_000_000_000));
        json!({
            "dossier_code": dossier.code,
            "procedure_code": dossier.procedure.code,
            "revenue_item_identification": { "ma_khoan_thu": "2801", "tai_khoan": account },
            "transaction_code": format!("GD.{}.{number:08}", self.plan.agency_code),
        })
    }
}
