//! Records that break their data contract, each by one known rule.

use dtm_catalog::Rule;
use serde_json::{Value, json};

use super::Dataset;

/// How many ways there are to break a record of a data set.
pub(super) fn count(dataset: Dataset) -> usize {
    match dataset {
        Dataset::Dossier => 7,
        Dataset::Progress | Dataset::Payment => 3,
        Dataset::Petition => 2,
    }
}

/// Breaks a valid record in one of the ways; the bytes and the rule.
pub(super) fn make(dataset: Dataset, which: usize, mut value: Value) -> (Vec<u8>, Rule) {
    let rule = match (dataset, which) {
        (Dataset::Dossier, 0) => {
            remove(&mut value, "procedure_name");
            Rule::Missing
        }
        (Dataset::Dossier, 1) => {
            value["dossier_code"] = "T01.101.02-260230-010001".into();
            Rule::DossierDay
        }
        (Dataset::Dossier, 2) => {
            value["due_date"] = "2026-01-24".into();
            Rule::NotBefore
        }
        (Dataset::Dossier, 3) => {
            value["fee_info"] = json!([{ "amount": 5_000, "fee_code": "LP.01", "paid": "có" }]);
            Rule::WrongType
        }
        (Dataset::Dossier, 4) => {
            value["cot_la"] = 1.into();
            Rule::UnknownMember
        }
        (Dataset::Dossier, 5) => {
            value["submission_method"] = "fax".into();
            Rule::CodeList
        }
        (Dataset::Dossier, _) => {
            let mut bytes = value.to_string().into_bytes();
            bytes.truncate(bytes.len() / 2);
            while std::str::from_utf8(&bytes).is_err() {
                bytes.pop();
            }
            return (bytes, Rule::NotJson);
        }
        (Dataset::Progress, 0) => {
            value["dossier_state"] = "dang_cho_y_kien".into();
            Rule::UnknownState
        }
        (Dataset::Progress, 1) => {
            value["processed_at"] = "2026-02-30T08:00:00+07:00".into();
            Rule::DateTime
        }
        (Dataset::Progress, _) => {
            remove(&mut value, "processor");
            Rule::Missing
        }
        (Dataset::Petition, 0) => {
            value["answer_content"] = "Đã trả lời".into();
            value["answer_date"] = Value::Null;
            Rule::RequiredTogether
        }
        (Dataset::Petition, _) => {
            value["subject"] = 7.into();
            Rule::WrongType
        }
        (Dataset::Payment, 0) => {
            value["transaction_code"] = "giao dịch 7".into();
            Rule::Code
        }
        (Dataset::Payment, 1) => {
            value["dossier_code"] = "HS-2026/15".into();
            Rule::DossierCode
        }
        (Dataset::Payment, _) => {
            value["transaction_code"] = Value::Null;
            Rule::NullNotAllowed
        }
    };
    (value.to_string().into_bytes(), rule)
}

fn remove(value: &mut Value, member: &str) {
    let removed = value.as_object_mut().and_then(|members| members.remove(member));
    assert!(removed.is_some(), "a valid record has {member}");
}
