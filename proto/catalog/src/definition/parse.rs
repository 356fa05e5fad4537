//! From TOML to a [`Definition`]: names are resolved, every problem carries its line and key.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use dtm_types::text::Told;
use toml::Spanned;

use super::problem::of_reader;
use super::resolve;
use super::{
    CodeEntry, CodeList, Definition, Field, Limits, MaskRule, NamedType, RecordRule, TypeSpec, raw,
};
use crate::Error;
use crate::dossier::{Day, DossierGrammars, Form, Grammar, Reading, registered_owner};

/// The leaves of Circular 12, Article 8, clause 3: a closed list.
const CATEGORIES: &[&str] = &[
    "A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A9", "B1", "B2", "B3", "B4", "C1", "C2", "C3",
    "D1", "D2", "D3", "D4", "D5", "D6", "D7", "DD1",
];
const LIBRARY: &str = include_str!("../../definitions/library.toml");
const NAME_CHARS_MAX: usize = 64;

/// A text and where it comes from, for errors.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) text: &'a str,
    pub(super) name: &'a str,
}

impl Origin<'_> {
    pub(super) fn error(&self, at: usize, key: &str, problem: Told) -> Error {
        let at = at.min(self.text.len());
        Error::Definition {
            origin: self.name.to_owned(),
            line: 1 + self.text.as_bytes()[..at].iter().filter(|&&c| c == b'\n').count(),
            key: key.to_owned(),
            problem,
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        toml::from_str(self.text).map_err(|e| {
            let Range { start, .. } = e.span().unwrap_or_default();
            let missing = e.message().strip_prefix("missing field `");
            if let Some(key) = missing.and_then(|rest| rest.strip_suffix('`')) {
                return self.error(start, key, Told::new("definition.missing"));
            }
            let before = self.text.get(..start).unwrap_or_default();
            let line = before.rfind('\n').map_or(0, |end| end + 1);
            let line = self.text.get(line..).and_then(|t| t.lines().next()).unwrap_or_default();
            let key = line.split('=').next().unwrap_or_default().trim();
            self.error(start, key, of_reader(e.message()))
        })
    }
}

/// Named types and code lists known so far.
pub(super) struct Known {
    pub(super) types: BTreeMap<String, NamedType>,
    pub(super) code_lists: BTreeMap<String, CodeList>,
    names: BTreeSet<String>,
}

pub(super) fn definition(text: &str, name: &str) -> Result<Definition, Error> {
    let origin = Origin { text, name };
    let doc: raw::Document = origin.read()?;
    check_head(&origin, &doc)?;
    let library = Origin { text: LIBRARY, name: "library.toml" };
    let shared: raw::Library = library.read()?;
    let mut known =
        Known { types: BTreeMap::new(), code_lists: BTreeMap::new(), names: BTreeSet::new() };
    known.add(&library, shared.types, shared.code_list)?;
    known.add(&origin, doc.types, doc.code_list)?;
    let fields = fields(&origin, &known, doc.field)?;
    let dossier_codes = doc.dossier_codes.map(|d| dossier_codes(&origin, d)).transpose()?;
    let definition = Definition {
        id: doc.id.into_inner(),
        version: doc.version.into_inner(),
        owner: doc.owner,
        category: doc.category.into_inner(),
        title: doc.title,
        item: doc.item,
        key: doc.key.iter().map(|k| k.get_ref().clone()).collect(),
        priority: doc.priority,
        security: doc.security,
        fields,
        types: known.types,
        code_lists: known.code_lists,
        rules: doc.rule.iter().map(|r| rule(r.get_ref().clone())).collect(),
        dossier_codes: dossier_codes.unwrap_or_default(),
    };
    for (path, key) in definition.key.iter().zip(&doc.key) {
        resolve::scalar(&definition, path).map_err(|p| origin.error(key.span().start, "key", p))?;
    }
    for (rule, raw) in definition.rules.iter().zip(&doc.rule) {
        resolve::rule(&definition, rule)
            .map_err(|(key, p)| origin.error(raw.span().start, &key, p))?;
    }
    Ok(definition)
}

fn check_head(origin: &Origin<'_>, doc: &raw::Document) -> Result<(), Error> {
    if !is_name(doc.id.get_ref()) {
        return Err(origin.error(doc.id.span().start, "id", Told::new("definition.name")));
    }
    if *doc.version.get_ref() == 0 {
        let problem = Told::new("definition.version");
        return Err(origin.error(doc.version.span().start, "version", problem));
    }
    if !CATEGORIES.contains(&doc.category.get_ref().as_str()) {
        let problem = Told::new("definition.category").with("known", CATEGORIES.join(" "));
        return Err(origin.error(doc.category.span().start, "category", problem));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let rest = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    name.len() <= NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(rest)
}

impl Known {
    /// Adds types and lists; later ones replace earlier ones of the same name.
    fn add(
        &mut self,
        origin: &Origin<'_>,
        types: Vec<raw::NamedType>,
        lists: Vec<raw::CodeList>,
    ) -> Result<(), Error> {
        for list in lists {
            let list = code_list(origin, list)?;
            self.code_lists.insert(list.name.clone(), list);
        }
        self.names.extend(types.iter().map(|t| t.name.get_ref().clone()));
        for t in types {
            let at = t.name.span().start;
            let t = self.named_type(origin, t)?;
            let name = t.name.clone();
            self.types.insert(name.clone(), t);
            resolve::acyclic(&self.types, &name).map_err(|p| origin.error(at, &name, p))?;
        }
        Ok(())
    }

    fn named_type(&self, origin: &Origin<'_>, t: raw::NamedType) -> Result<NamedType, Error> {
        let name = t.name.get_ref().clone();
        let at = t.name.span().start;
        if !name.starts_with(|c: char| c.is_ascii_uppercase())
            || !name.bytes().all(|c| c.is_ascii_alphanumeric())
            || is_base_type(&name)
        {
            return Err(origin.error(at, &name, Told::new("definition.type_name")));
        }
        let mut inherited = match &t.extends {
            None => Vec::new(),
            Some(base) => match self.types.get(base.get_ref()) {
                Some(base) => base.fields.clone(),
                None => {
                    let problem = Told::new("definition.no_type_above");
                    return Err(origin.error(base.span().start, "extends", problem));
                }
            },
        };
        let own = fields(origin, self, t.field)?;
        inherited.retain(|f| own.iter().all(|o| o.name != f.name));
        inherited.extend(own);
        let mut any_of = Vec::new();
        for group in t.any_of {
            for member in &group {
                if inherited.iter().all(|f| f.name != *member.get_ref()) {
                    let problem = Told::new("definition.no_member");
                    return Err(origin.error(member.span().start, "any_of", problem));
                }
            }
            any_of.push(group.into_iter().map(Spanned::into_inner).collect());
        }
        Ok(NamedType { name, label: t.label, fields: inherited, any_of })
    }
}

fn code_list(origin: &Origin<'_>, list: raw::CodeList) -> Result<CodeList, Error> {
    let at = list.name.span().start;
    let name = list.name.into_inner();
    if !is_name(&name) {
        return Err(origin.error(at, "name", Told::new("definition.name")));
    }
    let mut seen = BTreeSet::new();
    for entry in &list.code {
        let CodeEntry { code, wire, .. } = entry.get_ref();
        for value in std::iter::once(code).chain(wire) {
            let fresh = seen.insert(value.clone());
            if value.is_empty() || !crate::chars::is_canonical(value) || !fresh {
                let problem = Told::new("definition.code_value");
                return Err(origin.error(entry.span().start, value, problem));
            }
        }
    }
    for entry in &list.code {
        for next in &entry.get_ref().next {
            if list.code.iter().all(|e| e.get_ref().code != *next) {
                let problem = Told::new("definition.no_code");
                return Err(origin.error(entry.span().start, next, problem));
            }
        }
    }
    Ok(CodeList {
        name,
        version: list.version,
        quarantine_unknown: list.unknown == raw::Unknown::Quarantine,
        codes: list.code.into_iter().map(Spanned::into_inner).collect(),
    })
}

fn fields(origin: &Origin<'_>, known: &Known, raw: Vec<raw::Field>) -> Result<Vec<Field>, Error> {
    let mut out: Vec<Field> = Vec::with_capacity(raw.len());
    for field in raw {
        let at = field.name.span().start;
        let field = self::field(origin, known, field)?;
        if out.iter().any(|f| f.name == field.name) {
            let problem = Told::new("definition.field_twice");
            return Err(origin.error(at, &field.name, problem));
        }
        out.push(field);
    }
    Ok(out)
}

fn field(origin: &Origin<'_>, known: &Known, raw: raw::Field) -> Result<Field, Error> {
    let at = raw.name.span().start;
    let spec_at = raw.spec.span().start;
    let name = raw.name.into_inner();
    if !is_name(&name) {
        return Err(origin.error(at, &name, Told::new("definition.name")));
    }
    let spec = type_spec(raw.spec.get_ref(), known).map_err(|p| origin.error(spec_at, &name, p))?;
    if raw.optional && raw.nullable {
        return Err(origin.error(at, &name, Told::new("definition.optional_nullable")));
    }
    let field = Field {
        name,
        item: raw.item,
        spec,
        label: raw.label,
        required: !raw.optional,
        nullable: raw.nullable,
        personal: raw.personal,
        sensitive: raw.sensitive,
        mask: raw.mask.map(|mask| match mask {
            raw::Mask::Hide => MaskRule::Hide,
            raw::Mask::Partial { first, last } => MaskRule::Partial { first, last },
            raw::Mask::Generalise(precision) => MaskRule::Generalise(precision),
            raw::Mask::Pseudonym => MaskRule::Pseudonym,
        }),
        refers: raw.refers,
        limits: Limits {
            min_length: raw.min_length,
            max_length: raw.max_length,
            min: raw.min,
            max: raw.max,
            min_items: raw.min_items,
            max_items: raw.max_items,
            digits: raw.digits,
            dossier_code: raw.grammar.is_some(),
        },
    };
    resolve::limits(&field).map_err(|p| origin.error(at, &field.name, p))?;
    if let Some(mask) = &field.mask {
        resolve::mask(&field.spec, mask).map_err(|p| origin.error(at, &field.name, p))?;
    }
    Ok(field)
}

fn is_base_type(name: &str) -> bool {
    base_type(name).is_some()
}

pub(super) const BASE_TYPES: [(&str, TypeSpec); 12] = [
    ("Code", TypeSpec::Code),
    ("Text", TypeSpec::Text),
    ("Bool", TypeSpec::Bool),
    ("Date", TypeSpec::Date),
    ("DateTime", TypeSpec::DateTime),
    ("Uri", TypeSpec::Uri),
    ("MoneyVnd", TypeSpec::MoneyVnd),
    ("Integer", TypeSpec::Integer),
    ("Decimal", TypeSpec::Decimal),
    ("Base64", TypeSpec::Base64),
    ("Sha256", TypeSpec::Sha256),
    ("Object", TypeSpec::Object),
];

fn base_type(name: &str) -> Option<TypeSpec> {
    BASE_TYPES.iter().find(|(known, _)| *known == name).map(|(_, spec)| spec.clone())
}

/// Every name that may stand as a type here.
fn type_names(known: &Known) -> String {
    let base = BASE_TYPES.iter().map(|(name, _)| *name);
    let named = known.names.iter().map(String::as_str);
    base.chain(["Enum(list)"]).chain(named).chain(["[T]"]).collect::<Vec<_>>().join(", ")
}

fn type_spec(text: &str, known: &Known) -> Result<TypeSpec, Told> {
    if let Some(item) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        if item.starts_with('[') {
            return Err(Told::new("definition.list_of_lists"));
        }
        return Ok(TypeSpec::List(Box::new(type_spec(item.trim(), known)?)));
    }
    if let Some(list) = text.strip_prefix("Enum(").and_then(|t| t.strip_suffix(')')) {
        if known.code_lists.contains_key(list) {
            return Ok(TypeSpec::Enum(list.to_owned()));
        }
        let lists: Vec<_> = known.code_lists.keys().map(String::as_str).collect();
        let problem = Told::new("definition.no_code_list");
        return Err(problem.with("name", list).with("known", lists.join(", ")));
    }
    if let Some(base) = base_type(text) {
        return Ok(base);
    }
    match known.names.contains(text) {
        true => Ok(TypeSpec::Named(text.to_owned())),
        false => {
            let problem = Told::new("definition.no_type");
            Err(problem.with("name", text).with("known", type_names(known)))
        }
    }
}

fn rule(raw: raw::Rule) -> RecordRule {
    match raw {
        raw::Rule::NotBefore { field, earlier, report } => {
            RecordRule::NotBefore { field, earlier, report }
        }
        raw::Rule::RequiredWhen { field, when, values } => {
            RecordRule::RequiredWhen { field, when, values }
        }
        raw::Rule::RequiredTogether { fields } => RecordRule::RequiredTogether { fields },
        raw::Rule::Abolished { field, by, from } => RecordRule::Abolished { field, by, from },
        raw::Rule::StateChange { field, from, report } => {
            RecordRule::StateChange { field, from, report }
        }
        raw::Rule::DossierDate { field, date } => RecordRule::DossierDate { field, date },
        raw::Rule::DossierProcedure { field, procedure } => {
            RecordRule::DossierProcedure { field, procedure }
        }
    }
}

fn dossier_codes(origin: &Origin<'_>, raw: raw::DossierCodes) -> Result<DossierGrammars, Error> {
    let day = |text: &Option<Spanned<String>>| match text {
        None => Ok(None),
        Some(text) => Day::parse(text.get_ref()).map(Some).ok_or_else(|| {
            let problem = Told::new("definition.date");
            origin.error(text.span().start, "dossier_codes.grammar", problem)
        }),
    };
    let mut grammars = Vec::new();
    for grammar in &raw.grammar {
        let form = match grammar.form {
            raw::DossierForm::Central => Form::Central,
            raw::DossierForm::Reversed => Form::Reversed,
        };
        let (valid_from, valid_to) = (day(&grammar.valid_from)?, day(&grammar.valid_to)?);
        grammars.push(Grammar { form, valid_from, valid_to });
    }
    let mut owners = Vec::new();
    for owner in &raw.owners {
        let digits = registered_owner(owner.get_ref()).ok_or_else(|| {
            let problem = Told::new("definition.owner");
            origin.error(owner.span().start, "dossier_codes.owners", problem)
        })?;
        owners.push(digits.to_owned());
    }
    let defaults = DossierGrammars::default();
    Ok(DossierGrammars {
        reading: Reading {
            strict_digits: raw.strict_digits,
            short_identifiers: raw.short_identifiers,
        },
        grammars: if grammars.is_empty() { defaults.grammars } else { grammars },
        centralised_procedures: raw.centralised_procedures,
        owners,
    })
}
