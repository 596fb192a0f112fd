//! Where a byte of a text stands that is no TOML: the table headers above it, and the key on its line.

use std::collections::HashMap;

use super::source::{join, shorten};

/// The path of the key or the table at `at`, such as `listeners[1].http.retries`; empty at the top level.
pub(super) fn path_at(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let begins = before.rfind('\n').map_or(0, |newline| newline + 1);
    let (above, rest) = text.split_at_checked(begins).unwrap_or((text, ""));
    let mut elements = HashMap::new();
    let mut table = String::new();
    for line in above.lines().chain(rest.lines().next()) {
        if let Some(header) = header(line) {
            table = open(&header, &mut elements);
        }
    }
    let line = rest.lines().next().unwrap_or_default();
    match line.split_once('=') {
        Some((key, _)) if !line.trim_start().starts_with(['[', '#']) => join(&table, &shorten(key.trim())),
        _ => table,
    }
}

/// A table header, and whether it opens an element of an array.
struct Header<'a> {
    names: Vec<&'a str>,
    is_element: bool,
}

fn header(line: &str) -> Option<Header<'_>> {
    let inside = line.trim_start().strip_prefix('[')?;
    let (inside, is_element) = inside.strip_prefix('[').map_or((inside, false), |inside| (inside, true));
    let names: Vec<_> = inside.split(']').next()?.split('.').map(str::trim).collect();
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'"');
    names
        .iter()
        .all(|name| !name.is_empty() && name.bytes().all(bare))
        .then_some(Header { names, is_element })
}

/// The path of the table that a header opens. `elements` counts those of each array.
fn open(header: &Header<'_>, elements: &mut HashMap<String, usize>) -> String {
    let mut path = String::new();
    for (index, name) in header.names.iter().enumerate() {
        path = join(&path, name);
        let is_last = index + 1 == header.names.len();
        if is_last && header.is_element {
            *elements.entry(path.clone()).or_default() += 1;
        }
        if let Some(count) = elements.get(&path) {
            path = format!("{path}[{}]", count.saturating_sub(1));
        }
    }
    shorten(&path)
}

#[cfg(test)]
mod tests {
    use super::path_at;

    #[test]
    fn a_place_is_named_by_table_and_key() {
        let text = "top = 1\n[[listeners]]\naddress = 1 # [x]\n[listeners.http]\nretries = 1\n[[listeners]]\n\
                    [[listeners.backends]]\n[[listeners.backends]]\nweight = \n[ pools . a ]\nb\n";
        let path = |needle: &str| path_at(text, text.find(needle).unwrap());
        assert_eq!(path("1\n[[listeners]]"), "top");
        assert_eq!(path("1 # [x]"), "listeners[0].address");
        assert_eq!(path("1\n[[listeners]]\n[["), "listeners[0].http.retries");
        assert_eq!(path("\n[ pools"), "listeners[1].backends[1].weight");
        assert_eq!(path_at(text, text.len() - 1), "pools.a");
        assert_eq!(path_at(text, text.len() + 7), "pools.a");
        assert_eq!(path_at("", 0), "");
    }
}
