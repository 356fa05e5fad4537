//! The TOML shape of a definition, before names are resolved. Unknown keys are refused.

use serde::Deserialize;
use toml::Spanned;

use super::{Bound, CodeEntry, Label, Precision, Priority, Security};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) id: Spanned<String>,
    pub(super) version: Spanned<u32>,
    pub(super) owner: String,
    pub(super) category: Spanned<String>,
    pub(super) title: Label,
    pub(super) item: Option<String>,
    #[serde(default)]
    pub(super) key: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) priority: Priority,
    #[serde(default)]
    pub(super) security: Security,
    pub(super) field: Vec<Field>,
    #[serde(default, rename = "type")]
    pub(super) types: Vec<NamedType>,
    #[serde(default)]
    pub(super) code_list: Vec<CodeList>,
    #[serde(default)]
    pub(super) rule: Vec<Spanned<Rule>>,
    pub(super) dossier_codes: Option<DossierCodes>,
}

/// The named types and code lists that all definitions share.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Library {
    #[serde(default, rename = "type")]
    pub(super) types: Vec<NamedType>,
    #[serde(default)]
    pub(super) code_list: Vec<CodeList>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [[field]] table")]
pub(super) struct Field {
    pub(super) name: Spanned<String>,
    #[serde(rename = "type")]
    pub(super) spec: Spanned<String>,
    pub(super) label: Label,
    pub(super) item: Option<String>,
    #[serde(default)]
    pub(super) optional: bool,
    #[serde(default)]
    pub(super) nullable: bool,
    #[serde(default)]
    pub(super) personal: bool,
    #[serde(default)]
    pub(super) sensitive: bool,
    pub(super) mask: Option<Mask>,
    pub(super) refers: Option<String>,
    pub(super) min_length: Option<u32>,
    pub(super) max_length: Option<u32>,
    pub(super) min: Option<Bound>,
    pub(super) max: Option<Bound>,
    pub(super) min_items: Option<u32>,
    pub(super) max_items: Option<u32>,
    #[serde(default)]
    pub(super) digits: bool,
    pub(super) grammar: Option<Grammar>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Grammar {
    DossierCode,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields, expecting = "a mask")]
pub(super) enum Mask {
    Hide,
    Partial { first: u8, last: u8 },
    Generalise(Precision),
    Pseudonym,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [[type]] table")]
pub(super) struct NamedType {
    pub(super) name: Spanned<String>,
    pub(super) label: Label,
    pub(super) extends: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) any_of: Vec<Vec<Spanned<String>>>,
    pub(super) field: Vec<Field>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [[code_list]] table")]
pub(super) struct CodeList {
    pub(super) name: Spanned<String>,
    pub(super) version: u32,
    #[serde(default)]
    pub(super) unknown: Unknown,
    pub(super) code: Vec<Spanned<CodeEntry>>,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unknown {
    #[default]
    Refuse,
    Quarantine,
}

#[derive(Deserialize, Clone)]
#[serde(
    tag = "kind",
    rename_all = "snake_case",
    deny_unknown_fields,
    expecting = "a [[rule]] table"
)]
pub(super) enum Rule {
    NotBefore {
        field: String,
        earlier: String,
        #[serde(default)]
        report: bool,
    },
    RequiredWhen {
        field: String,
        when: String,
        values: Vec<String>,
    },
    RequiredTogether {
        fields: Vec<String>,
    },
    Abolished {
        field: String,
        by: String,
        from: String,
    },
    StateChange {
        field: String,
        from: String,
        #[serde(default)]
        report: bool,
    },
    DossierDate {
        field: String,
        date: String,
    },
    DossierProcedure {
        field: String,
        procedure: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [dossier_codes]")]
pub(super) struct DossierCodes {
    #[serde(default)]
    pub(super) strict_digits: bool,
    #[serde(default)]
    pub(super) short_identifiers: bool,
    #[serde(default)]
    pub(super) centralised_procedures: Vec<String>,
    #[serde(default)]
    pub(super) owners: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) grammar: Vec<DossierGrammar>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [[dossier_codes.grammar]] table")]
pub(super) struct DossierGrammar {
    pub(super) form: DossierForm,
    pub(super) valid_from: Option<Spanned<String>>,
    pub(super) valid_to: Option<Spanned<String>>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(super) enum DossierForm {
    Central,
    Reversed,
}
