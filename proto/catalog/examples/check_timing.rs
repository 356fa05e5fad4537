//! Prints how long one record of 1 KiB takes to check: canonical, and in the order a sender
//! happened to write. `cargo run --release -p dtm-catalog --example check_timing`

use std::hint::black_box;
use std::time::Instant;

use dtm_catalog::{Accepted, CompiledSchema, Definition, Outcome, Scratch};

/// Short rounds, so that some of them run without being interrupted; the best one counts.
const RECORDS_A_ROUND: u32 = 1_000;
const ROUNDS: u32 = 1_000;

fn canonical(text: &str) -> String {
    format!(
        concat!(
            r#"{{"dossier_code":"H57.101.02-260125-220001","dossier_state":"in_processing","#,
            r#""processed_at":"2026-01-25T08:30:05+07:00","processing_content":"{}","#,
            r#""processing_end_date":null,"processing_start_date":"2026-01-25","#,
            r#""processor":{{"full_name":"Đặng Thị Hường","officer_code":"CB0012","#,
            r#""position":"Chuyên viên"}},"processor_agency":{{"agency_code":"H57.101.02","#,
            r#""agency_name":"Sở Khoa học và Công nghệ"}}}}"#
        ),
        text
    )
}

fn shuffled(text: &str) -> String {
    format!(
        concat!(
            r#"{{"processor_agency": {{"agency_name": "Sở Khoa học và Công nghệ", "#,
            r#""agency_code": "H57.101.02"}}, "dossier_code": "H57.101.02-260125-220001", "#,
            r#""processor": {{"full_name": "Đặng Thị Hường", "officer_code": "CB0012", "#,
            r#""position": "Chuyên viên"}}, "processed_at": "2026-01-25T01:30:05Z", "#,
            r#""processing_content": "{}", "dossier_state": "in_processing", "#,
            r#""processing_start_date": "2026-01-25", "processing_end_date": null}}"#
        ),
        text
    )
}

#[expect(clippy::disallowed_methods, reason = "only measures")]
fn measure(schema: &CompiledSchema, name: &str, payload: &[u8]) {
    let mut scratch = Scratch::default();
    let same = match schema.check(payload, &mut scratch) {
        Outcome::Accepted { form, .. } => form == Accepted::Same,
        Outcome::Refused(refusal) => panic!("{refusal:?}"),
    };
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..RECORDS_A_ROUND {
            black_box(schema.check(black_box(payload), &mut scratch));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(RECORDS_A_ROUND));
    }
    println!("{name}: {} bytes, same bytes: {same}, {best:.0} ns a record", payload.len());
}

fn main() {
    let definition = Definition::built_in("dossier_progress").expect("built in");
    let schema = CompiledSchema::compile(&definition).expect("built in");
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let noise: String = (0..560)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(alphabet[(state >> 58) as usize])
        })
        .collect();
    measure(&schema, "canonical, base64 text", canonical(&noise).as_bytes());
    let sentence = "Đã thẩm định hồ sơ, chuyển lãnh đạo phê duyệt. ";
    let vietnamese: String = sentence.chars().cycle().take(430).collect();
    measure(&schema, "canonical, Vietnamese text", canonical(&vietnamese).as_bytes());
    measure(&schema, "sender's order, base64 text", shuffled(&noise).as_bytes());
}
