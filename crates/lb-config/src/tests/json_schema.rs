//! The JSON Schema says of files what the parser says, as far as it goes.

use serde_json::{Value, json};

use super::parse;
use crate::render_json_schema;

/// What of the schema language [`render_json_schema`] uses, applied to `value`; the first fault found.
fn fault(schema: &Value, root: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").expect("a reference to a definition");
        let inner = root["$defs"].get(name).unwrap_or_else(|| panic!("{name} is not defined"));
        return fault(inner, root, value, at);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let all: Option<Vec<_>> = choices.iter().map(|one| fault(one, root, value, at)).collect();
        return all.map(|faults| faults.join(" and "));
    }
    if let Some(constant) = schema.get("const") {
        return (constant != value).then(|| format!("{at}: not {constant}"));
    }
    if let Some(words) = schema["enum"].as_array() {
        return (!words.contains(value)).then(|| format!("{at}: {value} is none of {words:?}"));
    }
    let kind = schema["type"].as_str().expect("every other schema has a type");
    match (kind, value) {
        ("boolean", Value::Bool(_)) => None,
        ("string", Value::String(text)) => {
            let is_of_pattern = schema.get("pattern").is_none_or(|_| text.contains("${"));
            (!is_of_pattern).then(|| format!("{at}: {text} holds no variable"))
        }
        ("integer", Value::Number(number)) => {
            let number = number.as_u64()?;
            let fits = number >= schema["minimum"].as_u64()?
                && schema["maximum"].as_u64().is_none_or(|maximum| number <= maximum);
            (!fits).then(|| format!("{at}: {number} is out of range"))
        }
        ("array", Value::Array(items)) => {
            items.iter().find_map(|item| fault(&schema["items"], root, item, at))
        }
        ("object", Value::Object(entries)) => {
            let missing = schema["required"].as_array().into_iter().flatten();
            let missing = missing.filter_map(Value::as_str).find(|name| !entries.contains_key(*name));
            if let Some(missing) = missing {
                return Some(format!("{at}: {missing} is missing"));
            }
            entries.iter().find_map(|(name, entry)| {
                let at = format!("{at}.{name}");
                match (schema["properties"].get(name), &schema["additionalProperties"]) {
                    (Some(inner), _) => fault(inner, root, entry, &at),
                    (None, Value::Bool(false)) => Some(format!("{at}: unknown")),
                    (None, others) => fault(others, root, entry, &at),
                }
            })
        }
        _ => Some(format!("{at}: not of type {kind}")),
    }
}

fn fault_of(text: &str) -> Option<String> {
    let root: Value = serde_json::from_str(&render_json_schema()).unwrap();
    let value: Value = toml::from_str::<toml::Table>(text).map(|table| json!(table)).unwrap();
    fault(&root, &root, &value, "")
}

#[test]
fn whatever_the_parser_takes_the_schema_takes() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let mut files = vec![examples.join("default.toml")];
    files.extend(std::fs::read_dir(examples.join("examples")).unwrap().map(|entry| entry.unwrap().path()));
    let mut texts: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    texts.extend([include_str!("keys.toml"), include_str!("keys-routes.toml")].map(str::to_owned));
    for text in texts {
        parse(&text);
        assert_eq!(fault_of(&text), None, "{text}");
    }
}

#[test]
fn what_is_of_another_type_or_range_is_found() {
    let h1 = "[[listeners]]\naddress = \"127.0.0.1:80\"\nprotocol = \"h1\"\n";
    assert_eq!(fault_of(h1), None);
    assert_eq!(fault_of(&format!("{h1}drain_timeout_ms = \"${{DRAIN}}\"\n")), None);
    for (lines, wanted) in [
        ("protokol = \"h1\"", "protokol: unknown"),
        ("drain_timeout_ms = \"5\"", "not of type integer"),
        ("[listeners.http]\nheader_timeout_ms = 0", "out of range"),
        ("[listeners.backends]\naddress = \"1.2.3.4:1\"", "not of type array"),
        ("[[listeners.backends]]\nweight = 3", "address is missing"),
        ("[runtime]\nio_backend = \"maybe\"", "is none of"),
    ] {
        let text = format!("{h1}{lines}\n");
        let found = fault_of(&text).unwrap_or_else(|| panic!("no fault found in\n{text}"));
        assert!(found.contains(wanted), "{found} in\n{text}");
    }
}
