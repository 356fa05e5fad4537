//! Which characters a canonical text may hold, and the normal form of the rest.
//!
//! Canonical text is NFC, has LF line ends, and holds no control character but TAB and LF, no
//! noncharacter and no lone surrogate.

// Hot path: `plain_run` and `is_canonical` see every byte of every record.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Why a character is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A control character other than TAB, LF and CR.
    Control,
    /// A code point that Unicode reserves for internal use.
    Noncharacter,
    /// Half of a surrogate pair.
    Surrogate,
}

/// Length of the longest prefix without quote, backslash and ASCII control byte, and whether that
/// prefix may hold bytes outside ASCII (never false when it does).
pub(crate) fn plain_run(b: &[u8]) -> (usize, bool) {
    const WIDTH: usize = 32;
    const WORD: usize = 8;
    let (mut at, mut high) = (0, 0u8);
    while let Some(chunk) = b.get(at..at + WIDTH) {
        // Without a branch inside, so that the compiler turns it into vector instructions.
        if chunk.iter().fold(false, |any, &c| any | is_special(c)) {
            break;
        }
        high |= chunk.iter().fold(0, |all, &c| all | c);
        at += WIDTH;
    }
    while let Some(word) = b.get(at..at + WORD) {
        let word = u64::from_le_bytes(word.try_into().expect("the slice has 8 bytes"));
        let special = special_bytes(word);
        high |= if word & HIGH != 0 { 0x80 } else { 0 };
        if special != 0 {
            return (at + special.trailing_zeros() as usize / 8, high >= 0x80);
        }
        at += WORD;
    }
    let rest = b[at..].iter().position(|&c| is_special(c)).unwrap_or(b.len() - at);
    high |= b[at..at + rest].iter().fold(0, |all, &c| all | c);
    (at + rest, high >= 0x80)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each special byte; only the lowest one set is exact, which is the one needed.
fn special_bytes(word: u64) -> u64 {
    let zero = |v: u64| v.wrapping_sub(ONES) & !v;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let found = below_space
        | zero(word ^ (ONES * u64::from(b'"')))
        | zero(word ^ (ONES * u64::from(b'\\')))
        | zero(word ^ (ONES * 0x7f));
    found & HIGH
}

fn is_special(c: u8) -> bool {
    (c < 0x20) | (c == b'"') | (c == b'\\') | (c == 0x7f)
}

/// The fault of a character, if it has one; CR counts as none because it becomes LF.
pub(crate) fn fault(c: char) -> Option<Fault> {
    let n = u32::from(c);
    match n {
        0x09 | 0x0a | 0x0d => None,
        0..=0x1f | 0x7f..=0x9f => Some(Fault::Control),
        0xfdd0..=0xfdef => Some(Fault::Noncharacter),
        _ if n & 0xfffe == 0xfffe => Some(Fault::Noncharacter),
        _ => None,
    }
}

/// Characters that are in normal form C next to anything: no lookup is needed for Vietnamese.
fn is_stable(c: char) -> bool {
    matches!(u32::from(c), 0x20..=0x7e | 0xa0..=0x2ff | 0x1e00..=0x1eff | 0x2010..=0x2027)
}

/// True when every character is stable, told from the bytes alone: ASCII without controls,
/// U+00C0 to U+02FF, U+1E00 to U+1EFF. False says nothing.
fn is_plainly_stable(b: &[u8]) -> bool {
    let Some(&last) = b.last() else { return true };
    // Without a branch inside, so that the compiler turns it into vector instructions.
    let odd = b.iter().zip(&b[1..]).fold(false, |odd, (&c, &next)| {
        let ascii = (0x20..0x7f).contains(&c);
        let continuation = c & 0xc0 == 0x80;
        let two = (0xc3..=0xcb).contains(&c);
        let three = (c == 0xe1) & (0xb8..=0xbb).contains(&next);
        odd | !(ascii | continuation | two | three)
    });
    !odd & ((last >= 0x20) & (last != 0x7f))
}

/// True when the text is in NFC and holds only allowed characters (CR is not canonical).
pub(crate) fn is_canonical(s: &str) -> bool {
    if is_plainly_stable(s.as_bytes()) || s.chars().all(is_stable) {
        return true;
    }
    let allowed = s.chars().all(|c| c != '\r' && fault(c).is_none());
    allowed && is_nfc(s)
}

/// Brings a text to normal form: NFC, LF line ends. Faulty characters are the caller's business.
pub(crate) fn normalise(s: Cow<'_, str>) -> Cow<'_, str> {
    let s =
        if s.contains('\r') { Cow::Owned(s.replace("\r\n", "\n").replace('\r', "\n")) } else { s };
    if is_plainly_stable(s.as_bytes()) || is_nfc(&s) { s } else { Cow::Owned(s.nfc().collect()) }
}

/// Appends a JSON string with the escapes of RFC 8785 and no others.
pub(crate) fn write_json_string(out: &mut Vec<u8>, s: &str) {
    out.push(b'"');
    let b = s.as_bytes();
    let mut at = 0;
    while at < b.len() {
        let (run, _) = plain_run(&b[at..]);
        out.extend_from_slice(&b[at..at + run]);
        at += run;
        if let Some(&c) = b.get(at) {
            write_special(out, c);
            at += 1;
        }
    }
    out.push(b'"');
}

fn write_special(out: &mut Vec<u8>, c: u8) {
    match c {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\t' => out.extend_from_slice(b"\\t"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        0..=0x1f => out.extend_from_slice(format!("\\u{c:04x}").as_bytes()),
        _ => out.push(c),
    }
}

/// The first `chars_max` characters of bytes that may be anything, marked when cut.
pub(crate) fn excerpt(b: &[u8], chars_max: usize) -> String {
    // A character has at most 4 bytes: nothing beyond this prefix can be shown.
    let prefix = &b[..b.len().min(chars_max * 4 + 4)];
    let text = String::from_utf8_lossy(prefix);
    let mut shown: String = text.chars().take(chars_max).collect();
    if shown.len() < text.len() || prefix.len() < b.len() {
        shown.pop();
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unicode_normalization::{IsNormalized, is_nfc_quick};

    #[test]
    fn stable_characters_are_stable_in_the_unicode_tables() {
        for c in (0..0x11_0000).filter_map(char::from_u32).filter(|&c| is_stable(c)) {
            assert_eq!(is_nfc_quick(std::iter::once(c)), IsNormalized::Yes, "{:x}", c as u32);
            assert_eq!(unicode_normalization::char::canonical_combining_class(c), 0);
            assert_eq!(fault(c), None, "{:x}", c as u32);
        }
    }

    #[test]
    fn the_byte_test_admits_stable_characters_only() {
        let mut admitted = 0;
        for c in (0..0x11_0000).filter_map(char::from_u32) {
            // Alone, before and after another character.
            for text in [format!("{c}"), format!("a{c}"), format!("{c}ạ")] {
                if is_plainly_stable(text.as_bytes()) {
                    assert!(is_stable(c), "{:x}", c as u32);
                    admitted += 1;
                }
            }
        }
        assert_eq!(admitted, 3 * (95 + 0x240 + 0x100));
        assert!(is_plainly_stable(b""));
    }

    #[test]
    fn vietnamese_in_either_form_becomes_one() {
        let composed = "Tiếp nhận hồ sơ: Đặng Thị Hường";
        let decomposed: String = composed.nfd().collect();
        assert!(is_canonical(composed) && !is_canonical(&decomposed));
        assert_eq!(normalise(Cow::Owned(decomposed)), composed);
        assert_eq!(normalise(Cow::Borrowed("a\r\nb\rc\n")), "a\nb\nc\n");
    }

    #[test]
    fn faults_are_told_apart() {
        assert_eq!(fault('\u{7f}'), Some(Fault::Control));
        assert_eq!(fault('\u{85}'), Some(Fault::Control));
        assert_eq!(fault('\u{fdd0}'), Some(Fault::Noncharacter));
        assert_eq!(fault('\u{1ffff}'), Some(Fault::Noncharacter));
        assert_eq!(fault('\t'), None);
        assert!(!is_canonical("a\rb") && !is_canonical("\u{0}") && is_canonical("a\tb\n"));
    }

    #[test]
    fn excerpts_are_bounded() {
        assert_eq!(excerpt("ngắn".as_bytes(), 64), "ngắn");
        let long = excerpt("ạ".repeat(10_000).as_bytes(), 64);
        assert_eq!(long.chars().count(), 64);
        assert!(long.ends_with('…'));
        assert!(excerpt(&[0xff; 1000], 64).chars().count() <= 64);
    }

    proptest! {
        #[test]
        fn plain_run_stops_exactly_at_the_first_special(
            b in proptest::collection::vec(prop_oneof![9 => 0x20u8..0x7f, 1 => any::<u8>()], 0..200)
        ) {
            let want = b.iter().position(|&c| is_special(c)).unwrap_or(b.len());
            let (len, high) = plain_run(&b);
            prop_assert_eq!(len, want);
            prop_assert!(high || b[..want].is_ascii());
        }

        #[test]
        fn normalised_text_without_faults_is_canonical(s: String) {
            let n = normalise(Cow::Borrowed(&s)).into_owned();
            prop_assert_eq!(is_canonical(&n), n.chars().all(|c| fault(c).is_none()));
        }
    }
}
