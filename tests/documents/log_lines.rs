//! Every log line that a document quotes is one that the program writes.
//!
//! A code span with a blank in it quotes a message, in full: `…`, `<name>` stand for what differs from case to case, as `{}` does in the
//! source. What is no message but a command, a setting or a piece of a protocol is told by its beginning, or is listed in [`OTHERS`].
//! In a column that is headed `Line` or `Log line` everything quotes a message; a column `Level` beside it names its level or levels.

use crate::markdown::{self, Span};
use crate::source::{self, Literal};

/// The documents that operators read while something is wrong.
const DOCUMENTS: &[&str] = &["RUNBOOK.md", "DEPLOYMENT.md"];

/// How commands, settings and pieces of protocols begin.
const BEGINNINGS: &[&str] = &[
    "expressgateway ",
    "systemctl ",
    "systemd-",
    "journalctl ",
    "ss ",
    "curl ",
    "kill ",
    "openssl ",
    "certbot ",
    "cargo ",
    "rustup ",
    "docker ",
    "ulimit ",
    "ip ",
    "mount ",
    "ethtool ",
    "sysctl ",
    "postrotate ",
    "install ",
    "setcap ",
    "--",
    "[",
    "GET ",
    "POST ",
    "DELETE ",
];

/// Other code spans that quote no message.
const OTHERS: &[&str] = &["503 listener over capacity", "active (running)", "text/plain; version=0.0.4"];

#[test]
fn every_quoted_line_is_in_the_source() {
    let literals = source::literals();
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        let spans = markdown::spans(&crate::text(document));
        assert!(spans.iter().any(is_quote), "{document} quotes nothing");
        for span in spans.iter().filter(|span| is_quote(span)) {
            if let Some(problem) = problem(span, &literals) {
                wrong.push(format!("{document}:{}: `{}` {problem}", span.line, span.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a span stands for a message.
fn is_quote(span: &Span) -> bool {
    let text = span.text.as_str();
    if is_in_line_column(span) {
        // The name of a field stands beside some messages.
        return !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    }
    let is_known = is_field(text)
        || OTHERS.contains(&text)
        || BEGINNINGS.iter().any(|beginning| text.starts_with(beginning));
    text.contains(' ') && !text.contains(" = ") && !is_known
}

/// Whether it is a field of HTTP with its value.
fn is_field(text: &str) -> bool {
    let name = text.split_once(": ").map_or("", |(name, _)| name);
    matches!(name, "Connection" | "Expect" | "Host" | "Upgrade")
        || name.contains('-') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_in_line_column(span: &Span) -> bool {
    span.cell.as_ref().is_some_and(|cell| matches!(cell.heading.as_str(), "Line" | "Log line"))
}

/// What is wrong with a quotation.
fn problem(span: &Span, literals: &[Literal]) -> Option<String> {
    let quote = quoted(&span.text);
    let mut known = literals.iter().filter(|literal| fits(&quote, &formatted(&literal.text))).peekable();
    if known.peek().is_none() {
        return Some("is no message in crates/*/src: quote all of it, with `…` for what differs".to_owned());
    }
    let levels: Vec<_> = known.filter_map(|literal| literal.level).collect();
    let told = span.cell.as_ref().filter(|_| is_in_line_column(span)).map_or("", |cell| cell.level.as_str());
    let told: Vec<_> = told.split(", ").filter(|level| !level.is_empty()).collect();
    let differs = !told.is_empty() && !levels.is_empty() && !told.iter().all(|level| levels.contains(level));
    differs.then(|| format!("is of level {}", levels.join(", ")))
}

/// A pattern: `None` stands for any text.
type Pattern = Vec<Option<char>>;

fn quoted(text: &str) -> Pattern {
    pattern(text, |rest| {
        if let Some(rest) = rest.strip_prefix('…') {
            return Some(rest);
        }
        let (name, after) = rest.strip_prefix('<')?.split_once('>')?;
        (!name.contains('<')).then_some(after)
    })
}

fn formatted(text: &str) -> Pattern {
    pattern(text, |rest| {
        let inside = rest.strip_prefix('{').filter(|inside| !inside.starts_with('{'))?;
        inside.split_once('}').map(|(_, after)| after)
    })
}

fn pattern(text: &str, placeholder: impl Fn(&str) -> Option<&str>) -> Pattern {
    let mut pattern = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match placeholder(rest) {
            Some(after) => {
                pattern.push(None);
                rest = after;
            }
            None => {
                // Backticks cannot stand inside a code span.
                if first != '`' {
                    pattern.push(Some(first));
                }
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    pattern
}

/// Whether some text is of both patterns, and what is fixed in the message is at least half of the quotation.
fn fits(quote: &Pattern, message: &Pattern) -> bool {
    let fixed = |pattern: &Pattern| pattern.iter().flatten().count();
    if fixed(message) * 2 < fixed(quote) || fixed(quote) < 5 {
        return false;
    }
    // `reached[j]`: the first `i` pieces of the quotation and the first `j` of the message have a text in common.
    let mut reached = vec![false; message.len() + 1];
    reached[0] = true;
    for j in 0..message.len() {
        reached[j + 1] = reached[j] && message[j].is_none();
    }
    for piece in quote {
        let before = reached.clone();
        reached[0] = before[0] && piece.is_none();
        for j in 0..message.len() {
            reached[j + 1] = match (piece, &message[j]) {
                (Some(one), Some(other)) => before[j] && one == other,
                _ => before[j] || before[j + 1] || reached[j],
            };
        }
    }
    reached[message.len()]
}

#[test]
fn patterns_meet() {
    let meet = |quote: &str, message: &str| fits(&quoted(quote), &formatted(message));
    assert!(meet("SIGHUP: <what> — applied live", "SIGHUP: {} — applied live"));
    assert!(meet("DNS resolver ready (…)", "DNS resolver ready (positive cap {}s, negative TTL {}s)"));
    assert!(meet("lb-io runtime ready backend=epoll", "lb-io runtime ready backend={}"));
    assert!(meet("name … does not resolve", "name `{name}` does not resolve"));
    assert!(!meet("backend ejected", "backend ejected again"));
    assert!(!meet("backend ejected", "{what}"));
    assert!(!meet("backend … again", "backend {} once"));
}
