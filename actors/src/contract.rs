//! What one stream may send, compiled once: schema, masks, defaults.

use std::collections::HashMap;
use std::sync::Arc;

use dtm_catalog::definition::Precision;
use dtm_catalog::{
    CompiledMask, CompiledSchema, Definition, ENVELOPE_TEXT_BYTES_MAX, MaskKey, MaskProfile,
    MaskRule, is_envelope_text,
};
use dtm_proto::ingest;
use dtm_types::command::{AckLevel, Agreement, SourceRow};
use dtm_types::format::{Form, Mode};
use dtm_types::text::Told;
use dtm_types::{ErrorCode, LABEL_MAX, StreamKey};
use parking_lot::Mutex;

use crate::error::Error;
use crate::security;

/// Compiled validators that are kept.
const COMPILED_MAX: usize = 1_024;

/// Everything the record path asks about a stream.
pub struct Contract {
    /// Data set.
    pub dataset: Arc<str>,
    /// Version of its schema.
    pub schema_version: u32,
    /// Checks records as they arrive.
    pub schema: Arc<CompiledSchema>,
    /// Masks what arrives raw, where the agreement says so.
    pub mask: Option<(Arc<CompiledMask>, Arc<MaskKey>)>,
    /// RAW or MASKED.
    pub form: Form,
    /// REALTIME or BATCH.
    pub mode: Mode,
    /// Whether message ids are left out of once-only.
    pub ids_by_sequence: bool,
    /// For records that do not say.
    pub defaults: Defaults,
    /// An ack waits until the records are on disk at the site that stands by too.
    pub acks_at_site: bool,
}

/// What holds for a record that does not say.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// 1 public, 2 internal, 3 restricted.
    pub security_status: u32,
    /// 1 low, 2 normal, 3 high.
    pub priority: u32,
    /// Category leaf.
    pub category: String,
    /// Who answers for the data.
    pub responsible_agency: String,
}

/// What a stream asks for, against what was agreed.
pub struct ContractRequest<'a> {
    /// The open request.
    pub open: &'a ingest::Open,
    /// The source.
    pub source: &'a SourceRow,
    /// The data set's definition.
    pub definition: &'a Definition,
    /// For keyed pseudonyms.
    pub mask_key: Arc<MaskKey>,
}

/// Compiled validators, shared by every stream with the same data set, form and masks.
#[derive(Default)]
pub struct Contracts {
    compiled: Mutex<HashMap<String, Compiled>>,
}

#[derive(Clone)]
struct Compiled {
    schema: Arc<CompiledSchema>,
    mask: Option<Arc<CompiledMask>>,
}

impl Contracts {
    /// Holds the request against the agreement and compiles it, or takes what is compiled. Deny by
    /// default: without an agreement for the data set, the mode and the form nothing is taken.
    ///
    /// # Errors
    /// [`Error::NotAgreed`], [`Error::Contract`].
    pub fn contract(
        &self,
        stream: &StreamKey,
        request: ContractRequest<'_>,
    ) -> Result<Contract, Error> {
        let ContractRequest { open, source, definition, mask_key } = request;
        let agreement =
            source.agreements.iter().find(|a| a.dataset == open.dataset).ok_or_else(|| {
                let cause = Told::new("session.no_agreement").with("source", &source.source);
                not_agreed(stream, cause.with("dataset", &open.dataset))
            })?;
        check_open(stream, open)?;
        let mode = match open.mode() {
            Mode::Unspecified => Mode::Realtime,
            mode => mode,
        };
        if !agreement.modes.contains(&mode.into()) {
            let agreed: Vec<_> =
                agreement.modes().map(|mode| name_of(mode.as_str_name())).collect();
            let cause = Told::new("session.mode").with("mode", name_of(mode.as_str_name()));
            let cause = cause.with("dataset", &open.dataset).with("agreed", agreed.join(", "));
            return Err(not_agreed(stream, cause));
        }
        let agreed_form = agreement.form();
        let form = match open.form() {
            Form::Unspecified => agreed_form,
            form => form,
        };
        if form != agreed_form {
            let cause = Told::new("session.form").with("form", name_of(form.as_str_name()));
            let cause = cause.with("dataset", &open.dataset);
            let cause = cause.with("agreed", name_of(agreed_form.as_str_name()));
            return Err(not_agreed(stream, cause));
        }
        let acks_at_site =
            agreement.ack_level() == AckLevel::Site || open.ack_level() == ingest::AckLevel::Site;
        let defaults = defaults(open, agreement, definition);
        let (status, priority) = (defaults.security_status, defaults.priority);
        if !security::are_allowed(status, priority) {
            let cause = Told::new("session.labels").with("status", status);
            let cause = cause.with("priority", priority).with("max", LABEL_MAX);
            return Err(not_agreed(stream, cause));
        }
        let compiled = self.compiled(stream, agreement, definition, form)?;
        Ok(Contract {
            dataset: open.dataset.as_str().into(),
            schema_version: definition.version,
            schema: compiled.schema,
            mask: compiled.mask.map(|mask| (mask, mask_key)),
            form,
            mode,
            ids_by_sequence: open.ids() == ingest::IdPolicy::Sequence,
            defaults,
            acks_at_site,
        })
    }

    fn compiled(
        &self,
        stream: &StreamKey,
        agreement: &Agreement,
        definition: &Definition,
        form: Form,
    ) -> Result<Compiled, Error> {
        let key = format!(
            "{}\0{}\0{form:?}\0{}\0{:?}",
            definition.id, definition.version, agreement.refuse_raw, agreement.masks
        );
        if let Some(compiled) = self.compiled.lock().get(&key) {
            return Ok(compiled.clone());
        }
        let compiled = compile(stream, agreement, definition, form)?;
        let mut cache = self.compiled.lock();
        if cache.len() >= COMPILED_MAX {
            cache.clear();
        }
        cache.insert(key, compiled.clone());
        Ok(compiled)
    }
}

fn compile(
    stream: &StreamKey,
    agreement: &Agreement,
    definition: &Definition,
    form: Form,
) -> Result<Compiled, Error> {
    let broken = |cause: dtm_catalog::Error| Error::Contract {
        stream: stream.clone(),
        cause: cause.to_string(),
    };
    let raw = || CompiledSchema::compile(definition).map(Arc::new).map_err(broken);
    if form != Form::Masked {
        return Ok(Compiled { schema: raw()?, mask: None });
    }
    let profile = profile(stream, agreement, definition)?;
    if agreement.refuse_raw {
        let schema = CompiledSchema::compile_masked(definition, profile.rules()).map_err(broken)?;
        return Ok(Compiled { schema: Arc::new(schema), mask: None });
    }
    let mask = CompiledMask::compile(definition, &profile).map_err(broken)?;
    Ok(Compiled { schema: raw()?, mask: Some(Arc::new(mask)) })
}

/// The definition's marks, with what the agreement says otherwise.
fn profile(
    stream: &StreamKey,
    agreement: &Agreement,
    definition: &Definition,
) -> Result<MaskProfile, Error> {
    let mut profile = MaskProfile::of_marks(definition);
    for rule in &agreement.masks {
        let parsed = parse_rule(&rule.rule).ok_or_else(|| Error::Contract {
            stream: stream.clone(),
            cause: format!(
                "agreement names the unknown mask rule {:?} for {}",
                rule.rule, rule.pointer
            ),
        })?;
        profile.set(&rule.pointer, parsed);
    }
    Ok(profile)
}

/// `hide`, `pseudonym`, `partial:FIRST:LAST`, `generalise:year|month|thousand|million`.
fn parse_rule(text: &str) -> Option<MaskRule> {
    let mut parts = text.split(':');
    let rule = match (parts.next()?, parts.next(), parts.next()) {
        ("hide", None, None) => MaskRule::Hide,
        ("pseudonym", None, None) => MaskRule::Pseudonym,
        ("partial", Some(first), Some(last)) => {
            MaskRule::Partial { first: first.parse().ok()?, last: last.parse().ok()? }
        }
        ("generalise", Some("year"), None) => MaskRule::Generalise(Precision::Year),
        ("generalise", Some("month"), None) => MaskRule::Generalise(Precision::Month),
        ("generalise", Some("thousand"), None) => MaskRule::Generalise(Precision::Thousand),
        ("generalise", Some("million"), None) => MaskRule::Generalise(Precision::Million),
        _ => return None,
    };
    parts.next().is_none().then_some(rule)
}

/// Values that this software does not know are told, not taken for something else.
fn check_open(stream: &StreamKey, open: &ingest::Open) -> Result<(), Error> {
    let numbers = [
        ("mode", open.mode, Mode::try_from(open.mode).is_ok()),
        ("form", open.form, Form::try_from(open.form).is_ok()),
        ("ids", open.ids, ingest::IdPolicy::try_from(open.ids).is_ok()),
        ("ack_level", open.ack_level, ingest::AckLevel::try_from(open.ack_level).is_ok()),
    ];
    let unknown = numbers.into_iter().find(|(.., is_known)| !is_known);
    let unknown = unknown.map(|(field, value, _)| {
        Told::new("session.unknown_value").with("field", field).with("value", value)
    });
    let texts = open.defaults.iter().flat_map(|defaults| {
        [
            ("defaults.category", &defaults.category),
            ("defaults.responsible_agency", &defaults.responsible_agency),
        ]
    });
    let long = texts.into_iter().find(|(_, text)| !is_envelope_text(text)).map(|(field, _)| {
        Told::new("session.text").with("field", field).with("max", ENVELOPE_TEXT_BYTES_MAX)
    });
    match unknown.or(long) {
        None => Ok(()),
        Some(cause) => Err(Error::NotAgreed {
            stream: stream.clone(),
            code: ErrorCode::InvalidArgument,
            cause,
        }),
    }
}

fn defaults(open: &ingest::Open, agreement: &Agreement, definition: &Definition) -> Defaults {
    let asked = open.defaults.clone().unwrap_or_default();
    let or = |asked: u32, agreed: u32, defined: u32| match (asked, agreed) {
        (0, 0) => defined,
        (0, agreed) => agreed,
        (asked, _) => asked,
    };
    let text = |asked: String, agreed: &str| {
        if asked.is_empty() { agreed.to_owned() } else { asked }
    };
    Defaults {
        security_status: or(
            asked.security_status,
            agreement.security_status,
            definition.security as u32 + 1,
        ),
        priority: or(asked.priority, agreement.priority, definition.priority as u32 + 1),
        category: text(asked.category, &definition.category),
        responsible_agency: text(asked.responsible_agency, &agreement.responsible_agency),
    }
}

/// `MODE_BATCH` as people write it: `batch`.
fn name_of(wire: &str) -> String {
    wire.split_once('_').map_or(wire, |(_, name)| name).to_lowercase()
}

fn not_agreed(stream: &StreamKey, cause: Told) -> Error {
    Error::NotAgreed { stream: stream.clone(), code: ErrorCode::NotAgreed, cause }
}
