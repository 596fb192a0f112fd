//! Rows of the status as JSON text: what never changes of a row is written once, and what changes is appended.

use std::fmt::Write;

/// An object that is being written.
#[derive(Clone, Debug)]
pub(super) struct Object(String);

impl Object {
    /// An object without members.
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Goes on where a row was left that has not been ended.
    pub(super) fn after(begun: &Self, room: usize) -> Self {
        let mut text = String::with_capacity(begun.0.len().saturating_add(room));
        text.push_str(&begun.0);
        Self(text)
    }

    pub(super) fn text(mut self, name: &'static str, value: &str) -> Self {
        self.name(name);
        self.push_text(value);
        self
    }

    pub(super) fn texts<'a>(mut self, name: &'static str, values: impl IntoIterator<Item = &'a str>) -> Self {
        self.name(name);
        self.0.push('[');
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            self.push_text(value);
        }
        self.0.push(']');
        self
    }

    pub(super) fn number(mut self, name: &'static str, value: impl Into<i128>) -> Self {
        self.name(name);
        let _ = write!(self.0, "{}", value.into());
        self
    }

    pub(super) fn flag(mut self, name: &'static str, value: bool) -> Self {
        self.name(name);
        let _ = write!(self.0, "{value}");
        self
    }

    /// A number with three digits after its point, or null.
    pub(super) fn decimal(mut self, name: &'static str, value: Option<f64>) -> Self {
        self.name(name);
        match value.filter(|value| value.is_finite()) {
            Some(value) => {
                let _ = write!(self.0, "{value:.3}");
            }
            None => self.0.push_str("null"),
        }
        self
    }

    /// What is JSON already.
    pub(super) fn raw(mut self, name: &'static str, json: &str) -> Self {
        self.name(name);
        self.0.push_str(json);
        self
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn name(&mut self, name: &'static str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{name}\":");
    }

    /// Line feeds are escaped as all control characters are: a line of JSON stays one (RFC 8259 §7).
    fn push_text(&mut self, value: &str) {
        self.0.push_str(&serde_json::Value::from(value).to_string());
    }
}

/// A list of objects.
pub(super) fn list(objects: impl IntoIterator<Item = String>) -> String {
    let mut text = "[".to_owned();
    for object in objects {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&object);
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_json_whatever_the_texts_are() {
        let begun = Object::new().text("name", "a\"</script>\n\u{2028}").texts("of", ["x", "\\"]);
        let row = Object::after(&begun, 100)
            .number("n", 7_u64)
            .flag("f", true)
            .decimal("d", Some(1.23456))
            .decimal("none", None)
            .decimal("nan", Some(f64::NAN))
            .raw("r", "[]")
            .end();
        assert!(!row.contains('\n'));
        let value: serde_json::Value =
            serde_json::from_str(&list([row.clone(), Object::new().end()])).unwrap();
        let expected = serde_json::json!([
            { "name": "a\"</script>\n\u{2028}", "of": ["x", "\\"], "n": 7, "f": true, "d": 1.235, "none": null, "nan": null, "r": [] },
            {}
        ]);
        assert_eq!(value, expected);
    }
}
