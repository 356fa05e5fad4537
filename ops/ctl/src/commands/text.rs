//! How values are shown.

/// A 16-byte id.
pub(super) fn id(bytes: &[u8]) -> String {
    uuid::Uuid::from_slice(bytes).map_or_else(|_| hex::encode(bytes), |id| id.to_string())
}

/// Unix microseconds as a time in Vietnam; `-` for none.
pub(super) fn time(time_us: i64) -> String {
    if time_us == 0 {
        return "-".into();
    }
    let local_s = time_us.div_euclid(1_000_000) + 7 * 3_600;
    let (year, month, day) = civil(local_s.div_euclid(86_400));
    let second = local_s.rem_euclid(86_400);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}+07:00", second % 60)
}

/// Year, month and day of a day counted from 1970-01-01 (proleptic Gregorian calendar).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Certificates (DER) as PEM.
pub(super) fn pem(chain: &[impl AsRef<[u8]>]) -> String {
    let mut text = String::new();
    for certificate in chain {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = base64(certificate.as_ref());
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_shown_in_vietnam() {
        assert_eq!(super::time(1_795_219_199_000_000), "2026-11-21T06:59:59+07:00");
        assert_eq!(super::time(1_709_164_800_000_000), "2024-02-29T07:00:00+07:00");
        assert_eq!(super::time(0), "-");
    }
}
