//! A block of field lines as spans into one buffer.

use super::{FieldName, FieldNames};

/// A range of bytes in the text of a [`Fields`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span `start..end`. Heads are capped far below 4 GiB, so that saturation never happens in practice
    /// and yields an empty slice, not a wrong one, if it does.
    #[inline]
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end).unwrap_or(u32::MAX) }
    }

    /// Whether the span holds no byte.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Where the name stands.
    pub name: Span,
    /// Where the value stands, without surrounding white space.
    pub value: Span,
    /// What the name means to a proxy.
    pub known: FieldName,
    /// A dropped field stays in the text and is not forwarded.
    pub dropped: bool,
}

/// A field line with its text.
#[derive(Clone, Copy, Debug)]
pub struct FieldRef<'a> {
    /// The name as sent.
    pub name: &'a [u8],
    /// The value without surrounding white space; any byte but CR, LF and NUL.
    pub value: &'a [u8],
    /// What the name means to a proxy.
    pub known: FieldName,
}

/// Field lines in order, over one text buffer that may also hold a start line.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    lines: Vec<Field>,
    /// Names of all lines, dropped ones included: most questions are about a name that is not there.
    names: FieldNames,
}

impl Fields {
    /// Empties the block and keeps its allocations.
    pub fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
        self.names = FieldNames::default();
    }

    /// Gives back the memory that the lines do not need.
    pub fn shrink_to_fit(&mut self) {
        self.text.shrink_to_fit();
        self.lines.shrink_to_fit();
    }

    /// Whether a line has, or had before it was dropped, one of these names.
    #[inline]
    pub fn may_have(&self, names: FieldNames) -> bool {
        self.names.meets(names)
    }

    /// Bytes of memory held by the text, for pools that refuse to keep large ones.
    pub fn text_capacity(&self) -> usize {
        self.text.capacity()
    }

    /// The whole text that spans refer to.
    #[inline]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Appends raw bytes, such as a head as it stood on the wire, and returns where they begin.
    pub fn append_text(&mut self, bytes: &[u8]) -> usize {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        start
    }

    /// Adds a field line whose name and value already stand in the text.
    #[inline]
    pub fn add_span(&mut self, name: Span, value: Span) -> FieldName {
        let known = FieldName::of(self.slice(name));
        self.add_line(name, value, known);
        known
    }

    #[inline]
    fn add_line(&mut self, name: Span, value: Span, known: FieldName) {
        self.names.insert(known);
        self.lines.push(Field { name, value, known, dropped: false });
    }

    /// Adds all lines of another block, dropped ones included.
    pub fn append(&mut self, other: &Self) {
        let offset = u32::try_from(self.append_text(&other.text)).unwrap_or(u32::MAX);
        let moved = |span: Span| Span {
            start: span.start.saturating_add(offset),
            end: span.end.saturating_add(offset),
        };
        self.lines.extend(other.lines.iter().map(|line| Field {
            name: moved(line.name),
            value: moved(line.value),
            ..*line
        }));
        self.names.extend(other.names);
    }

    /// Adds a field line. It is laid out as HTTP/1.1 would write it, so that lines added in a row are copied in one run.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_joined(name, &[value]);
    }

    /// Adds a field line whose name was recognised already.
    #[inline]
    pub fn push_known(&mut self, known: FieldName, name: &[u8], value: &[u8]) {
        self.text.reserve(name.len().saturating_add(value.len()).saturating_add(4));
        let name_start = self.append_text(name);
        let name_end = self.append_text(b": ");
        let value_start = self.append_text(value);
        let value_end = self.append_text(b"\r\n");
        self.add_line(Span::new(name_start, name_end), Span::new(value_start, value_end), known);
    }

    /// Adds a field line whose value is several parts in a row.
    pub fn push_joined(&mut self, name: &[u8], parts: &[&[u8]]) {
        let name_start = self.append_text(name);
        let name_end = self.append_text(b": ");
        let value_start = self.text.len();
        for part in parts {
            self.text.extend_from_slice(part);
        }
        let value_end = self.append_text(b"\r\n");
        self.add_span(Span::new(name_start, name_end), Span::new(value_start, value_end));
    }

    /// Adds a field line whose value is a copy of text that stands here already.
    pub fn push_copy(&mut self, name: &[u8], value: Span) {
        let range = value.start as usize..value.end as usize;
        if self.text.get(range.clone()).is_none() {
            return;
        }
        let name_start = self.append_text(name);
        let name_end = self.append_text(b": ");
        let value_start = self.text.len();
        self.text.extend_from_within(range);
        let value_end = self.append_text(b"\r\n");
        self.add_span(Span::new(name_start, name_end), Span::new(value_start, value_end));
    }

    /// The bytes of a span; empty when it lies outside.
    #[inline]
    pub fn slice(&self, span: Span) -> &[u8] {
        self.text.get(span.start as usize..span.end as usize).unwrap_or(&[])
    }

    /// All lines, dropped ones included.
    #[inline]
    pub fn lines(&self) -> &[Field] {
        &self.lines
    }

    /// All lines for marking.
    #[inline]
    pub fn lines_mut(&mut self) -> &mut [Field] {
        &mut self.lines
    }

    /// The lines that are not dropped, with their text.
    pub fn iter(&self) -> impl Iterator<Item = FieldRef<'_>> {
        self.lines.iter().filter(|line| !line.dropped).map(|line| FieldRef {
            name: self.slice(line.name),
            value: self.slice(line.value),
            known: line.known,
        })
    }

    /// Values of the lines of a known name that are not dropped.
    pub fn values(&self, known: FieldName) -> impl Iterator<Item = &[u8]> {
        let lines = if self.names.has(known) { self.lines.as_slice() } else { &[] };
        lines.iter().filter(move |line| line.known == known && !line.dropped).map(|l| self.slice(l.value))
    }

    /// The first value of a field by name, in any letter case.
    pub fn value_of(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Writes other bytes over the value of the first line of a known name, from its byte `at` on, as far as the value goes.
    pub fn overwrite(&mut self, known: FieldName, at: usize, bytes: &[u8]) {
        let line = self.lines.iter().find(|line| line.known == known && !line.dropped);
        let Some(value) = line.map(|line| line.value) else { return };
        let value = self.text.get_mut(value.start as usize..value.end as usize).unwrap_or_default();
        for (slot, byte) in value.iter_mut().skip(at).zip(bytes) {
            *slot = *byte;
        }
    }

    /// Drops every line of a known name.
    pub fn remove(&mut self, known: FieldName) {
        if !self.names.has(known) {
            return;
        }
        for line in self.lines.iter_mut().filter(|line| line.known == known) {
            line.dropped = true;
        }
    }

    /// Drops every line of a name, in any letter case.
    pub fn remove_named(&mut self, name: &[u8]) {
        let Self { text, lines, .. } = self;
        for line in lines {
            let own = text.get(line.name.start as usize..line.name.end as usize);
            line.dropped |= own.is_some_and(|own| own.eq_ignore_ascii_case(name));
        }
    }

    /// Drops every line whose name is, or may be read as, one of `names`: letter case does not count, and many read `_` as `-`.
    pub fn remove_like(&mut self, names: &[Box<[u8]>]) {
        self.remove_where(|own| names.iter().any(|name| super::reads_as(own, name)));
    }

    /// Drops every line of whose name this is true.
    pub fn remove_where(&mut self, mut is_meant: impl FnMut(&[u8]) -> bool) {
        let Self { text, lines, .. } = self;
        for line in lines.iter_mut().filter(|line| !line.dropped) {
            let own = text.get(line.name.start as usize..line.name.end as usize).unwrap_or(&[]);
            line.dropped = is_meant(own);
        }
    }

    /// Whether nothing would be forwarded.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.dropped)
    }

    /// Drops the fields of one hop: those of RFC 9110 §7.6.1 and those that `Connection` names, except fields that
    /// decide framing or authority (attack H1-09).
    pub fn drop_hop_by_hop(&mut self) {
        if !self.names.meets(FieldNames::HOP_BY_HOP) {
            return;
        }
        let Self { text, lines, .. } = self;
        let mut named = false;
        for line in lines.iter_mut() {
            if line.known.is_hop_by_hop() {
                line.dropped = true;
                named |= line.known == FieldName::Connection;
            }
        }
        if named {
            drop_named(text, lines);
        }
    }
}

/// Drops the fields that a `Connection` field names.
fn drop_named(text: &[u8], lines: &mut [Field]) {
    let slice = |span: Span| text.get(span.start as usize..span.end as usize).unwrap_or(&[]);
    for at in 0..lines.len() {
        let Some(line) = lines.get(at).filter(|line| line.known == FieldName::Connection) else { continue };
        for option in slice(line.value).split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            // The two options of every connection never name a field that passes.
            if option.is_empty()
                || option.eq_ignore_ascii_case(b"close")
                || option.eq_ignore_ascii_case(b"keep-alive")
            {
                continue;
            }
            for other in lines.iter_mut() {
                if !other.known.is_protected() && slice(other.name).eq_ignore_ascii_case(option) {
                    other.dropped = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|f| String::from_utf8_lossy(f.name).into_owned()).collect()
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_by_connection_are_dropped() {
        let mut fields = block(&[
            ("Host", "a"),
            ("Connection", "keep-alive, X-Private"),
            ("X-Private", "1"),
            ("Keep-Alive", "timeout=5"),
            ("X-Public", "2"),
            ("TE", "trailers"),
            ("Proxy-Authorization", "x"),
        ]);
        fields.drop_hop_by_hop();
        assert_eq!(names(&fields), ["Host", "X-Public"]);
    }

    #[test]
    fn h1_09_connection_never_drops_framing_or_authority() {
        let mut fields = block(&[
            ("Connection", "host, content-length, cookie"),
            ("Host", "a"),
            ("Content-Length", "3"),
            ("Cookie", "c"),
        ]);
        fields.drop_hop_by_hop();
        assert_eq!(names(&fields), ["Host", "Content-Length"]);
    }

    #[test]
    fn a_value_is_overwritten_within_its_bounds() {
        let mut fields = block(&[("Te", "xyz"), ("Via", "ab"), ("Host", "abcd"), ("A", "b")]);
        fields.remove(FieldName::Via);
        fields.overwrite(FieldName::Host, 2, b"123456");
        fields.overwrite(FieldName::Via, 0, b"zz");
        fields.overwrite(FieldName::Cookie, 0, b"zz");
        let values: Vec<&[u8]> = fields.iter().map(|field| field.value).collect();
        assert_eq!(values, [b"xyz".as_slice(), b"ab12", b"b"]);
        assert!(fields.text().windows(2).all(|pair| pair != b"zz"));
    }

    #[test]
    fn spans_outside_the_text_are_empty() {
        assert_eq!(Fields::default().slice(Span { start: 3, end: 9 }), b"");
    }
}
