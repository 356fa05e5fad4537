//! The definition of a data set: the one source of its validator, schema, labels and masks.
//!
//! A definition is a TOML text. The built-in ones and those that an operator publishes have the
//! same format; [`Definition::parse`] is strict and names file, line and key of what it refuses.
//! A `Definition` that exists is consistent: every type, code list and field it names exists.

mod built_in;
mod parse;
mod problem;
mod raw;
mod resolve;

use std::collections::BTreeMap;
use std::fmt;

pub use built_in::{BUILT_IN_IDS, built_in_text};
pub(crate) use resolve::mask as check_mask;

use crate::Error;
use crate::dossier::DossierGrammars;
use dtm_types::text::Lang;

/// A text in both languages.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, expecting = "both languages: { vi = \"…\", en = \"…\" }")]
pub struct Label {
    /// Vietnamese.
    pub vi: String,
    /// English.
    pub en: String,
}

impl Label {
    /// The text of one language.
    pub fn of(&self, lang: Lang) -> &str {
        match lang {
            Lang::Vi => &self.vi,
            Lang::En => &self.en,
        }
    }
}

/// Priority of a record unless its message says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// After everything else.
    Low,
    /// The usual one.
    #[default]
    Normal,
    /// Before normal.
    High,
}

/// Security status of a record unless its message says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// May be shown to everybody.
    Public,
    /// Within the parties of the agreement.
    #[default]
    Internal,
    /// Persons with a right by name.
    Restricted,
}

/// Type of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeSpec {
    /// Capital letters, digits, dots and hyphens.
    Code,
    /// Unicode text in NFC.
    Text,
    /// True or false.
    Bool,
    /// A year, month or day; a full time is kept.
    Date,
    /// A time with seconds and offset.
    DateTime,
    /// Absolute https address.
    Uri,
    /// Whole number of đồng, not negative.
    MoneyVnd,
    /// Whole number up to 2^53 on either side.
    Integer,
    /// Decimal number, a string in JSON.
    Decimal,
    /// Padded base64.
    Base64,
    /// SHA-256 digest in hexadecimal.
    Sha256,
    /// Free object.
    Object,
    /// Value of a code list.
    Enum(String),
    /// An object with agreed members.
    Named(String),
    /// A list.
    List(Box<TypeSpec>),
}

impl fmt::Display for TypeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TypeSpec::Enum(list) => write!(f, "Enum({list})"),
            TypeSpec::Named(name) => f.write_str(name),
            TypeSpec::List(item) => write!(f, "[{item}]"),
            other => fmt::Debug::fmt(other, f),
        }
    }
}

/// How the value of a field is masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaskRule {
    /// Nothing of the value is kept.
    Hide,
    /// The first and last characters are kept.
    Partial {
        /// Characters kept at the start.
        first: u8,
        /// Characters kept at the end.
        last: u8,
    },
    /// A date becomes its year or month, a number its leading digits.
    Generalise(Precision),
    /// A keyed pseudonym: the same value gives the same pseudonym under the same key.
    Pseudonym,
}

/// What a generalised value keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// The year of a date.
    Year,
    /// Year and month of a date.
    Month,
    /// A number rounded down to thousands.
    Thousand,
    /// A number rounded down to millions.
    Million,
}

/// A bound of a range: an integer, or the canonical text of a decimal or date.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(untagged, expecting = "expected a whole number, or a decimal or date as text")]
pub enum Bound {
    /// For Integer and MoneyVnd.
    Integer(i64),
    /// For Decimal, Date and DateTime.
    Text(String),
}

/// Rules that look at one value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Fewest characters.
    pub min_length: Option<u32>,
    /// Most characters.
    pub max_length: Option<u32>,
    /// Smallest value.
    pub min: Option<Bound>,
    /// Largest value.
    pub max: Option<Bound>,
    /// Fewest items.
    pub min_items: Option<u32>,
    /// Most items.
    pub max_items: Option<u32>,
    /// Digits only.
    pub digits: bool,
    /// Follows the grammars of the dossier code.
    pub dossier_code: bool,
}

/// One field of a data set or of a named type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Member name in JSON, column name in tables.
    pub name: String,
    /// Id of the field in its legal source, if it has one.
    pub item: Option<String>,
    /// Type.
    pub spec: TypeSpec,
    /// Label in both languages.
    pub label: Label,
    /// The member must be present.
    pub required: bool,
    /// A compulsory member may be null (until a later state).
    pub nullable: bool,
    /// Identifies or concerns a person.
    pub personal: bool,
    /// Sensitive in business.
    pub sensitive: bool,
    /// Mask; a marked field without one is hidden.
    pub mask: Option<MaskRule>,
    /// Data set that the value refers to.
    pub refers: Option<String>,
    /// Rules for the value.
    pub limits: Limits,
}

/// An object type that fields share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedType {
    /// Name.
    pub name: String,
    /// Label in both languages.
    pub label: Label,
    /// Members.
    pub fields: Vec<Field>,
    /// Sets of members of which at least one is needed.
    pub any_of: Vec<Vec<String>>,
}

/// One value of a code list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "a [[code_list.code]] table")]
pub struct CodeEntry {
    /// Stored value.
    pub code: String,
    /// Label in both languages.
    pub label: Label,
    /// Another spelling on the wire, such as a number code; stored as `code`.
    #[serde(default)]
    pub wire: Option<String>,
    /// States that usually follow.
    #[serde(default)]
    pub next: Vec<String>,
}

/// A versioned list of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeList {
    /// Name, as in `Enum(name)`.
    pub name: String,
    /// Version of the list.
    pub version: u32,
    /// A value outside the list is an unknown state: quarantined until the list is extended.
    pub quarantine_unknown: bool,
    /// The values.
    pub codes: Vec<CodeEntry>,
}

impl CodeList {
    /// The entry of a code.
    pub fn entry(&self, code: &str) -> Option<&CodeEntry> {
        self.codes.iter().find(|entry| entry.code == code)
    }
}

/// Rules that look at several fields of one record. Fields are named by path, `a.b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordRule {
    /// `field` must not be before `earlier`.
    NotBefore {
        /// The later date.
        field: String,
        /// The earlier date.
        earlier: String,
        /// Reported instead of refused.
        report: bool,
    },
    /// `field` is compulsory when `when` has one of `values`.
    RequiredWhen {
        /// The field.
        field: String,
        /// The deciding field.
        when: String,
        /// Its values.
        values: Vec<String>,
    },
    /// All of the fields or none.
    RequiredTogether {
        /// The fields.
        fields: Vec<String>,
    },
    /// `field` may not be used when the date in `by` is `from` or later.
    Abolished {
        /// The field.
        field: String,
        /// The deciding date field.
        by: String,
        /// First day without the field.
        from: String,
    },
    /// `from` and `field` hold states of one list, and the change is in its table.
    StateChange {
        /// The state after the change.
        field: String,
        /// The state before it.
        from: String,
        /// Reported as unusual instead of refused.
        report: bool,
    },
    /// The day inside the dossier code equals the date; a difference is reported only.
    DossierDate {
        /// The dossier code.
        field: String,
        /// The date.
        date: String,
    },
    /// The form of the dossier code suits the procedure.
    DossierProcedure {
        /// The dossier code.
        field: String,
        /// The procedure code.
        procedure: String,
    },
}

/// A data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Identifier.
    pub id: String,
    /// Schema version, from 1.
    pub version: u32,
    /// Agency that owns the definition.
    pub owner: String,
    /// Category leaf of Circular 12, Article 8, clause 3, such as `B2`.
    pub category: String,
    /// Title in both languages.
    pub title: Label,
    /// Id in its legal source, if it has one.
    pub item: Option<String>,
    /// Fields that identify what the record is about, by path.
    pub key: Vec<String>,
    /// Default priority.
    pub priority: Priority,
    /// Default security status.
    pub security: Security,
    /// Fields in the order of the source.
    pub fields: Vec<Field>,
    /// Named types in use or available.
    pub types: BTreeMap<String, NamedType>,
    /// Code lists in use or available.
    pub code_lists: BTreeMap<String, CodeList>,
    /// Rules over several fields.
    pub rules: Vec<RecordRule>,
    /// Grammars of the dossier code.
    pub dossier_codes: DossierGrammars,
}

impl Definition {
    /// Reads a definition.
    ///
    /// `origin` names the text in errors, usually a file path.
    ///
    /// # Errors
    /// [`Error::Definition`] with origin, line and key.
    pub fn parse(text: &str, origin: &str) -> Result<Definition, Error> {
        parse::definition(text, origin)
    }

    /// A definition that comes with the software; the ids are [`BUILT_IN_IDS`].
    pub fn built_in(id: &str) -> Option<Definition> {
        built_in::definition(id)
    }

    /// Puts a code list in the place of the one of the same name: how a list is extended without
    /// a new release.
    #[must_use]
    pub fn with_code_list(mut self, list: CodeList) -> Definition {
        self.code_lists.insert(list.name.clone(), list);
        self
    }

    /// The field at a path such as `submitter.full_name`; lists are passed through.
    pub fn field(&self, path: &str) -> Option<&Field> {
        let mut fields = &self.fields;
        let mut found = None;
        for name in path.split('.') {
            let field = fields.iter().find(|f| f.name == name)?;
            fields = match field.spec.innermost() {
                TypeSpec::Named(name) => &self.types.get(name)?.fields,
                _ => const { &Vec::new() },
            };
            found = Some(field);
        }
        found
    }
}

impl TypeSpec {
    /// The type without the lists around it.
    pub fn innermost(&self) -> &TypeSpec {
        match self {
            TypeSpec::List(item) => item.innermost(),
            other => other,
        }
    }
}

#[cfg(test)]
mod definition_test;
