//! Masking: hides part of a record and keeps it canonical, valid and countable.
//!
//! A [`MaskProfile`] says which field is masked how; without one the marks of the definition
//! decide. The masked record follows the schema of [`CompiledMask::schema`], which accepts masked
//! values only: the same schema refuses a raw value in a field that was agreed as masked.
//!
//! A pseudonym is HMAC-SHA256 of the value under the key of the agreement, cut to 128 bits, in
//! base32: the same value gives the same pseudonym in every field and data set under one key, so
//! counting, grouping and joining give the same figures as before; without the key it cannot be
//! made again.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::Error;
use crate::chars::write_json_string;
use crate::definition::{Definition, Field, MaskRule, Precision, TypeSpec};
use crate::json::{Item, Value, read};
use crate::kind::{Kind, MaskForm, PSEUDONYM_CHARS, PSEUDONYM_HEAD, STARS, Struct};
use crate::schema::{CompiledSchema, Outcome, Scratch};
use crate::violation::{Rule, Violation};
use dtm_types::text::Told;

/// The secret of pseudonyms; wiped from memory when dropped.
pub struct MaskKey(Zeroizing<[u8; 32]>);

impl MaskKey {
    /// A key from 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> MaskKey {
        MaskKey(Zeroizing::new(bytes))
    }
}

/// Which fields are masked, by path (`submitter.full_name`; lists are passed through).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaskProfile {
    rules: BTreeMap<String, MaskRule>,
}

impl MaskProfile {
    /// Nothing is masked yet.
    pub fn new() -> MaskProfile {
        MaskProfile::default()
    }

    /// The masks that the marks of a definition ask for: every personal or sensitive value by its
    /// own rule, hidden where it has none. An object with agreed members is masked member by
    /// member.
    pub fn of_marks(definition: &Definition) -> MaskProfile {
        let mut profile = MaskProfile::default();
        profile.collect(definition, &definition.fields, "");
        profile
    }

    fn collect(&mut self, definition: &Definition, fields: &[Field], above: &str) {
        let dot = if above.is_empty() { "" } else { "." };
        for field in fields {
            let path = format!("{above}{dot}{}", field.name);
            let marked = field.personal || field.sensitive;
            match (field.spec.innermost(), &field.mask) {
                (_, Some(rule)) => self.set(&path, rule.clone()),
                (TypeSpec::Named(name), None) => {
                    let named = definition.types.get(name);
                    let inner = named.map(|t| t.fields.as_slice()).unwrap_or_default();
                    self.collect(definition, inner, &path);
                }
                (_, None) if marked => self.set(&path, MaskRule::Hide),
                _ => {}
            }
        }
    }

    /// Masks one field, replacing what was said about it before.
    pub fn set(&mut self, path: &str, rule: MaskRule) {
        self.rules.insert(path.to_owned(), rule);
    }

    /// Leaves one field in clear.
    pub fn clear(&mut self, path: &str) {
        self.rules.remove(path);
    }

    /// The masks, by path.
    pub fn rules(&self) -> &BTreeMap<String, MaskRule> {
        &self.rules
    }
}

/// A mask profile compiled for one data set version.
#[derive(Debug)]
pub struct CompiledMask {
    schema: CompiledSchema,
}

impl CompiledMask {
    /// Compiles a profile.
    ///
    /// # Errors
    /// [`Error::Mask`] when it names a field that does not exist, or a mask that does not fit.
    pub fn compile(definition: &Definition, profile: &MaskProfile) -> Result<CompiledMask, Error> {
        for path in profile.rules.keys() {
            if definition.field(path).is_none() {
                return Err(Error::Mask {
                    dataset: definition.id.clone(),
                    path: path.clone(),
                    problem: Told::new("definition.no_field").with("path", path),
                });
            }
        }
        let schema = CompiledSchema::compile_masked(definition, &profile.rules)?;
        Ok(CompiledMask { schema })
    }

    /// The schema of masked records. Records of a source that sends masked data are checked
    /// against it; a raw value breaks the rule `not_masked`.
    pub fn schema(&self) -> &CompiledSchema {
        &self.schema
    }

    /// Masks a valid canonical raw record; the result is canonical again. Values that are masked
    /// already stay as they are.
    ///
    /// Returns nothing when `canonical` is no JSON object.
    pub fn mask(&self, canonical: &[u8], key: &MaskKey) -> Option<Vec<u8>> {
        let root = read(std::str::from_utf8(canonical).ok()?).ok()?;
        let Value::Object(_) = root.value else {
            return None;
        };
        let mut writer =
            Writer { source: canonical, out: Vec::with_capacity(canonical.len()), key };
        writer.structure(&self.schema.root, &root);
        Some(writer.out)
    }

    /// The fields that were agreed as masked and hold raw values, without the values.
    pub fn raw_fields(&self, canonical: &[u8], scratch: &mut Scratch) -> Vec<Violation> {
        match self.schema.check(canonical, scratch) {
            Outcome::Accepted { .. } => Vec::new(),
            Outcome::Refused(refusal) => {
                let mut raw = refusal.violations;
                raw.retain(|v| v.rule == Rule::NotMasked);
                raw.iter_mut().for_each(Violation::redact);
                raw
            }
        }
    }
}

struct Writer<'a> {
    source: &'a [u8],
    out: Vec<u8>,
    key: &'a MaskKey,
}

impl Writer<'_> {
    fn copy(&mut self, item: &Item<'_>) {
        self.out.extend_from_slice(&self.source[item.start as usize..item.end as usize]);
    }

    fn structure(&mut self, s: &Struct, item: &Item<'_>) {
        let Value::Object(members) = &item.value else {
            return self.copy(item);
        };
        self.out.push(b'{');
        let from = self.out.len();
        for (name, value) in members {
            let mark = self.out.len();
            if mark > from {
                self.out.push(b',');
            }
            write_json_string(&mut self.out, name);
            self.out.push(b':');
            let Some(at) = s.member(name) else {
                self.copy(value);
                continue;
            };
            let member = &s.members[at];
            let start = self.out.len();
            self.value(&member.kind, value);
            let gone = matches!(&self.out[start..], b"null" | b"{}" | b"[]");
            if gone && !member.required {
                self.out.truncate(mark);
            }
        }
        self.out.push(b'}');
    }

    fn value(&mut self, kind: &Kind, item: &Item<'_>) {
        match (kind, &item.value) {
            (Kind::Masked(MaskForm::Hidden, _), _) => self.out.extend_from_slice(b"null"),
            (Kind::Masked(form, _), Value::Text(text)) => {
                let masked = self.text(*form, text);
                write_json_string(&mut self.out, &masked);
            }
            (Kind::Masked(MaskForm::Number { step }, _), Value::Number(token)) => {
                let n = token.parse::<i64>().unwrap_or(0);
                self.out.extend_from_slice(round_down(n, *step).to_string().as_bytes());
            }
            (Kind::Struct(s), Value::Object(_)) => self.structure(s, item),
            (Kind::List(list), Value::Array(items)) => {
                self.out.push(b'[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        self.out.push(b',');
                    }
                    self.value(&list.item, item);
                }
                self.out.push(b']');
            }
            _ => self.copy(item),
        }
    }

    fn text(&self, form: MaskForm, text: &str) -> String {
        if form.accepts(text) {
            return text.to_owned();
        }
        match form {
            MaskForm::Partial { first, last } => partial(text, first.into(), last.into()),
            MaskForm::Date(Precision::Year) => text.chars().take(4).collect(),
            MaskForm::Date(_) => text.chars().take(7).collect(),
            MaskForm::Pseudonym => pseudonym(text, self.key),
            MaskForm::Hidden | MaskForm::Number { .. } => STARS.to_owned(),
        }
    }
}

/// Rounds towards minus infinity, so that a value and its neighbour never swap.
fn round_down(n: i64, step: i64) -> i64 {
    n - n.rem_euclid(step)
}

/// Keeps the ends of a text that is long enough to hide at least as much as it shows.
fn partial(text: &str, first: usize, last: usize) -> String {
    let count = text.chars().count();
    if count < 2 * (first + last) || first + last == 0 {
        return STARS.to_owned();
    }
    let head: String = text.chars().take(first).collect();
    let tail: String = text.chars().skip(count - last).collect();
    format!("{head}{STARS}{tail}")
}

fn pseudonym(text: &str, key: &MaskKey) -> String {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key.0.as_slice())
        .expect("HMAC takes keys of every length");
    mac.update(b"dtm pseudonym v1\0");
    mac.update(text.as_bytes());
    let digest = mac.finalize().into_bytes();
    format!("{PSEUDONYM_HEAD}{}", base32(&digest[..16]))
}

/// RFC 4648 base32 without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = String::with_capacity(PSEUDONYM_CHARS);
    let (mut bits, mut held) = (0u32, 0u32);
    for &byte in bytes {
        held = (held << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(char::from(ALPHABET[(held << (5 - bits) & 31) as usize]));
    }
    out
}

#[cfg(test)]
#[path = "mask_test.rs"]
mod tests;
