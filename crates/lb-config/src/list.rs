//! A list of backends outside the configuration, as `[pools.NAME.discovery] file` names one.

mod json;

use std::path::Path;

use crate::config::Backend;
use crate::document::{self, Source, View};
use crate::error::{ConfigError, Errors};
use crate::read;
use crate::schema::LIST;

/// How a list is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListFormat {
    /// `[[backends]]` blocks.
    Toml,
    /// An array of objects.
    Json,
}

impl ListFormat {
    /// JSON when the name ends with `.json`, whatever stands in the file.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("json") => Self::Json,
            _ => Self::Toml,
        }
    }
}

/// Reads a list, whose entries have the keys of `[[pools.NAME.backends]]`. It may be empty. `file` is only a name for messages: nothing is
/// opened.
///
/// # Errors
/// Everything that is wrong with the text, up to a bound: unknown keys, wrong values, what this build cannot honour. With
/// its line in TOML; in JSON only with its path.
pub fn parse_backends(text: &str, file: &str, format: ListFormat) -> Result<Vec<Backend>, Errors> {
    match format {
        ListFormat::Toml => parse(text, file),
        ListFormat::Json => {
            let whole = |problem: String| {
                let file = file.to_owned();
                Errors::new(vec![ConfigError { file, line: None, path: None, value: None, problem }])
            };
            document::check_size(text).map_err(whole)?;
            let toml = json::to_toml(text).map_err(|problem| whole(format!("not JSON: {problem}")))?;
            parse(&format!("backends = {toml}"), file).map_err(Errors::without_lines)
        }
    }
}

fn parse(text: &str, file: &str) -> Result<Vec<Backend>, Errors> {
    let source = Source::new(text, file);
    let document = document::parse_as(&LIST, &source)?;
    read::backends(View::root(&document), &source)
}
