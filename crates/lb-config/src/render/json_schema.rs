//! A JSON Schema of the file for editors, written from the table of keys.

use serde_json::{Map, Value, json};

use crate::schema::{Block, Default, Key, Kind, U64, blocks};

/// The schema of a configuration file, as JSON Schema (draft 2020-12) with an end of line.
///
/// It knows every key with its type, range, words, default and meaning. What one key has to do with another, and the grammar
/// of strings, is known to `expressgateway check` alone.
pub fn render_json_schema() -> String {
    let all = blocks();
    let mut definitions: Map<String, Value> =
        all.iter().skip(1).map(|block| (block.path.to_owned(), object(block))).collect();
    // A number, a flag or a word may come from the environment (`"${NAME}"`).
    definitions.insert(ENVIRONMENT.to_owned(), json!({ "type": "string", "pattern": r"\$\{[A-Z_]" }));
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of ExpressGateway",
    });
    if let (Some(schema), Some(root)) = (schema.as_object_mut(), all.first()) {
        if let Value::Object(root) = object(root) {
            schema.extend(root);
        }
        schema.insert("$defs".to_owned(), Value::Object(definitions));
    }
    format!("{schema:#}\n")
}

/// The name of the definition of strings that hold a variable. No block has this name.
const ENVIRONMENT: &str = "environment";

fn object(block: &Block) -> Value {
    // A key without anything behind it is refused as an unknown one.
    let built = block.keys.iter().filter(|key| !matches!(key.kind, Kind::Later(_)));
    let properties: Map<String, Value> = built.map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> =
        block.keys.iter().filter(|key| key.default == Default::Required).map(|key| key.name).collect();
    json!({
        "type": "object",
        "description": block.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let mut value = of_kind(&key.kind);
    let Some(property) = value.as_object_mut() else { return value };
    if !key.doc.is_empty() {
        property.insert("description".to_owned(), key.doc.into());
    }
    let default: Option<Value> = match key.default {
        Default::Required | Default::Absent | Default::Described(_) => None,
        Default::Flag(flag) => Some(flag.into()),
        Default::Integer(number) => Some(number.into()),
        Default::Word(word) => Some(word.into()),
    };
    if let Some(default) = default {
        property.insert("default".to_owned(), default);
    }
    value
}

fn of_kind(kind: &Kind) -> Value {
    let reference = |path: &str| json!({ "$ref": format!("#/$defs/{path}") });
    let or_variable = |value: Value| json!({ "anyOf": [value, reference(ENVIRONMENT)] });
    match kind {
        Kind::Later(_) => Value::Bool(false),
        Kind::Flag => or_variable(json!({ "type": "boolean" })),
        Kind::Integer { min, max, zero, .. } => {
            let mut range = json!({ "type": "integer", "minimum": min });
            if let Some(range) = range.as_object_mut().filter(|_| *max != U64) {
                range.insert("maximum".to_owned(), (*max).into());
            }
            if *zero && *min > 1 {
                json!({ "anyOf": [{ "const": 0 }, range, reference(ENVIRONMENT)] })
            } else {
                or_variable(range_or_zero(range, *zero))
            }
        }
        Kind::Word { words, .. } => or_variable(json!({ "enum": spellings(words) })),
        Kind::Text(_) => json!({ "type": "string" }),
        Kind::Texts(_) => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Block(block) => reference(block.path),
        Kind::Blocks(block) => json!({ "type": "array", "items": reference(block.path) }),
        Kind::Named(block) => json!({ "type": "object", "additionalProperties": reference(block.path) }),
        Kind::NamedArrays(block) => {
            let arrays = json!({ "type": "array", "items": reference(block.path) });
            json!({ "type": "object", "additionalProperties": arrays })
        }
    }
}

/// A range that begins at 1 and allows 0 besides begins at 0.
fn range_or_zero(mut range: Value, zero: bool) -> Value {
    if let Some(range) = range.as_object_mut().filter(|_| zero) {
        range.insert("minimum".to_owned(), 0.into());
    }
    range
}

/// The words, and the booleans that the file may have in place of `"true"` and `"false"`.
fn spellings(words: &[&str]) -> Vec<Value> {
    let booleans = words.iter().filter_map(|word| word.parse::<bool>().ok());
    words.iter().map(|word| Value::from(*word)).chain(booleans.map(Value::from)).collect()
}
