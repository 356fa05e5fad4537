//! Consistency of a definition: paths exist, rules, limits and masks fit the types they stand on.

use std::collections::BTreeMap;

use dtm_types::text::Told;

use super::{Bound, Definition, Field, MaskRule, NamedType, Precision, RecordRule, TypeSpec};
use crate::lexical::{is_date, is_decimal};

/// Deepest nesting of named types.
const TYPE_DEPTH_MAX: usize = 16;

/// The field at a path that passes no list and ends at a scalar.
pub(super) fn scalar<'a>(definition: &'a Definition, path: &str) -> Result<&'a Field, Told> {
    let field = member(definition, path)?;
    match field.spec {
        TypeSpec::Named(_) | TypeSpec::Object | TypeSpec::List(_) => {
            Err(Told::new("definition.not_single").with("path", path))
        }
        _ => Ok(field),
    }
}

/// The field at a path that passes no list.
fn member<'a>(definition: &'a Definition, path: &str) -> Result<&'a Field, Told> {
    let mut at = String::new();
    for name in path.split('.') {
        if !at.is_empty() {
            at.push('.');
        }
        at.push_str(name);
        let field = definition.field(&at).ok_or_else(|| no_field(&at))?;
        if at.len() < path.len() && matches!(field.spec, TypeSpec::List(_)) {
            return Err(Told::new("definition.inside_list").with("path", at));
        }
    }
    definition.field(path).ok_or_else(|| no_field(path))
}

fn no_field(path: &str) -> Told {
    Told::new("definition.no_field").with("path", path)
}

/// Checks one rule; the error names the key.
pub(super) fn rule(definition: &Definition, rule: &RecordRule) -> Result<(), (String, Told)> {
    let date = |key: &str, path: &str| {
        let field = scalar(definition, path).map_err(|p| (key.to_owned(), p))?;
        match field.spec {
            TypeSpec::Date | TypeSpec::DateTime => Ok(()),
            _ => Err((key.to_owned(), Told::new("definition.not_date").with("path", path))),
        }
    };
    let exists = |key: &str, path: &str| {
        member(definition, path).map(|_| ()).map_err(|p| (key.to_owned(), p))
    };
    let dossier = |path: &str| match scalar(definition, path) {
        Ok(field) if field.limits.dossier_code => Ok(()),
        _ => Err(("field".to_owned(), Told::new("definition.no_grammar").with("path", path))),
    };
    match rule {
        RecordRule::NotBefore { field, earlier, .. } => {
            date("field", field)?;
            date("earlier", earlier)
        }
        RecordRule::RequiredWhen { field, when, .. } => {
            exists("field", field)?;
            scalar(definition, when).map(|_| ()).map_err(|p| ("when".to_owned(), p))
        }
        RecordRule::RequiredTogether { fields } => {
            fields.iter().try_for_each(|path| exists("fields", path))
        }
        RecordRule::Abolished { field, by, from } => {
            exists("field", field)?;
            date("by", by)?;
            match is_date(from.as_bytes()) {
                true => Ok(()),
                false => Err(("from".to_owned(), Told::new("definition.date"))),
            }
        }
        RecordRule::StateChange { field, from, .. } => {
            let list = states(definition, field).map_err(|p| ("field".to_owned(), p))?;
            let before = states(definition, from).map_err(|p| ("from".to_owned(), p))?;
            match list == before {
                true => Ok(()),
                false => {
                    let problem = Told::new("definition.other_list");
                    Err(("from".to_owned(), problem.with("path", from).with("field", field)))
                }
            }
        }
        RecordRule::DossierDate { field, date: on } => {
            dossier(field)?;
            date("date", on)
        }
        RecordRule::DossierProcedure { field, procedure } => {
            dossier(field)?;
            scalar(definition, procedure).map(|_| ()).map_err(|p| ("procedure".to_owned(), p))
        }
    }
}

/// The list of states of a field; some of them say what follows.
fn states<'a>(definition: &'a Definition, path: &str) -> Result<&'a str, Told> {
    let TypeSpec::Enum(name) = &scalar(definition, path)?.spec else {
        return Err(Told::new("definition.not_enum").with("path", path));
    };
    let none = || Told::new("definition.no_such_list").with("name", name);
    let list = definition.code_lists.get(name).ok_or_else(none)?;
    match list.codes.iter().any(|code| !code.next.is_empty()) {
        true => Ok(name),
        false => Err(Told::new("definition.no_next").with("name", name)),
    }
}

/// Checks that the limits of a field fit its type.
pub(super) fn limits(field: &Field) -> Result<(), Told> {
    let limits = &field.limits;
    let item = field.spec.innermost();
    let is_list = matches!(field.spec, TypeSpec::List(_));
    let text = matches!(item, TypeSpec::Text | TypeSpec::Code);
    let long = text || matches!(item, TypeSpec::Uri | TypeSpec::Base64);
    if (limits.min_length.is_some() && !text) || (limits.max_length.is_some() && !long) {
        return Err(Told::new("definition.no_length").with("type", item));
    }
    if limits.digits && !text {
        return Err(Told::new("definition.no_digits").with("type", item));
    }
    if limits.dossier_code && !matches!(item, TypeSpec::Code) {
        return Err(Told::new("definition.grammar_type"));
    }
    if (limits.min_items.is_some() || limits.max_items.is_some()) && !is_list {
        return Err(Told::new("definition.not_list").with("type", item));
    }
    for bound in limits.min.iter().chain(&limits.max) {
        let fits = match (item, bound) {
            (TypeSpec::Integer | TypeSpec::MoneyVnd, Bound::Integer(_)) => true,
            (TypeSpec::Decimal, Bound::Text(t)) => is_decimal(t.as_bytes()),
            (TypeSpec::Date | TypeSpec::DateTime, Bound::Text(t)) => is_date(t.as_bytes()),
            _ => false,
        };
        if !fits {
            return Err(Told::new("definition.bound_type").with("type", item));
        }
    }
    Ok(())
}

/// Checks that a mask fits a type.
pub(crate) fn mask(spec: &TypeSpec, mask: &MaskRule) -> Result<(), Told> {
    let item = spec.innermost();
    let fits = match mask {
        MaskRule::Hide => true,
        MaskRule::Partial { .. } | MaskRule::Pseudonym => {
            matches!(item, TypeSpec::Text | TypeSpec::Code)
        }
        MaskRule::Generalise(Precision::Year | Precision::Month) => {
            matches!(item, TypeSpec::Date | TypeSpec::DateTime)
        }
        MaskRule::Generalise(Precision::Thousand | Precision::Million) => {
            matches!(item, TypeSpec::Integer | TypeSpec::MoneyVnd)
        }
    };
    if fits { Ok(()) } else { Err(Told::new("definition.mask_type").with("type", item)) }
}

/// Checks that a named type does not hold itself and is not nested too deeply.
pub(super) fn acyclic(types: &BTreeMap<String, NamedType>, name: &str) -> Result<(), Told> {
    height(types, name, 0, &mut BTreeMap::new()).map(|_| ())
}

/// Levels of named types below a type. Each type is walked once, so that the time is linear in the
/// size of the definition, however often types use one another.
fn height<'a>(
    types: &'a BTreeMap<String, NamedType>,
    name: &'a str,
    depth: usize,
    known: &mut BTreeMap<&'a str, usize>,
) -> Result<usize, Told> {
    let below = known.get(name).copied();
    if depth + below.unwrap_or(0) > TYPE_DEPTH_MAX {
        return Err(Told::new("definition.depth").with("max", TYPE_DEPTH_MAX));
    }
    if let Some(below) = below {
        return Ok(below);
    }
    let mut most = 0;
    for field in types.get(name).map(|t| t.fields.as_slice()).unwrap_or_default() {
        if let TypeSpec::Named(inner) = field.spec.innermost() {
            most = most.max(1 + height(types, inner, depth + 1, known)?);
        }
    }
    known.insert(name, most);
    Ok(most)
}
