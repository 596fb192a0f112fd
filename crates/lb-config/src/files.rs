//! The text of a configuration: that of one file, and of those that it includes.

use toml::de::{DeTable, DeValue};

/// The text of a configuration with the names of the files that it is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigText {
    pub(crate) text: String,
    /// The files in their order, each with where it begins.
    pub(crate) files: Vec<(String, usize)>,
}

impl ConfigText {
    /// The text of the file that the command line names. `file` is what messages call it.
    pub fn new(text: String, file: String) -> Self {
        Self { text, files: vec![(file, 0)] }
    }

    /// Adds the text of an included file.
    pub fn push(&mut self, text: &str, file: String) {
        // A line of one file never goes on in the next.
        self.text.push('\n');
        self.files.push((file, self.text.len()));
        self.text.push_str(text);
    }

    /// The files in their order, each with its name and its text.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let ends = self.files.iter().skip(1).map(|(_, start)| start.saturating_sub(1));
        let ends = ends.chain([self.text.len()]);
        let files = self.files.iter().zip(ends);
        files.map(|((name, start), end)| (name.as_str(), self.text.get(*start..end).unwrap_or_default()))
    }

    /// How many bytes all files have.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether there is not one byte.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// What stands under `include` in the first file, as far as it is well-formed. What else there is, [`Config::parse_files`](crate::Config::parse_files) tells.
    pub fn includes(&self) -> Vec<String> {
        let end = self.files.get(1).map_or(self.text.len(), |(_, start)| *start);
        let first = self.text.get(..end).unwrap_or_default();
        let Ok(table) = DeTable::parse(first) else { return Vec::new() };
        let patterns = match table.get_ref().get("include").map(|value| value.get_ref()) {
            Some(DeValue::Array(patterns)) => patterns.iter(),
            _ => return Vec::new(),
        };
        let text = |value: &DeValue<'_>| match value {
            DeValue::String(text) => Some(text.trim().to_owned()),
            _ => None,
        };
        patterns.filter_map(|pattern| text(pattern.get_ref())).filter(|text| !text.is_empty()).collect()
    }
}
