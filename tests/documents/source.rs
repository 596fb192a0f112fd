//! The string literals of the sources, with the level of those that are messages of log lines.

use std::path::Path;

/// A string literal outside tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Literal {
    /// The text, escapes resolved.
    pub(crate) text: String,
    /// The level, where it is the message of `error!`, `warn!`, `info!`, `debug!` or `trace!`.
    pub(crate) level: Option<&'static str>,
}

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Those of every crate.
pub(crate) fn literals() -> Vec<Literal> {
    let mut found = Vec::new();
    let crates = std::fs::read_dir(crate::repository("crates")).unwrap();
    for each in crates {
        read_directory(&each.unwrap().path().join("src"), &mut found);
    }
    found
}

fn read_directory(directory: &Path, into: &mut Vec<Literal>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "tests" {
                read_directory(&path, into);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            scan(&std::fs::read_to_string(&path).unwrap(), into);
        }
    }
}

/// Collects the literals of one file up to its tests, which stand at its end.
fn scan(text: &str, into: &mut Vec<Literal>) {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut rest = text;
    // The level and the depth of each log macro that is open, and the depth of parentheses.
    let mut open: Vec<(&'static str, usize)> = Vec::new();
    let mut depth = 0;
    let mut before = ' ';
    let mut in_word = false;
    while let Some(first) = rest.chars().next() {
        let mut next = first.len_utf8();
        if rest.starts_with("//") {
            next = rest.find('\n').unwrap_or(rest.len());
        } else if let Some(length) = raw_string(rest, in_word) {
            let hashes = rest.find('"').unwrap_or_default() - 1;
            into.push(Literal {
                text: rest[hashes + 2..length - hashes - 1].to_owned(),
                level: level_of(&open, depth, before),
            });
            next = length;
            before = '"';
        } else if first == '"' {
            let (text, length) = string(rest);
            into.push(Literal { text, level: level_of(&open, depth, before) });
            next = length;
            before = '"';
        } else if first == '\'' {
            next = character(rest);
        } else if let Some((level, length)) = log_macro(rest).filter(|_| !in_word) {
            depth += 1;
            open.push((level, depth));
            next = length;
            before = '(';
        } else {
            match first {
                '(' => depth += 1,
                ')' => {
                    open.retain(|(_, at)| *at != depth);
                    depth = depth.saturating_sub(1);
                }
                _ => {}
            }
            if !first.is_whitespace() {
                before = first;
            }
        }
        in_word = first.is_alphanumeric() || first == '_';
        rest = &rest[next..];
    }
}

/// A literal is the message where it is an argument of its own, and not the value of a field.
fn level_of(open: &[(&'static str, usize)], depth: usize, before: char) -> Option<&'static str> {
    let (level, at) = open.last()?;
    (*at == depth && matches!(before, '(' | ',')).then_some(level)
}

fn log_macro(rest: &str) -> Option<(&'static str, usize)> {
    LEVELS.iter().find_map(|level| {
        let after = rest.strip_prefix(level)?.strip_prefix("!(")?;
        Some((*level, rest.len() - after.len()))
    })
}

/// The length of a raw string at the beginning.
fn raw_string(rest: &str, in_word: bool) -> Option<usize> {
    let body = rest.strip_prefix('r').filter(|_| !in_word)?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let body = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).unwrap_or(body.len());
    Some(1 + hashes + 1 + length + end.len())
}

fn string(rest: &str) -> (String, usize) {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (text, at + 1),
            '\\' => match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => text.push('\n'),
                Some('\n') => while characters.next_if(|(_, blank)| blank.is_whitespace()).is_some() {},
                Some(other) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    (text, rest.len())
}

/// The length of a character literal at the beginning, or of the tick of a lifetime.
fn character(rest: &str) -> usize {
    let mut characters = rest.chars().skip(1);
    match (characters.next(), characters.next()) {
        (Some('\\'), Some(escaped)) => {
            let ends = rest[2 + escaped.len_utf8()..].find('\'').unwrap_or_default();
            2 + escaped.len_utf8() + ends + 1
        }
        (Some(only), Some('\'')) => 2 + only.len_utf8(),
        _ => 1,
    }
}

#[test]
fn literals_are_found_with_their_levels() {
    let text = r###"
        // tracing::warn!("in a comment")
        fn f<'a>(quote: char) -> &'a str { if quote == '"' || quote == '\'' || quote == '\u{22}' { "plain" } else { r#"raw "one""# } }
        tracing::warn!(kind = "field", %error, of = name("inner"), "one — {} \
                        two", "argument");
        debug!("short");
        #[cfg(test)]
mod tests {
        tracing::info!("in a test");
    "###;
    let mut found = Vec::new();
    scan(text, &mut found);
    let found: Vec<_> = found.iter().map(|literal| (literal.text.as_str(), literal.level)).collect();
    let expected = [
        ("plain", None),
        (r#"raw "one""#, None),
        ("field", None),
        ("inner", None),
        ("one — {} two", Some("warn")),
        ("argument", Some("warn")),
        ("short", Some("debug")),
    ];
    assert_eq!(found, expected);
}
