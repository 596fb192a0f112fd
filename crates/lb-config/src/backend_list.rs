//! A list of backends that stands outside the configuration: the file that a pool is discovered by, or a request to the admin port.
//!
//! TOML is `[[backends]]` with the keys of `[[pools.NAME.backends]]`; JSON is an array of objects with the same keys, or an object with
//! that array under `backends`. Both go through the same checks.

use std::fmt::Write;

use serde_json::Value;

use crate::config::{Backend, Protocol};
use crate::document::{self, Source, View};
use crate::error::Errors;
use crate::read;
use crate::schema::BACKEND_LIST;

/// Backends of one list; a hostile one cannot make a pool grow without bound (attack C-03).
pub const MAX_LISTED_BACKENDS: usize = 1024;

impl Backend {
    /// Reads and checks a list, TOML or JSON. `file` is only a name for messages; `protocols` are what clients speak in front of the
    /// backends. A backend that is listed twice, or more than [`MAX_LISTED_BACKENDS`], is an error: no list is better than half a one.
    ///
    /// # Errors
    /// Everything that is wrong with the text, up to a bound.
    pub fn parse_list(text: &str, file: &str, protocols: &[Protocol]) -> Result<Vec<Self>, Errors> {
        let toml = match serde_json::from_str(text) {
            Ok(json) => Some(from_json(&json).map_err(|problem| error(file, problem))?),
            Err(problem) if text.trim_start().starts_with('{') => {
                return Err(error(file, format!("not JSON: {problem}")));
            }
            Err(_) => None,
        };
        let source = Source::new(toml.as_deref().unwrap_or(text), file);
        let document = document::parse(&source, &BACKEND_LIST)?;
        let backends = read::backends(View::root(&document), protocols, &source)?;
        if backends.len() > MAX_LISTED_BACKENDS {
            let problem = format!("{} backends: must be at most {MAX_LISTED_BACKENDS}", backends.len());
            return Err(error(file, problem));
        }
        Ok(backends)
    }
}

fn error(file: &str, problem: String) -> Errors {
    Errors::new(vec![Source::new("", file).file_error(None, problem)])
}

/// The same list as TOML, for the one reader. A backend stands on the line that its position says.
fn from_json(json: &Value) -> Result<String, String> {
    let list = match json {
        Value::Array(list) => list,
        Value::Object(object) => match (object.get("backends"), object.len()) {
            (Some(Value::Array(list)), 1) => list,
            _ => return Err("must be an object with one key, `backends`, an array of objects".to_owned()),
        },
        _ => return Err("must be an array of objects".to_owned()),
    };
    let mut toml = String::from("backends = [");
    for backend in list {
        let Value::Object(backend) = backend else { return Err("must be an array of objects".to_owned()) };
        toml.push('{');
        for (at, (key, value)) in backend.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let value = match value {
                Value::String(text) => quoted(text),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                _ => return Err(format!("{}: must be a text, a number or a boolean", quoted(key))),
            };
            // Writing to a string does not fail.
            let _ = write!(toml, "{comma}{} = {value}", quoted(key));
        }
        toml.push_str("},\n");
    }
    toml.push(']');
    Ok(toml)
}

/// A text as TOML writes it: what JSON escapes, TOML reads the same way, but DEL needs an escape there too.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, u32, u32)>, String> {
        let backends = Backend::parse_list(text, "list", &[Protocol::H1]).map_err(|errors| errors.to_string())?;
        Ok(backends.into_iter().map(|backend| (backend.name, backend.weight, backend.priority)).collect())
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let expected = vec![("10.0.0.1:80".to_owned(), 2, 0), ("app.test:80".to_owned(), 1, 3)];
        let toml = "[[backends]]\naddress = \"10.0.0.1:80\"\nweight = 2\n[[backends]]\naddress = \"app.test:80\"\npriority = 3\n";
        let array = r#"[{"address": "10.0.0.1:80", "weight": 2}, {"address": "app.test:80", "priority": 3}]"#;
        let object = format!("{{\"backends\": {array}}}");
        for text in [toml, array, &object] {
            assert_eq!(read(text), Ok(expected.clone()), "{text}");
        }
        for text in ["[]", "backends = []", "{\"backends\": []}"] {
            assert_eq!(read(text), Ok(Vec::new()), "{text}");
        }
    }

    #[test]
    fn half_a_list_is_none() {
        for (text, problem) in [
            ("", "missing: a list without backends says"),
            ("{\"backends\": [", "not JSON"),
            ("{\"backends\": [], \"more\": 1}", "one key"),
            ("7", "array of objects"),
            ("[7]", "array of objects"),
            ("[{\"address\": [1]}]", "must be a text"),
            ("[{\"address\": \"10.0.0.1:80\"}, {}]", "backends[1].address: missing"),
            ("[{\"address\": \"10.0.0.1:80\", \"wieght\": 1}]", "wieght"),
            ("[{\"address\": \"10.0.0.1:80\", \"weight\": -1}]", "weight"),
            ("[{\"address\": \"10.0.0.1:80\", \"weight\": 1.5}]", "weight"),
            ("[{\"address\": \"10.0.0.1:80\"}, {\"address\": \"10.0.0.1:80\"}]", "in the list already"),
            ("[{\"address\": \"10.0.0.1:80\", \"protocol\": \"h3\", \"tls_verify_peer\": false}]", "not built yet"),
            ("[{\"address\": \"a\u{7f}\\\"\\nb:80\"}]", "address"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(problem), "{text}: {error}");
        }
        let many: Vec<_> = (0..=MAX_LISTED_BACKENDS).map(|port| format!("{{\"address\": \"10.0.0.1:{}\"}}", port + 1)).collect();
        assert!(read(&format!("[{}]", many.join(","))).expect_err("too many").contains("at most 1024"));
    }
}
