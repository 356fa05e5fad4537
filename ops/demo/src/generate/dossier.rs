//! Dossiers and their progress.

use dtm_catalog::dossier::{Day, DossierSequence, owner_digits};
use jiff::civil::Date;
use serde_json::{Value, json};

use super::people::agency;
use super::{Dossier, Generator, RECENT_MAX};
use crate::roster::ministry_code;

/// A procedure: an example, not a catalogue.
#[derive(Debug)]
pub(super) struct Procedure {
    pub(super) code: &'static str,
    name: &'static str,
    /// Which ministry owns the centralised system.
    owner: usize,
    fee_code: &'static str,
    fee_vnd: u64,
    days: i64,
}

const fn procedure(
    code: &'static str,
    name: &'static str,
    owner: usize,
    fee_code: &'static str,
    fee_vnd: u64,
    days: i64,
) -> Procedure {
    Procedure { code, name, owner, fee_code, fee_vnd, days }
}

static PROCEDURES: [Procedure; 8] = [
    procedure("1.001193", "Đăng ký khai sinh", 1, "LP.01", 0, 1),
    procedure("1.000894", "Đăng ký kết hôn", 1, "LP.02", 0, 3),
    procedure("2.000815", "Chứng thực bản sao từ bản chính", 1, "LP.03", 2_000, 1),
    procedure("1.004222", "Đăng ký thường trú", 0, "LP.04", 10_000, 7),
    procedure("2.001610", "Đăng ký thành lập doanh nghiệp tư nhân", 2, "LP.05", 50_000, 3),
    procedure("1.009994", "Cấp giấy phép xây dựng nhà ở riêng lẻ", 5, "LP.06", 75_000, 15),
    procedure("1.003709", "Cấp lần đầu giấy phép hành nghề", 4, "PH.07", 430_000, 30),
    procedure("1.003503", "Công nhận ban vận động thành lập hội", 3, "LP.08", 0, 20),
];

impl Generator {
    /// A new dossier: its code and what later records say about it.
    pub(super) fn register(&mut self) -> Dossier {
        let procedure = &PROCEDURES[self.number(0..PROCEDURES.len() as u64) as usize];
        let handler = self.handler();
        let received = self.day();
        let code = self.dossier_code(&handler.0, received, procedure.owner);
        let dossier =
            Dossier { code, procedure, handler, received, state: "newly_registered".to_owned() };
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(dossier.clone());
        dossier
    }

    fn dossier_code(&mut self, agency_code: &str, received: Date, owner: usize) -> String {
        let owner_code = ministry_code(owner);
        let owner =
            owner_digits(&owner_code).expect("identifiers have two digits there").to_owned();
        let day = Day {
            year: received.year().unsigned_abs(),
            month: received.month().unsigned_abs(),
            day: received.day().unsigned_abs(),
        };
        // Agencies of a source (3), days of the year so far, owners (6): bounded.
        let sequence = self.sequences.entry((agency_code.to_owned(), day, owner.clone()));
        let sequence = sequence.or_insert_with(|| {
            DossierSequence::new(agency_code, day, &owner, 0).expect("the parts follow the grammar")
        });
        sequence.next().expect("a day has fewer dossiers than 2^64")
    }

    /// dossier_sync
    pub(super) fn dossier(&mut self) -> Value {
        let dossier = self.register();
        let owner = self.party();
        let authorised = self.chance(15);
        let mut submitter = if authorised { self.party() } else { owner.clone() };
        submitter["is_authorised_person"] = authorised.into();
        let procedure = dossier.procedure;
        let due = self.later(dossier.received, procedure.days);
        let method = self.pick(&["online", "direct", "postal"]);
        let paid = self.chance(80);
        let fees = match procedure.fee_vnd {
            0 => json!([]),
            amount => json!([{ "amount": amount, "fee_code": procedure.fee_code, "paid": paid }]),
        };
        let channel = match procedure.fee_vnd {
            0 => Value::Null,
            _ => json!({ "kenh": self.pick(&["PayGov", "VNPT Pay", "quầy"]) }),
        };
        let supplements = if self.chance(10) {
            let day = dossier.received.to_string();
            json!([{ "content": "Bản sao giấy tờ tùy thân", "requested_at": day }])
        } else {
            json!([])
        };
        json!({
            "dossier_code": dossier.code,
            "dossier_info": { "ghi_chu": "Dữ liệu trình diễn", "so_to": self.number(1..12) },
            "dossier_owner": owner,
            "due_date": due.to_string(),
            "fee_info": fees,
            "payment_channel": channel,
            "procedure_code": procedure.code,
            "procedure_name": procedure.name,
            "processing_unit": agency(&dossier.handler),
            "received_date": dossier.received.to_string(),
            "receiving_unit": agency(&dossier.handler),
            "result_returned_date": null,
            "submission_method": method,
            "submitter": submitter,
            "supplement_info": supplements,
            "valid_result": null,
        })
    }

    /// dossier_progress: the state moves on as the code list says.
    pub(super) fn progress(&mut self) -> Value {
        let at = self.some_dossier();
        let next =
            self.states.entry(&self.recent[at].state).map(|s| s.next.clone()).unwrap_or_default();
        if next.is_empty() {
            // It is finished: another dossier takes its place.
            self.recent[at].state = "newly_registered".to_owned();
        } else {
            self.recent[at].state = self.pick(&next);
        }
        let dossier = self.recent[at].clone();
        let after = self.number(0..10) as i64;
        let day = self.later(dossier.received, after);
        let finished = matches!(dossier.state.as_str(), "processed" | "result_returned");
        let end = if finished { day.to_string().into() } else { Value::Null };
        let content = self.pick(&[
            "Kiểm tra thành phần hồ sơ",
            "Thẩm định hồ sơ",
            "Trình lãnh đạo phê duyệt",
            "Chuyển bộ phận Một cửa",
        ]);
        json!({
            "dossier_code": dossier.code,
            "dossier_state": dossier.state,
            "processed_at": self.date_time(day),
            "processing_content": content,
            "processing_end_date": end,
            "processing_start_date": dossier.received.to_string(),
            "processor": self.officer(),
            "processor_agency": agency(&dossier.handler),
        })
    }
}
