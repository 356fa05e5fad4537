//! The slow path: reads a record into a tree, writes its canonical form, lists all that is wrong.
//!
//! Used for whatever the fast path says no to. Where a value is valid the same bytes come out as
//! the fast path would have accepted, because both ask [`Kind::accepts`].

use crate::chars::write_json_string;
use crate::json::{Item, ReadFault, Value, canonical_order, push_segment, read};
use crate::kind::{Kind, List, MaskForm, Member, NO_SLOT, Struct};
use crate::lexical::{INTEGER_MAX, canonical_integer};
use crate::rules::{Finding, Slot};
use crate::schema::{Accepted, CompiledSchema, Outcome};
use crate::violation::{Findings, Rule, Violation};

/// `text` is the payload as text, or where it stops being UTF-8.
pub(crate) fn check(
    schema: &CompiledSchema,
    payload: &[u8],
    text: Result<&str, usize>,
    slots: &mut Vec<Slot>,
) -> Outcome {
    let mut findings = Findings::default();
    let not_utf8 = |offset| ReadFault {
        rule: Rule::NotUtf8,
        expected: "UTF-8".to_owned(),
        offset,
        pointer: String::new(),
    };
    let root = match text.map_err(not_utf8).and_then(read) {
        Ok(root) => root,
        Err(fault) => {
            findings.refuse(read_violation(&fault, payload));
            return Outcome::Refused(findings.into_refusal());
        }
    };
    slots.clear();
    slots.resize(schema.slots.len(), Slot::NONE);
    let mut walk = Walk {
        payload,
        out: Vec::with_capacity(payload.len()),
        pointer: String::new(),
        findings,
        slots,
        places: vec![(0, 0); schema.slots.len()],
    };
    match &root.value {
        Value::Object(_) => walk.structure(&schema.root, &root),
        _ => walk.refuse(Rule::WrongType, "Object", &root),
    }
    walk.rules(schema);
    let Walk { findings, out, .. } = walk;
    if !findings.violations.is_empty() {
        return Outcome::Refused(findings.into_refusal());
    }
    let form = if out == payload { Accepted::Same } else { Accepted::Rewritten(out) };
    Outcome::Accepted { form, warnings: findings.warnings }
}

fn read_violation(fault: &ReadFault, payload: &[u8]) -> Violation {
    let rest = payload.get(fault.offset..).unwrap_or_default();
    let mut violation =
        Violation::new(fault.rule, &fault.pointer, fault.expected.as_str(), rest).at(fault.offset);
    if fault.rule == Rule::NotUtf8 {
        violation.found = hex(&rest[..rest.len().min(4)]);
    }
    violation
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x} ")).collect::<String>().trim_end().to_owned()
}

struct Walk<'a, 's> {
    payload: &'a [u8],
    out: Vec<u8>,
    pointer: String,
    findings: Findings,
    slots: &'s mut [Slot],
    /// Where the values of the slots stood in the payload.
    places: Vec<(u32, u32)>,
}

/// What a value turned out to be.
enum Written {
    /// Null or an empty text; nothing was written.
    Null,
    /// An empty list or object.
    Empty,
    /// A value.
    Full,
    /// Something wrong, which is in the findings.
    Bad,
}

impl Walk<'_, '_> {
    fn refuse(&mut self, rule: Rule, expected: &str, item: &Item<'_>) {
        if self.findings.only_counted() {
            return;
        }
        let raw = &self.payload[item.start as usize..item.end as usize];
        let violation = Violation::new(rule, &self.pointer, expected, raw);
        self.findings.refuse(violation.at(item.start as usize));
    }

    fn bad(&mut self, rule: Rule, expected: &str, item: &Item<'_>) -> Written {
        self.refuse(rule, expected, item);
        Written::Bad
    }

    fn wrong_type(&mut self, kind: &Kind, item: &Item<'_>) -> Written {
        self.bad(Rule::WrongType, kind.type_name(), item)
    }

    /// Writes an object with agreed members; `item` is known to be an object.
    fn structure(&mut self, s: &Struct, item: &Item<'_>) {
        let Value::Object(given) = &item.value else {
            return;
        };
        self.out.push(b'{');
        let from = self.out.len();
        let mut any = 0u64;
        // Both sides are in canonical order, so that one walk over both is enough.
        let mut given = given.iter().peekable();
        for member in &s.members {
            let before = |name: &str| canonical_order(name, &member.name).is_lt();
            while let Some((name, value)) = given.next_if(|(name, _)| before(name)) {
                self.unknown(s, name, value);
            }
            let Some((_, value)) = given.next_if(|(name, _)| *name == member.name) else {
                if member.required {
                    self.missing(member, item);
                }
                continue;
            };
            let mark = self.out.len();
            if mark > from {
                self.out.push(b',');
            }
            self.out.extend_from_slice(&member.token);
            let (keep, present) = self.member(member, value);
            if !keep {
                self.out.truncate(mark);
            }
            if present {
                any |= member.any_bit;
            }
        }
        given.for_each(|(name, value)| self.unknown(s, name, value));
        self.out.push(b'}');
        for (bits, names) in &s.any_of {
            if any & bits == 0 {
                self.refuse(Rule::AnyOf, names, item);
            }
        }
    }

    fn unknown(&mut self, s: &Struct, name: &str, value: &Item<'_>) {
        const SHOWN: usize = 12;
        if self.findings.only_counted() {
            return;
        }
        let mut agreed: Vec<_> = s.members.iter().take(SHOWN).map(|m| m.name.as_str()).collect();
        if s.members.len() > SHOWN {
            agreed.push("…");
        }
        let before = self.pointer.len();
        push_segment(&mut self.pointer, name);
        self.refuse(Rule::UnknownMember, &agreed.join(", "), value);
        self.pointer.truncate(before);
    }

    fn missing(&mut self, member: &Member, parent: &Item<'_>) {
        let before = self.pointer.len();
        push_segment(&mut self.pointer, &member.name);
        let violation = Violation::new(Rule::Missing, &self.pointer, member.kind.type_name(), b"");
        self.findings.refuse(violation.at(parent.start as usize));
        self.pointer.truncate(before);
        self.mark(member, Slot::BAD, parent);
    }

    fn mark(&mut self, member: &Member, slot: Slot, item: &Item<'_>) {
        if member.slot != NO_SLOT {
            let at = usize::from(member.slot);
            self.slots[at] = slot;
            self.places[at] = (item.start, item.end);
        }
    }

    /// Writes a member's value; whether the member is kept, and whether it counts as present.
    fn member(&mut self, member: &Member, item: &Item<'_>) -> (bool, bool) {
        let before = self.pointer.len();
        push_segment(&mut self.pointer, &member.name);
        let start = self.out.len();
        let written = self.value(&member.kind, item);
        let answer = match written {
            Written::Null if !member.required => (false, false),
            Written::Null if member.nullable => {
                self.out.extend_from_slice(b"null");
                (true, false)
            }
            Written::Null => {
                self.refuse(Rule::NullNotAllowed, member.kind.type_name(), item);
                self.mark(member, Slot::BAD, item);
                (false, true)
            }
            Written::Empty if !member.required => (false, false),
            Written::Bad => {
                self.mark(member, Slot::BAD, item);
                (false, true)
            }
            Written::Empty | Written::Full => {
                let quotes = u32::from(self.out[start] == b'"');
                let (from, to) = (start as u32 + quotes, self.out.len() as u32 - quotes);
                self.mark(member, Slot { start: from, end: to }, item);
                (true, true)
            }
        };
        self.pointer.truncate(before);
        answer
    }

    fn value(&mut self, kind: &Kind, item: &Item<'_>) -> Written {
        match (kind, &item.value) {
            (_, Value::Null) => Written::Null,
            (_, Value::Text(text)) if text.is_empty() && kind.takes_text() => Written::Null,
            (Kind::Masked(MaskForm::Hidden, _), value) => match value {
                Value::Array(items) if items.is_empty() => Written::Null,
                Value::Object(members) if members.is_empty() => Written::Null,
                _ => self.bad(Rule::NotMasked, MaskForm::Hidden.name(), item),
            },
            (Kind::Masked(MaskForm::Number { step }, _), Value::Number(_)) => {
                match self.integer(-INTEGER_MAX, INTEGER_MAX, item) {
                    Some(n) if n.rem_euclid(*step) == 0 => Written::Full,
                    Some(_) => self.bad(Rule::NotMasked, "generalise", item),
                    None => Written::Bad,
                }
            }
            (Kind::Masked(form, _), value) if !matches!(value, Value::Text(_)) => {
                self.bad(Rule::NotMasked, form.name(), item)
            }
            (Kind::Struct(s), Value::Object(_)) => {
                let start = self.out.len();
                self.structure(s, item);
                if self.out.len() - start == 2 { Written::Empty } else { Written::Full }
            }
            (Kind::List(list), Value::Array(items)) => self.list(list, items, item),
            (Kind::Object, Value::Object(members)) => {
                self.free(item);
                if members.is_empty() { Written::Empty } else { Written::Full }
            }
            (Kind::Bool, Value::Bool(value)) => {
                self.out.extend_from_slice(if *value { b"true" } else { b"false" });
                Written::Full
            }
            (Kind::Integer { min, max }, Value::Number(_)) => {
                self.integer(*min, *max, item).map_or(Written::Bad, |_| Written::Full)
            }
            (Kind::Decimal(_), Value::Number(token)) => self.text(kind, token, item),
            (Kind::Enum(codes), Value::Number(token)) if codes.wire.contains_key(*token) => {
                self.text(kind, token, item)
            }
            (_, Value::Text(text)) if kind.takes_text() => self.text(kind, text, item),
            (_, Value::BadText(what)) if kind.takes_text() => {
                self.bad(Rule::ForbiddenCharacter, what, item)
            }
            _ => self.wrong_type(kind, item),
        }
    }

    fn text(&mut self, kind: &Kind, text: &str, item: &Item<'_>) -> Written {
        match kind.canonical(text) {
            Ok(canonical) => {
                write_json_string(&mut self.out, &canonical);
                Written::Full
            }
            Err((rule, expected)) => self.bad(rule, &expected, item),
        }
    }

    /// Writes an integer; `item` is known to be a number.
    fn integer(&mut self, min: i64, max: i64, item: &Item<'_>) -> Option<i64> {
        let Value::Number(token) = item.value else {
            return None;
        };
        let token = if token == "-0" { "0" } else { token };
        match canonical_integer(token.as_bytes()) {
            Some(n) if n >= min && n <= max => {
                self.out.extend_from_slice(token.as_bytes());
                Some(n)
            }
            Some(_) => {
                self.refuse(Rule::Range, &format!("{min} … {max}"), item);
                None
            }
            None if token.bytes().any(|c| matches!(c, b'.' | b'e' | b'E')) => {
                self.refuse(Rule::NotAnInteger, "0", item);
                None
            }
            None => {
                self.refuse(Rule::IntegerTooLarge, &INTEGER_MAX.to_string(), item);
                None
            }
        }
    }

    fn list(&mut self, list: &List, items: &[Item<'_>], whole: &Item<'_>) -> Written {
        let count = items.len();
        if count < list.min as usize || count > list.max as usize {
            let most = if list.max == u32::MAX { "…".to_owned() } else { list.max.to_string() };
            return self.bad(Rule::Items, &format!("{} … {most}", list.min), whole);
        }
        self.out.push(b'[');
        for (n, item) in items.iter().enumerate() {
            if n > 0 {
                self.out.push(b',');
            }
            let before = self.pointer.len();
            push_segment(&mut self.pointer, &n.to_string());
            if let Written::Null = self.value(&list.item, item) {
                self.refuse(Rule::NullNotAllowed, list.item.type_name(), item);
            }
            self.pointer.truncate(before);
        }
        self.out.push(b']');
        if count == 0 { Written::Empty } else { Written::Full }
    }

    /// Writes a value whose members were not agreed one by one.
    fn free(&mut self, item: &Item<'_>) {
        match &item.value {
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Bool(true) => self.out.extend_from_slice(b"true"),
            Value::Bool(false) => self.out.extend_from_slice(b"false"),
            Value::Number(_) => {
                self.integer(-INTEGER_MAX, INTEGER_MAX, item);
            }
            Value::Text(text) => write_json_string(&mut self.out, text),
            Value::BadText(what) => self.refuse(Rule::ForbiddenCharacter, what, item),
            Value::Array(items) => {
                self.out.push(b'[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        self.out.push(b',');
                    }
                    self.below(&n.to_string(), item);
                }
                self.out.push(b']');
            }
            Value::Object(members) => {
                self.out.push(b'{');
                for (n, (name, item)) in members.iter().enumerate() {
                    if n > 0 {
                        self.out.push(b',');
                    }
                    write_json_string(&mut self.out, name);
                    self.out.push(b':');
                    self.below(name, item);
                }
                self.out.push(b'}');
            }
        }
    }

    fn below(&mut self, segment: &str, item: &Item<'_>) {
        let before = self.pointer.len();
        push_segment(&mut self.pointer, segment);
        self.free(item);
        self.pointer.truncate(before);
    }

    fn rules(&mut self, schema: &CompiledSchema) {
        let Walk { payload, out, findings, slots, places, .. } = self;
        for check in &schema.checks {
            check.run(slots, out, &mut |Finding { slot, rule, expected, report }| {
                let at = usize::from(slot);
                let (start, end) = places[at];
                let raw = &payload[start as usize..end as usize];
                let finding =
                    Violation::new(rule, &schema.slots[at], expected, raw).at(start as usize);
                if report { findings.report(finding) } else { findings.refuse(finding) }
            });
        }
    }
}
