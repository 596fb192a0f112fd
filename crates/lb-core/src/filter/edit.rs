//! Edits of header fields: some go, some are set, some are added, in this order.

use super::template::{Template, TemplateSource, TemplateVariable};
use crate::head::Fields;

/// A field line whose value may hold values of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeaderLine {
    /// The name, as it is written.
    pub name: Box<[u8]>,
    /// The value.
    pub value: Template,
}

/// Edits of the fields of a head.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    /// Names whose lines go: of fields that are removed or set.
    dropped: Vec<Box<[u8]>>,
    removed: usize,
    /// What is set, then what is added.
    lines: Vec<HeaderLine>,
    set: usize,
    /// All lines in a row, where none has a value in it.
    constant: Option<Box<Fields>>,
}

impl PartialEq for HeaderEdits {
    fn eq(&self, other: &Self) -> bool {
        let parts = |edits: &Self| (edits.removed, edits.set);
        self.dropped == other.dropped && self.lines == other.lines && parts(self) == parts(other)
    }
}

impl HeaderEdits {
    /// Fields to `remove`, then to `set` in place of others of their names, then to `add` to them.
    pub fn new(remove: Vec<Box<[u8]>>, set: Vec<HeaderLine>, add: Vec<HeaderLine>) -> Self {
        let (removed, set_count) = (remove.len(), set.len());
        let names = set.iter().map(|line| line.name.clone());
        let dropped = remove.into_iter().chain(names).collect();
        let mut edits = Self { dropped, removed, lines: set, set: set_count, constant: None };
        edits.lines.extend(add);
        edits.lay_out();
        edits
    }

    fn lay_out(&mut self) {
        let mut fields = Fields::default();
        for line in &self.lines {
            let Some(value) = line.value.as_constant() else { return };
            if !value.iter().any(|byte| is_control(*byte)) {
                fields.push(&line.name, value.trim_ascii());
            }
        }
        fields.shrink_to_fit();
        self.constant = Some(Box::new(fields));
    }

    /// The lines that are set or added.
    pub fn lines(&self) -> &[HeaderLine] {
        &self.lines
    }

    /// The names of all fields that go, are set or are added.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.dropped
            .iter()
            .take(self.removed)
            .map(|name| &**name)
            .chain(self.lines.iter().map(|line| &*line.name))
    }

    /// Whether some value comes from the request.
    pub fn needs_request(&self) -> bool {
        let mut variables = self.lines.iter().flat_map(|line| line.value.variables());
        variables.any(|variable| *variable != TemplateVariable::Status)
    }

    /// The edits with all values in place but the status of the response, which comes later.
    #[must_use]
    pub fn bound(&self, source: &impl TemplateSource) -> Self {
        let bind =
            |line: &HeaderLine| HeaderLine { name: line.name.clone(), value: line.value.bound(source) };
        Self { lines: self.lines.iter().map(bind).collect(), constant: None, ..self.clone() }
    }

    /// The lines with their values, before anything of the head has changed. Where no line has a value in it, there is nothing to render.
    pub fn render(&self, source: &impl TemplateSource) -> RenderedEdits {
        let mut rendered = RenderedEdits::default();
        if self.constant.is_some() {
            return rendered;
        }
        for line in &self.lines {
            line.value.render(source, &mut rendered.text);
            rendered.ends.push(rendered.text.len());
        }
        rendered
    }

    /// Edits the fields of a head. A name with `_` in place of `-` goes like the name itself, since many backends read them as one. A line
    /// whose value came out with control characters is left out (attacks ).
    pub fn apply(&self, rendered: &RenderedEdits, fields: &mut Fields) {
        if !self.dropped.is_empty() {
            fields.remove_like(&self.dropped);
        }
        if let Some(constant) = &self.constant {
            fields.append(constant);
            return;
        }
        let mut start = 0;
        for (line, end) in self.lines.iter().zip(&rendered.ends) {
            let value = rendered.text.get(start..*end).unwrap_or_default();
            start = *end;
            if !value.iter().any(|byte| is_control(*byte)) {
                fields.push(&line.name, value.trim_ascii());
            }
        }
    }
}

fn is_control(byte: u8) -> bool {
    byte != b'\t' && byte.is_ascii_control()
}

/// The values of edits for one message.
#[derive(Debug, Default)]
pub struct RenderedEdits {
    text: Vec<u8>,
    /// Where the value of each line ends.
    ends: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, value: &str) -> HeaderLine {
        HeaderLine { name: name.as_bytes().into(), value: Template::parse(value).unwrap() }
    }

    struct Value(&'static [u8]);

    impl TemplateSource for Value {
        fn value(&self, _variable: &TemplateVariable, out: &mut Vec<u8>) {
            out.extend_from_slice(self.0);
        }
    }

    fn edited(edits: &HeaderEdits, source: &impl TemplateSource, lines: &[(&str, &str)]) -> Vec<String> {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let rendered = edits.render(source);
        edits.apply(&rendered, &mut fields);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|field| format!("{}: {}", text(field.name), text(field.value))).collect()
    }

    #[test]
    fn x_01_to_x_05_fields_are_removed_then_set_then_added() {
        let edits = HeaderEdits::new(
            vec![b"X-Gone".as_slice().into()],
            vec![line("X-Set", "new")],
            vec![line("X-Add", "more"), line("x-set", "too")],
        );
        let before = [("x-GONE", "1"), ("X-Set", "old"), ("X-SET", "old"), ("X-Add", "one"), ("A", "b")];
        let after = ["X-Add: one", "A: b", "X-Set: new", "X-Add: more", "x-set: too"];
        assert_eq!(edited(&edits, &(), &before), after);
        assert!(edits.constant.is_some() && !edits.needs_request());
    }

    #[test]
    fn r_11_a_name_with_underscores_is_another_spelling() {
        let edits = HeaderEdits::new(Vec::new(), vec![line("X-User-Id", "me")], Vec::new());
        let before = [("x_user_id", "forged"), ("X-User_Id", "forged"), ("X-User-Id2", "other")];
        assert_eq!(edited(&edits, &(), &before), ["X-User-Id2: other", "X-User-Id: me"]);
    }

    #[test]
    fn r_26_a_value_with_control_characters_leaves_its_field_out() {
        let edits = HeaderEdits::new(
            Vec::new(),
            vec![line("X-A", "a${path}"), line("X-B", "b")],
            vec![line("X-C", "${status}")],
        );
        for evil in [&b"\r\nX-Evil: 1"[..], b"\n", b"\0", b"\x7f", b"\x1b"] {
            assert_eq!(edited(&edits, &Value(evil), &[("X-A", "forged")]), ["X-B: b"], "{evil:?}");
        }
        assert_eq!(edited(&edits, &Value(b" c\td "), &[]), ["X-A: a c\td", "X-B: b", "X-C: c\td"]);
        let bound = edits.bound(&Value(b"v"));
        assert_eq!(edited(&bound, &204_u16, &[]), ["X-A: av", "X-B: b", "X-C: 204"]);
    }
}
