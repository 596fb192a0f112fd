//! JSON as the TOML of the same value, so that one parser checks both.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The TOML of a JSON value. A key that stands twice stands twice in it too, and is refused there.
///
/// # Errors
/// What is wrong with the JSON, with line and column.
pub(super) fn to_toml(text: &str) -> Result<String, String> {
    serde_json::from_str(text).map(|Toml(toml)| toml).map_err(|error| error.to_string())
}

struct Toml(String);

impl<'de> Deserialize<'de> for Toml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Writer)
    }
}

struct Writer;

impl<'de> Visitor<'de> for Writer {
    type Value = Toml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything but null")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Toml, E> {
        Ok(Toml(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Toml, E> {
        Ok(Toml(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Toml, E> {
        Ok(Toml(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Toml, E> {
        Ok(Toml(format!("{value:?}")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Toml, E> {
        Ok(Toml(quoted(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Toml, A::Error> {
        let mut elements = Vec::new();
        while let Some(Toml(value)) = values.next_element()? {
            elements.push(value);
        }
        Ok(Toml(format!("[{}]", elements.join(", "))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Toml, A::Error> {
        let mut pairs = Vec::new();
        while let Some((key, Toml(value))) = entries.next_entry::<String, Toml>()? {
            pairs.push(format!("{} = {value}", quoted(&key)));
        }
        Ok(Toml(format!("{{{}}}", pairs.join(", "))))
    }
}

/// A basic string, with an escape for every character that could end it or is a control character.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if c.is_control() || matches!(c, '"' | '\\') {
            quoted.push_str(&format!("\\U{:08X}", u32::from(c)));
        } else {
            quoted.push(c);
        }
    }
    quoted.push('"');
    quoted
}
