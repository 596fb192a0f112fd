//! Sections and lines of an HAProxy configuration.

use std::sync::Arc;

use super::super::ledger::{DirectiveId, Ledger};

/// A line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) words: Vec<String>,
    pub(super) id: DirectiveId,
}

impl Line {
    /// The word at a position; empty where there is none.
    pub(super) fn word(&self, at: usize) -> &str {
        self.words.get(at).map(String::as_str).unwrap_or_default()
    }
}

/// A section.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) id: DirectiveId,
    pub(super) lines: Vec<Line>,
}

const KINDS: &[&str] = &[
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "userlist",
    "resolvers",
    "mailers",
    "ring",
    "cache",
    "program",
    "http-errors",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "traces",
];

/// How many lines are read.
const MOST_LINES: usize = 200_000;

/// Reads a file.
pub(super) fn read(name: &str, text: &str, ledger: &mut Ledger) -> Result<Vec<Section>, String> {
    let file: Arc<str> = Arc::from(name);
    let mut sections: Vec<Section> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words = words(line).map_err(|problem| format!("{name}:{number}: {problem}"))?;
        let Some(first) = words.first() else { continue };
        if number > MOST_LINES {
            return Err(format!("{name}: more than {MOST_LINES} lines"));
        }
        let id = ledger.add(&file, number, &words.join(" "));
        if KINDS.contains(&first.as_str()) {
            let (kind, name) = (first.clone(), words.get(1).cloned().unwrap_or_default());
            let mut lines = Vec::new();
            // Old files bind in the line of the section.
            if let (Some(address), "frontend" | "listen") =
                (words.get(2).filter(|word| word.contains(':')), kind.as_str())
            {
                lines.push(Line { words: vec!["bind".to_owned(), address.clone()], id });
            }
            sections.push(Section { kind, name, id, lines });
        } else if first.starts_with('.') {
            ledger.lost(id, "conditions of the preprocessor are not evaluated: both branches are read");
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(Line { words, id });
        } else {
            return Err(format!("{name}:{number}: no section has begun"));
        }
    }
    Ok(sections)
}

fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut is_open) = (Vec::new(), String::new(), false);
    let mut chars = line.chars();
    let mut quote = None;
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\\', None | Some('"')) => {
                is_open = true;
                word.push(chars.next().unwrap_or('\\'));
            }
            (_, Some(open)) if char == open => quote = None,
            (_, Some(_)) => word.push(char),
            ('"' | '\'', None) => {
                quote = Some(char);
                is_open = true;
            }
            ('#', None) => break,
            _ if char.is_whitespace() => {
                if is_open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                is_open = false;
            }
            _ => word.push(char),
        }
    }
    if quote.is_some() {
        return Err("a quoted text has no end");
    }
    if is_open || !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}
