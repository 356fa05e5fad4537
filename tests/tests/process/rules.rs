//! Business rules of a data set: what keeps them is stored, what breaks one is not.

use anyhow::{Context, Result, ensure};
use dtm_types::format::Form;

use crate::agreed::{read_at, send};
use crate::cluster::{Cluster, NODES};

/// One field or rule of each kind.
const PERMITS: &str = r#"id = "permits"
version = 1
owner = "test"
category = "B3"
title = { vi = "Giấy phép", en = "Permits" }
key = ["code"]
priority = "normal"
security = "internal"

[[code_list]]
name = "permit_state"
version = 1

[[code_list.code]]
code = "asked"
label = { vi = "Đã đề nghị", en = "Asked for" }
next = ["granted", "denied"]

[[code_list.code]]
code = "granted"
label = { vi = "Đã cấp", en = "Granted" }
next = ["revoked"]

[[code_list.code]]
code = "denied"
label = { vi = "Từ chối", en = "Denied" }

[[code_list.code]]
code = "revoked"
label = { vi = "Thu hồi", en = "Revoked" }

[[field]]
name = "code"
type = "Code"
label = { vi = "Mã", en = "Code" }
max_length = 64

[[field]]
name = "years"
type = "Integer"
label = { vi = "Số năm", en = "Years" }
min = 1
max = 10

[[field]]
name = "state"
type = "Enum(permit_state)"
label = { vi = "Trạng thái", en = "State" }

[[field]]
name = "state_before"
type = "Enum(permit_state)"
label = { vi = "Trạng thái trước", en = "State before" }
optional = true

[[field]]
name = "from"
type = "Date"
label = { vi = "Từ ngày", en = "From" }
min = "2020-01-01"

[[field]]
name = "until"
type = "Date"
label = { vi = "Đến ngày", en = "Until" }
optional = true

[[field]]
name = "reason"
type = "Text"
label = { vi = "Lý do", en = "Reason" }
optional = true
max_length = 100

[[field]]
name = "signer"
type = "Text"
label = { vi = "Người ký", en = "Signer" }
optional = true
max_length = 100

[[field]]
name = "signed_on"
type = "Date"
label = { vi = "Ngày ký", en = "Signed on" }
optional = true

[[rule]]
kind = "not_before"
field = "until"
earlier = "from"

[[rule]]
kind = "required_when"
field = "reason"
when = "state"
values = ["denied", "revoked"]

[[rule]]
kind = "required_together"
fields = ["signer", "signed_on"]

[[rule]]
kind = "state_change"
field = "state"
from = "state_before"
"#;

/// Kind of rule, a sample that keeps it, one that breaks it, and what is said then.
const CASES: [(&str, &str, &str, &str, &str); 10] = [
    ("range", r#""years":10"#, r#""years":11"#, "range", "/years"),
    ("range", r#""years":1"#, r#""years":0"#, "range", "/years"),
    ("code list", r#""state":"asked""#, r#""state":"lent""#, "code_list", "/state"),
    ("dates: a real day", r#""from":"2024-02-29""#, r#""from":"2026-02-29""#, "date", "/from"),
    ("dates: a range", r#""from":"2020-01-01""#, r#""from":"2019-12-31""#, "range", "/from"),
    ("dates: order", r#""until":"2026-01-01""#, r#""until":"2025-12-31""#, "not_before", "/until"),
    (
        "cross-field: compulsory when",
        r#""reason":"late","state":"denied""#,
        r#""state":"denied""#,
        "required_when",
        "/reason",
    ),
    (
        "cross-field: together",
        r#""signed_on":"2026-01-01","signer":"A""#,
        r#""signer":"A""#,
        "required_together",
        "/signed_on",
    ),
    (
        "sequence of states",
        r#""state":"granted","state_before":"asked""#,
        r#""state":"granted","state_before":"denied""#,
        "state_change",
        "/state",
    ),
    (
        "sequence of states: back",
        r#""reason":"fraud","state":"revoked","state_before":"granted""#,
        r#""reason":"fraud","state":"revoked","state_before":"asked""#,
        "state_change",
        "/state",
    ),
];

/// A record that keeps every rule, with these members instead of its own.
fn permit(code: &str, members: &str) -> String {
    let own = format!(r#"{{"code":"{code}","from":"2026-01-01","state":"asked","years":5}}"#);
    let mut record: serde_json::Value = serde_json::from_str(&own).expect("JSON");
    let changed: serde_json::Value = serde_json::from_str(&format!("{{{members}}}")).expect("JSON");
    for (name, value) in changed.as_object().expect("an object") {
        record[name] = value.clone();
    }
    record.to_string()
}

// covers: A1-3.4.4
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_rule_keeps_what_breaks_it_out_of_the_store() -> Result<()> {
    let cluster = Cluster::beside().await?;
    cluster.publish_dataset(PERMITS).await?;
    let source = cluster.add_source("src-1", &["permits"]).await?;
    let (mut sent, mut good) = (Vec::new(), Vec::new());
    for (n, (_, keeps, breaks, _, _)) in CASES.iter().enumerate() {
        good.push(permit(&format!("GOOD-{n}"), keeps));
        sent.extend([permit(&format!("GOOD-{n}"), keeps), permit(&format!("BAD-{n}"), breaks)]);
    }
    let refused = send(&cluster, &source, "permits", Form::Raw, &sent).await?;
    ensure!(refused.len() == CASES.len(), "{} refused", refused.len());
    for (n, ((kind, _, _, rule, pointer), told)) in CASES.iter().zip(&refused).enumerate() {
        ensure!(told.sequence == 2 * n as u64 + 2, "{kind}: {told:?}");
        let said = told.violations.first().with_context(|| format!("{kind}: a violation"))?;
        ensure!(told.violations.len() == 1, "{kind}: {told:?}");
        ensure!(said.rule == *rule && said.pointer == *pointer, "{kind}: {told:?}");
    }
    for at in 0..NODES {
        let stored = read_at(&cluster, &source, at).await?;
        let stored: Vec<_> =
            stored.iter().map(|r| String::from_utf8_lossy(&r.payload).into_owned()).collect();
        ensure!(stored == good, "n{}: {stored:?}", at + 1);
    }
    cluster.passed();
    Ok(())
}
