//! How values are shown.

use dtm_types::civil;

/// A 16-byte id.
pub(super) fn id(bytes: &[u8]) -> String {
    uuid::Uuid::from_slice(bytes).map_or_else(|_| hex::encode(bytes), |id| id.to_string())
}

/// A group, as people call it.
pub(super) fn group_name(group: u32) -> String {
    if group == 0 { "meta".to_owned() } else { group.to_string() }
}

/// Unix microseconds as a time in Vietnam; `-` for none.
pub fn time(time_us: i64) -> String {
    if time_us == 0 {
        return "-".into();
    }
    let local_s = time_us.div_euclid(1_000_000) + 7 * 3_600;
    let (year, month, day) = civil(local_s.div_euclid(86_400));
    let second = local_s.rem_euclid(86_400);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}+07:00", second % 60)
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
