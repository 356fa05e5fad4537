//! JSON Schema 2020-12 of a definition, with titles in both languages and the marks.
//!
//! `title` is Vietnamese; `x-label-vi`, `x-label-en`, `x-personal`, `x-sensitive`, `x-item` and
//! `x-refers` are annotations that validators pass over. The schema describes the canonical form.

use serde_json::{Map, Value, json};

use crate::definition::{Bound, Definition, Field, TypeSpec};

const CODE_PATTERN: &str = "^[A-Z0-9.-]+$";
const DATE_TIME_PATTERN: &str =
    "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}(\\.\\d{1,6})?(Z|[+-]\\d{2}:\\d{2})$";
const DATE_PATTERN: &str =
    "^\\d{4}(-\\d{2}(-\\d{2}(T\\d{2}:\\d{2}:\\d{2}(\\.\\d{1,6})?(Z|[+-]\\d{2}:\\d{2}))?)?)?$";
const DECIMAL_PATTERN: &str = "^-?(0|[1-9]\\d*)(\\.\\d+)?$";

impl Definition {
    /// The JSON Schema of the data set's records.
    pub fn json_schema(&self) -> Value {
        let mut defs = Map::new();
        let mut schema = self.object(&self.fields, &[], &mut defs);
        let mut head = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": format!("urn:dtm:dataset:{}:{}", self.id, self.version),
            "title": self.title.vi,
            "x-label-vi": self.title.vi,
            "x-label-en": self.title.en,
            "x-owner": self.owner,
            "x-category": self.category,
            "x-key": self.key,
        });
        merge(&mut head, &mut schema);
        if let Some(item) = &self.item {
            head["x-item"] = json!(item);
        }
        if !defs.is_empty() {
            head["$defs"] = Value::Object(defs);
        }
        head
    }

    fn object(
        &self,
        fields: &[Field],
        any_of: &[Vec<String>],
        defs: &mut Map<String, Value>,
    ) -> Value {
        let mut properties = Map::new();
        for field in fields {
            properties.insert(field.name.clone(), self.property(field, defs));
        }
        let required: Vec<_> = fields.iter().filter(|f| f.required).map(|f| &f.name).collect();
        let mut object = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        if !any_of.is_empty() {
            let one = |name: &String| json!({ "required": [name] });
            let group =
                |names: &Vec<String>| json!({ "anyOf": names.iter().map(one).collect::<Vec<_>>() });
            object["allOf"] = any_of.iter().map(group).collect();
        }
        object
    }

    fn property(&self, field: &Field, defs: &mut Map<String, Value>) -> Value {
        let mut property = self.spec(&field.spec, field, defs);
        if field.nullable {
            property = json!({ "anyOf": [property, { "type": "null" }] });
        }
        property["title"] = json!(field.label.vi);
        property["x-label-vi"] = json!(field.label.vi);
        property["x-label-en"] = json!(field.label.en);
        if field.personal {
            property["x-personal"] = json!(true);
        }
        if field.sensitive {
            property["x-sensitive"] = json!(true);
        }
        if let Some(item) = &field.item {
            property["x-item"] = json!(item);
        }
        if let Some(refers) = &field.refers {
            property["x-refers"] = json!(refers);
        }
        property
    }

    fn spec(&self, spec: &TypeSpec, field: &Field, defs: &mut Map<String, Value>) -> Value {
        match spec {
            TypeSpec::List(item) => {
                let mut list = json!({ "type": "array", "items": self.spec(item, field, defs) });
                set(&mut list, "minItems", field.limits.min_items);
                set(&mut list, "maxItems", field.limits.max_items);
                list
            }
            TypeSpec::Named(name) => {
                if !defs.contains_key(name)
                    && let Some(named) = self.types.get(name)
                {
                    let mut object = self.object(&named.fields, &named.any_of, defs);
                    object["title"] = json!(named.label.vi);
                    object["x-label-vi"] = json!(named.label.vi);
                    object["x-label-en"] = json!(named.label.en);
                    defs.insert(name.clone(), object);
                }
                json!({ "$ref": format!("#/$defs/{name}") })
            }
            TypeSpec::Enum(list) => self.code_list(list, defs),
            _ => scalar(spec, field),
        }
    }

    fn code_list(&self, name: &str, defs: &mut Map<String, Value>) -> Value {
        let key = format!("code_{name}");
        if let Some(list) = self.code_lists.get(name)
            && !defs.contains_key(&key)
        {
            let value = |e: &crate::definition::CodeEntry| json!({ "const": e.code, "title": e.label.vi, "x-label-vi": e.label.vi, "x-label-en": e.label.en });
            let values: Vec<_> = list.codes.iter().map(value).collect();
            let list = json!({ "type": "string", "x-version": list.version, "oneOf": values });
            defs.insert(key.clone(), list);
        }
        json!({ "$ref": format!("#/$defs/{key}") })
    }
}

fn scalar(spec: &TypeSpec, field: &Field) -> Value {
    let limits = &field.limits;
    let mut schema = match spec {
        TypeSpec::Code => json!({ "type": "string", "pattern": CODE_PATTERN }),
        TypeSpec::Text => json!({ "type": "string", "minLength": 1 }),
        TypeSpec::Bool => json!({ "type": "boolean" }),
        TypeSpec::Date => json!({ "type": "string", "pattern": DATE_PATTERN }),
        TypeSpec::DateTime => {
            json!({ "type": "string", "format": "date-time", "pattern": DATE_TIME_PATTERN })
        }
        TypeSpec::Uri => json!({ "type": "string", "format": "uri", "pattern": "^https://" }),
        TypeSpec::MoneyVnd => json!({ "type": "integer", "minimum": 0, "maximum": 1u64 << 53 }),
        TypeSpec::Integer => {
            json!({ "type": "integer", "minimum": -(1i64 << 53), "maximum": 1i64 << 53 })
        }
        TypeSpec::Decimal => json!({ "type": "string", "pattern": DECIMAL_PATTERN }),
        TypeSpec::Base64 => json!({ "type": "string", "contentEncoding": "base64" }),
        TypeSpec::Sha256 => json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        _ => json!({ "type": "object" }),
    };
    if limits.digits {
        schema["pattern"] = json!("^[0-9]+$");
    }
    if limits.dossier_code {
        schema["x-grammar"] = json!("dossier_code");
    }
    set(&mut schema, "minLength", limits.min_length);
    set(&mut schema, "maxLength", limits.max_length);
    for (key, annotation, bound) in
        [("minimum", "x-minimum", &limits.min), ("maximum", "x-maximum", &limits.max)]
    {
        match bound {
            Some(Bound::Integer(n)) => schema[key] = json!(n),
            Some(Bound::Text(text)) => schema[annotation] = json!(text),
            None => {}
        }
    }
    schema
}

fn set(schema: &mut Value, key: &str, limit: Option<u32>) {
    if let Some(limit) = limit {
        schema[key] = json!(limit);
    }
}

fn merge(into: &mut Value, from: &mut Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object_mut()) {
        into.append(from);
    }
}
