//! From a definition to a [`CompiledSchema`]: named types are expanded, paths become slots.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::Error;
use crate::definition::{
    Bound, CodeList, Definition, Field, Limits, MaskRule, Precision, RecordRule, TypeSpec,
};
use crate::dossier::DossierGrammars;
use crate::kind::{
    Between, Codes, Kind, Lengths, List, MaskForm, Member, NO_SLOT, SHORT_LIST, Struct,
};
use crate::lexical::INTEGER_MAX;
use crate::rules::Check;
use crate::schema::CompiledSchema;
use dtm_types::text::Told;

/// Most members of a schema after expansion.
const MEMBERS_MAX: usize = 4096;
const TEXT_CHARS_MAX: u32 = u32::MAX;
const URI_CHARS_MAX: u32 = 2048;
const CODE_CHARS_MAX: u32 = 256;

pub(crate) fn schema(
    definition: &Definition,
    masks: &BTreeMap<String, MaskRule>,
) -> Result<CompiledSchema, Error> {
    let mut compiler = Compiler::new(definition, masks);
    let checks = compiler.checks();
    let key = definition.key.iter().map(|path| compiler.slot(path)).collect();
    let root = compiler.structure(&definition.id, &definition.fields, &[], "")?;
    let mut checks = checks;
    checks.extend(
        compiler
            .dossiers
            .iter()
            .map(|&field| Check::Dossier { field, grammars: Arc::clone(&compiler.grammars) }),
    );
    let mut slots = vec![String::new(); compiler.slots.len()];
    for (path, slot) in &compiler.slots {
        slots[usize::from(*slot)] = format!("/{}", path.replace('.', "/"));
    }
    Ok(CompiledSchema {
        id: definition.id.clone(),
        version: definition.version,
        root,
        checks,
        slots,
        key,
    })
}

struct Compiler<'a> {
    definition: &'a Definition,
    masks: &'a BTreeMap<String, MaskRule>,
    grammars: Arc<DossierGrammars>,
    codes: HashMap<&'a str, Arc<Codes>>,
    slots: BTreeMap<String, u16>,
    /// Slots of dossier codes, for the reports about them.
    dossiers: Vec<u16>,
    members: usize,
}

impl<'a> Compiler<'a> {
    fn new(definition: &'a Definition, masks: &'a BTreeMap<String, MaskRule>) -> Self {
        Compiler {
            definition,
            masks,
            grammars: Arc::new(definition.dossier_codes.clone()),
            codes: HashMap::new(),
            slots: BTreeMap::new(),
            dossiers: Vec::new(),
            members: 0,
        }
    }

    fn slot(&mut self, path: &str) -> u16 {
        let next = u16::try_from(self.slots.len()).unwrap_or(NO_SLOT);
        *self.slots.entry(path.to_owned()).or_insert(next)
    }

    fn checks(&mut self) -> Vec<Check> {
        let rules = &self.definition.rules;
        let of_values = |rule: &&RecordRule| match rule {
            // What is hidden by agreement cannot be demanded.
            RecordRule::RequiredWhen { field, .. } => !self.is_hidden(field),
            _ => true,
        };
        let rules: Vec<_> = rules.iter().filter(of_values).collect();
        rules.into_iter().map(|rule| self.record_rule(rule)).collect()
    }

    /// True when a mask hides the field or something around it.
    fn is_hidden(&self, path: &str) -> bool {
        let hides = |p: &str| matches!(self.masks.get(p), Some(MaskRule::Hide));
        path.match_indices('.').any(|(at, _)| hides(&path[..at])) || hides(path)
    }

    fn record_rule(&mut self, rule: &RecordRule) -> Check {
        let grammars = Arc::clone(&self.grammars);
        match rule {
            RecordRule::NotBefore { field, earlier, report } => Check::NotBefore {
                field: self.slot(field),
                earlier: self.slot(earlier),
                report: *report,
            },
            RecordRule::RequiredWhen { field, when, values } => Check::RequiredWhen {
                field: self.slot(field),
                when: self.slot(when),
                values: values.clone(),
                expected: format!("{when} = {}", values.join(" | ")),
            },
            RecordRule::RequiredTogether { fields } => Check::RequiredTogether {
                fields: {
                    let shown: Vec<_> = fields.iter().filter(|f| !self.is_hidden(f)).collect();
                    shown.into_iter().map(|f| self.slot(f)).collect()
                },
                expected: fields.join(", "),
            },
            RecordRule::Abolished { field, by, from } => {
                Check::Abolished { field: self.slot(field), by: self.slot(by), from: from.clone() }
            }
            RecordRule::StateChange { field, from, report } => Check::StateChange {
                field: self.slot(field),
                from: self.slot(from),
                next: self.next_states(field),
                report: *report,
            },
            RecordRule::DossierDate { field, date } => {
                Check::DossierDate { field: self.slot(field), date: self.slot(date), grammars }
            }
            RecordRule::DossierProcedure { field, procedure } => Check::DossierProcedure {
                field: self.slot(field),
                procedure: self.slot(procedure),
                grammars,
            },
        }
    }

    /// The states of a field, each with those that may follow.
    fn next_states(&self, path: &str) -> Vec<(String, Vec<String>)> {
        let spec = self.definition.field(path).map(|field| &field.spec);
        let Some(TypeSpec::Enum(name)) = spec else { return Vec::new() };
        let codes = self.definition.code_lists.get(name).map(|list| list.codes.as_slice());
        let entries = codes.unwrap_or_default().iter();
        entries.map(|entry| (entry.code.clone(), entry.next.clone())).collect()
    }

    fn structure(
        &mut self,
        type_name: &str,
        fields: &[Field],
        any_of: &[Vec<String>],
        path: &str,
    ) -> Result<Struct, Error> {
        self.members += fields.len();
        if self.members > MEMBERS_MAX {
            return Err(Error::TooLarge {
                dataset: self.definition.id.clone(),
                what: Told::new("definition.members"),
                value: self.members,
                limit: MEMBERS_MAX,
            });
        }
        let mut bits: HashMap<&str, u64> = HashMap::new();
        for name in any_of.iter().flatten() {
            let next = 1u64 << (bits.len() % 64);
            bits.entry(name).or_insert(next);
        }
        let dot = if path.is_empty() { "" } else { "." };
        let shown = |group: &&Vec<String>| {
            group.iter().all(|name| !self.is_hidden(&format!("{path}{dot}{name}")))
        };
        let groups = any_of.iter().filter(shown).map(|group| {
            let mask = group.iter().fold(0, |all, name| all | bits[name.as_str()]);
            (mask, group.join(", "))
        });
        let groups = groups.collect();
        let mut members = Vec::with_capacity(fields.len());
        for field in fields {
            let any_bit = bits.get(field.name.as_str()).copied().unwrap_or(0);
            members.push(self.member(field, any_bit, path)?);
        }
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Struct { type_name: type_name.to_owned(), members, any_of: groups })
    }

    fn member(&mut self, field: &Field, any_bit: u64, above: &str) -> Result<Member, Error> {
        let dot = if above.is_empty() { "" } else { "." };
        let path = format!("{above}{dot}{}", field.name);
        let in_list = path_in_list(self.definition, &path);
        if field.limits.dossier_code && !in_list && matches!(field.spec, TypeSpec::Code) {
            let slot = self.slot(&path);
            self.dossiers.push(slot);
        }
        let masked = self.masks.get(&path);
        let kind = self.kind(&field.spec, &field.limits, &path)?;
        let kind = match masked {
            None => kind,
            Some(rule) => self.masked(kind, field, rule, &path)?,
        };
        let hidden = matches!(kind, Kind::Masked(MaskForm::Hidden, _));
        Ok(Member {
            name: field.name.clone(),
            token: format!("\"{}\":", field.name).into_bytes(),
            kind,
            required: field.required,
            nullable: field.nullable || (hidden && field.required),
            slot: self.slots.get(&path).copied().filter(|_| !in_list).unwrap_or(NO_SLOT),
            any_bit,
        })
    }

    fn masked(
        &self,
        kind: Kind,
        field: &Field,
        rule: &MaskRule,
        path: &str,
    ) -> Result<Kind, Error> {
        crate::definition::check_mask(&field.spec, rule).map_err(|problem| Error::Mask {
            dataset: self.definition.id.clone(),
            path: path.to_owned(),
            problem,
        })?;
        let form = match *rule {
            MaskRule::Hide => return Ok(Kind::Masked(MaskForm::Hidden, Box::new(kind))),
            MaskRule::Partial { first, last } => MaskForm::Partial { first, last },
            MaskRule::Pseudonym => MaskForm::Pseudonym,
            MaskRule::Generalise(Precision::Thousand) => MaskForm::Number { step: 1_000 },
            MaskRule::Generalise(Precision::Million) => MaskForm::Number { step: 1_000_000 },
            MaskRule::Generalise(precision) => MaskForm::Date(precision),
        };
        Ok(match kind {
            Kind::List(list) => {
                let List { item, min, max } = *list;
                Kind::List(Box::new(List { item: Kind::Masked(form, Box::new(item)), min, max }))
            }
            other => Kind::Masked(form, Box::new(other)),
        })
    }

    fn kind(&mut self, spec: &TypeSpec, limits: &Limits, path: &str) -> Result<Kind, Error> {
        let lengths = |max| Lengths {
            min: limits.min_length.unwrap_or(0),
            max: limits.max_length.unwrap_or(max),
            digits: limits.digits,
        };
        Ok(match spec {
            TypeSpec::Text => Kind::Text(lengths(TEXT_CHARS_MAX)),
            TypeSpec::Code if limits.dossier_code => {
                Kind::Dossier(lengths(CODE_CHARS_MAX), Arc::clone(&self.grammars))
            }
            TypeSpec::Code => Kind::Code(lengths(CODE_CHARS_MAX)),
            TypeSpec::Bool => Kind::Bool,
            TypeSpec::Date => Kind::Date(between(limits)),
            TypeSpec::DateTime => Kind::DateTime(between(limits)),
            TypeSpec::Uri => Kind::Uri(lengths(URI_CHARS_MAX)),
            TypeSpec::MoneyVnd => integer(limits, 0),
            TypeSpec::Integer => integer(limits, -INTEGER_MAX),
            TypeSpec::Decimal => Kind::Decimal(between(limits)),
            TypeSpec::Base64 => Kind::Base64(lengths(TEXT_CHARS_MAX)),
            TypeSpec::Sha256 => Kind::Sha256,
            TypeSpec::Object => Kind::Object,
            TypeSpec::Enum(list) => Kind::Enum(self.code_list(list)),
            TypeSpec::Named(name) => {
                let definition = self.definition;
                let named = definition.types.get(name).expect("a definition resolves its types");
                let inner = self.structure(name, &named.fields, &named.any_of, path)?;
                Kind::Struct(Box::new(inner))
            }
            TypeSpec::List(item) => Kind::List(Box::new(List {
                item: self.kind(item, limits, path)?,
                min: limits.min_items.unwrap_or(0),
                max: limits.max_items.unwrap_or(u32::MAX),
            })),
        })
    }

    fn code_list(&mut self, name: &str) -> Arc<Codes> {
        let definition = self.definition;
        let (name, list) =
            definition.code_lists.get_key_value(name).expect("a definition resolves its lists");
        Arc::clone(self.codes.entry(name).or_insert_with(|| Arc::new(codes(list))))
    }
}

fn codes(list: &CodeList) -> Codes {
    let all = || list.codes.iter().map(|entry| entry.code.clone());
    let wire = list.codes.iter().filter_map(|e| Some((e.wire.clone()?, e.code.clone())));
    let is_short = list.codes.len() <= SHORT_LIST;
    Codes {
        name: list.name.clone(),
        quarantine_unknown: list.quarantine_unknown,
        short: if is_short { all().collect() } else { Vec::new() },
        long: if is_short { HashSet::new() } else { all().collect() },
        wire: wire.collect(),
    }
}

fn between(limits: &Limits) -> Between {
    let text = |bound: &Option<Bound>| match bound {
        Some(Bound::Text(text)) => Some(text.clone()),
        _ => None,
    };
    Between { min: text(&limits.min), max: text(&limits.max) }
}

fn integer(limits: &Limits, least: i64) -> Kind {
    let number = |bound: &Option<Bound>| match bound {
        Some(Bound::Integer(n)) => Some(*n),
        _ => None,
    };
    Kind::Integer {
        min: number(&limits.min).unwrap_or(least).max(least),
        max: number(&limits.max).unwrap_or(INTEGER_MAX).min(INTEGER_MAX),
    }
}

/// True when a path passes through a list, so that it has no single value.
fn path_in_list(definition: &Definition, path: &str) -> bool {
    let parents = path.match_indices('.').map(|(at, _)| &path[..at]);
    let is_list =
        |p: &str| definition.field(p).is_some_and(|f| matches!(f.spec, TypeSpec::List(_)));
    parents.into_iter().any(is_list)
}
