//! Names and values that several kinds of files have in common.

use std::collections::BTreeSet;

/// Gives names of pools, tables and policies: letters, digits, `-` and `_`, each once.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// A name like `wanted` that nothing else has.
    pub(super) fn give(&mut self, wanted: &str) -> String {
        let fits =
            |char: char| if char.is_ascii_alphanumeric() || char == '-' || char == '_' { char } else { '-' };
        let base: String = wanted.chars().map(fits).take(56).collect();
        let base = base.trim_matches('-').to_owned();
        let base = if base.is_empty() { "unnamed".to_owned() } else { base };
        let mut name = base.clone();
        let mut number = 2_u32;
        while !self.0.insert(name.clone()) {
            name = format!("{base}-{number}");
            number = number.saturating_add(1);
        }
        name
    }
}

/// Milliseconds of a time such as `30s`, `5m`, `1h 30m` or `500ms`; a number alone counts in `unit`.
pub(super) fn millis(text: &str, unit: u64) -> Option<u64> {
    let (mut total, mut rest) = (0_u64, text.trim());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(end)?;
        let end = after.find(|char: char| char.is_ascii_digit()).unwrap_or(after.len());
        let (word, after) = after.split_at_checked(end)?;
        let factor = match word.trim() {
            "" => unit,
            "us" => return None,
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = after.trim();
    }
    Some(total)
}

/// Bytes of a size such as `10m`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (number, factor) = match text.as_bytes().last()? {
        b'k' => (text.strip_suffix('k')?, 1 << 10),
        b'm' => (text.strip_suffix('m')?, 1 << 20),
        b'g' => (text.strip_suffix('g')?, 1 << 30),
        _ => (text.as_str(), 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A pattern that is looked for anywhere in a path as one that the whole path matches. `None` where its anchors stand elsewhere than at its ends.
pub(super) fn whole_path(pattern: &str) -> Option<String> {
    let (begins, rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (ends, rest) = match rest.strip_suffix('$') {
        Some(inner) if !inner.ends_with('\\') => (true, inner),
        _ => (false, rest),
    };
    let (mut escaped, mut in_class, mut depth, mut has_branches) = (false, false, 0_i32, false);
    for char in rest.chars() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            _ if in_class => {}
            '^' | '$' => return None,
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => has_branches = true,
            _ => {}
        }
    }
    // The anchors of `^a|b$` hold for one branch each.
    if has_branches && (begins || ends) {
        return None;
    }
    let rest = if has_branches { format!("(?:{rest})") } else { rest.to_owned() };
    Some(format!("{}{rest}{}", if begins { "" } else { ".*" }, if ends { "" } else { ".*" }))
}
