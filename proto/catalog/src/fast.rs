//! The fast path: one pass over the bytes of a record that is canonical and valid already.
//!
//! It answers yes or no. A yes means: valid UTF-8, one JSON value in canonical form, every member
//! agreed, every value valid. Anything else, down to a blank between two members, is a no, and
//! the slow path finds out what it is. A no is therefore never wrong, only slower.

// Hot path: runs once a record; allocates nothing.

use crate::chars::{is_canonical, plain_run};
use crate::json::{DEPTH_MAX, VALUES_MAX, canonical_order};
use crate::kind::{Kind, List, MaskForm, Member, NO_SLOT, Struct};
use crate::lexical::canonical_integer;
use crate::rules::Slot;
use crate::schema::CompiledSchema;

/// True when the payload is canonical and valid and no rule has anything to report.
pub(crate) fn is_canonical_and_valid(
    schema: &CompiledSchema,
    text: &str,
    slots: &mut Vec<Slot>,
) -> bool {
    if !fill_slots(schema, text, slots) {
        return false;
    }
    let mut clean = true;
    for check in &schema.checks {
        check.run(slots, text.as_bytes(), &mut |_| clean = false);
    }
    clean
}

/// As above without the rules over several fields; the slots hold where the values stand.
pub(crate) fn fill_slots(schema: &CompiledSchema, text: &str, slots: &mut Vec<Slot>) -> bool {
    slots.clear();
    slots.resize(schema.slots.len(), Slot::NONE);
    if u32::try_from(text.len()).is_err() {
        return false;
    }
    let mut walk = Walk { text, b: text.as_bytes(), at: 0, depth: 0, values: 0, slots };
    walk.structure(&schema.root).is_some() && walk.at == text.len()
}

struct Walk<'a> {
    text: &'a str,
    b: &'a [u8],
    at: usize,
    depth: usize,
    values: usize,
    slots: &'a mut [Slot],
}

/// A JSON string: its content, and how many escapes are in it.
struct Quoted {
    start: usize,
    end: usize,
    escapes: usize,
    high: bool,
}

impl<'a> Walk<'a> {
    fn expect(&mut self, c: u8) -> Option<()> {
        if self.b.get(self.at) != Some(&c) {
            return None;
        }
        self.at += 1;
        Some(())
    }

    fn literal(&mut self, word: &[u8]) -> Option<()> {
        if !self.b[self.at..].starts_with(word) {
            return None;
        }
        self.at += word.len();
        Some(())
    }

    fn enter(&mut self, c: u8) -> Option<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { None } else { self.expect(c) }
    }

    fn leave(&mut self, c: u8) -> Option<()> {
        self.depth -= 1;
        self.expect(c)
    }

    fn structure(&mut self, s: &Struct) -> Option<()> {
        self.enter(b'{')?;
        let mut any = 0u64;
        let mut count = 0usize;
        for member in &s.members {
            let comma = usize::from(count > 0);
            let follows = comma == 0 || self.b.get(self.at) == Some(&b',');
            let rest = self.b.get(self.at + comma..)?;
            if follows && rest.starts_with(&member.token) {
                self.at += comma + member.token.len();
                if self.member(member)? {
                    any |= member.any_bit;
                }
                count += 1;
            } else if member.required {
                return None;
            }
        }
        self.leave(b'}')?;
        s.any_of.iter().all(|(bits, _)| any & bits != 0).then_some(())
    }

    /// True when the member has a value, false when it is null.
    fn member(&mut self, member: &Member) -> Option<bool> {
        if self.b.get(self.at) == Some(&b'n') {
            self.values += 1;
            let allowed = member.required && member.nullable;
            return if allowed { self.literal(b"null").map(|()| false) } else { None };
        }
        let from = self.at;
        let (start, end) = self.value(&member.kind)?;
        let container = matches!(self.b[from], b'{' | b'[');
        if container && !member.required && self.at - from == 2 {
            return None;
        }
        if member.slot != NO_SLOT {
            self.slots[usize::from(member.slot)] = Slot { start: start as u32, end: end as u32 };
        }
        Some(true)
    }

    /// A value that is not null; where it stands, without the quotes of a text.
    fn value(&mut self, kind: &Kind) -> Option<(usize, usize)> {
        self.values += 1;
        let start = self.at;
        match kind {
            Kind::Struct(s) => self.structure(s)?,
            Kind::List(list) => self.list(list)?,
            Kind::Object => self.free_object()?,
            Kind::Bool => self.literal(b"true").or_else(|| self.literal(b"false"))?,
            Kind::Integer { min, max } => {
                let n = self.integer()?;
                (n >= *min && n <= *max).then_some(())?;
            }
            Kind::Masked(MaskForm::Hidden, _) => return None,
            Kind::Masked(MaskForm::Number { step }, _) => {
                (self.integer()?.rem_euclid(*step) == 0).then_some(())?;
            }
            _ => return self.text(kind),
        }
        Some((start, self.at))
    }

    fn text(&mut self, kind: &Kind) -> Option<(usize, usize)> {
        let Quoted { start, end, escapes, high } = self.quoted()?;
        if start == end || (escapes > 0 && !matches!(kind, Kind::Text(_))) {
            return None;
        }
        let s = &self.text[start..end];
        let bytes = if high { s.chars().count() } else { s.len() };
        kind.accepts(s, bytes - escapes).then_some((start, end))
    }

    /// A JSON string in canonical form: no needless escapes, allowed characters, NFC.
    fn quoted(&mut self) -> Option<Quoted> {
        self.expect(b'"')?;
        let start = self.at;
        let (mut escapes, mut high) = (0, false);
        loop {
            let (run, run_high) = plain_run(&self.b[self.at..]);
            self.at += run;
            high |= run_high;
            match self.b.get(self.at)? {
                b'"' => break,
                b'\\' if matches!(self.b.get(self.at + 1)?, b'"' | b'\\' | b't' | b'n') => {
                    escapes += 1;
                    self.at += 2;
                }
                _ => return None,
            }
        }
        let end = self.at;
        self.at += 1;
        if high && !is_canonical(&self.text[start..end]) {
            return None;
        }
        Some(Quoted { start, end, escapes, high })
    }

    fn integer(&mut self) -> Option<i64> {
        let rest = &self.b[self.at..];
        let part = |c: &u8| c.is_ascii_digit() || matches!(c, b'-' | b'+' | b'.' | b'e' | b'E');
        let len = rest.iter().position(|c| !part(c)).unwrap_or(rest.len());
        self.at += len;
        canonical_integer(&rest[..len])
    }

    fn list(&mut self, list: &List) -> Option<()> {
        self.enter(b'[')?;
        let mut count = 0u32;
        while self.b.get(self.at)? != &b']' {
            if count > 0 {
                self.expect(b',')?;
            }
            self.value(&list.item)?;
            count = count.checked_add(1)?;
            (self.values <= VALUES_MAX).then_some(())?;
        }
        self.leave(b']')?;
        (count >= list.min && count <= list.max).then_some(())
    }

    fn free_object(&mut self) -> Option<()> {
        self.enter(b'{')?;
        let text: &'a str = self.text;
        let mut previous: Option<&str> = None;
        while self.b.get(self.at)? != &b'}' {
            if previous.is_some() {
                self.expect(b',')?;
            }
            let Quoted { start, end, escapes, .. } = self.quoted()?;
            let key = &text[start..end];
            if escapes > 0 || previous.is_some_and(|p| canonical_order(p, key).is_ge()) {
                return None;
            }
            previous = Some(key);
            self.expect(b':')?;
            self.free_value()?;
        }
        self.leave(b'}')
    }

    fn free_value(&mut self) -> Option<()> {
        self.values += 1;
        (self.values <= VALUES_MAX).then_some(())?;
        match self.b.get(self.at)? {
            b'{' => self.free_object(),
            b'[' => {
                self.enter(b'[')?;
                let mut first = true;
                while self.b.get(self.at)? != &b']' {
                    if !first {
                        self.expect(b',')?;
                    }
                    first = false;
                    self.free_value()?;
                }
                self.leave(b']')
            }
            b'"' => self.quoted().map(|_| ()),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.integer().map(|_| ()),
        }
    }
}
