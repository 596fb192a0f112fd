//! CONFIG.md, written from the schema so that it cannot drift from what the parser does.

mod json_schema;

use std::fmt::Write;

use crate::config::{Config, Protocol};
use crate::not_built;
use crate::schema::{Block, Default, Key, Kind, Reload, blocks};

pub use json_schema::render_json_schema;

/// The whole of CONFIG.md.
pub fn render_config_md() -> String {
    let mut page = String::from(INTRODUCTION);
    let all = blocks();
    for (index, block) in all.iter().enumerate() {
        let before = all.iter().take(index);
        section(&mut page, block, before.copied().find(|other| std::ptr::eq(other.keys, block.keys)));
    }
    page.push_str("## Not built yet\n\n");
    page.push_str(NOT_BUILT_YET);
    for line in not_built::lines() {
        line_of(&mut page, format_args!("- {line}"));
    }
    page.push_str("\n## Examples\n\nThese files are in `config/examples/`.\n");
    for (title, file, text) in EXAMPLES {
        let refused = Config::parse(text, file).is_ok_and(|config| !config.not_built_yet().is_empty());
        let note = if refused { " Not built yet." } else { "" };
        let text = text.trim_end();
        line_of(
            &mut page,
            format_args!("\n### {title}\n\n`config/examples/{file}`{note}\n\n```toml\n{text}\n```"),
        );
    }
    page
}

/// One block. `same` is another one, further up, that has the same keys.
fn section(page: &mut String, block: &Block, same: Option<&Block>) {
    if block.path.is_empty() {
        line_of(page, format_args!("## Blocks\n\n{}\n", block.doc));
        return;
    }
    line_of(page, format_args!("### `{}`\n\n{}{}\n", block.header(), block.doc, where_it_stands(block)));
    if let Some(same) = same {
        line_of(page, format_args!("Its keys are those of `{}`.\n", same.header()));
        return;
    }
    if block.keys.iter().all(|key| matches!(key.kind, Kind::Later(_))) {
        page.push_str("Nothing that may stand in it is built yet.\n\n");
        return;
    }
    page.push_str("| Key | Type | Default | Allowed | Reload | Meaning |\n|---|---|---|---|---|---|\n");
    for key in block.keys {
        let Some(kind) = type_of(&key.kind) else { continue };
        let allowed = allowed(&key.kind);
        let (default, reload) = (default(key), if key.reload == Reload::Live { "live" } else { "restart" });
        line_of(
            page,
            format_args!("| `{}` | {kind} | {default} | {allowed} | {reload} | {} |", key.name, key.doc),
        );
    }
    page.push('\n');
}

fn where_it_stands(block: &Block) -> String {
    if !block.on.required.is_empty() {
        format!(" Required on {} listeners; an error on others.", words(block.on.required))
    } else if !block.on.allowed.is_empty() {
        format!(" Only on {} listeners; an error on others.", words(block.on.allowed))
    } else if !block.on.used.is_empty() {
        format!(
            " Applies to {} listeners; on others it does nothing, and a warning says so.",
            words(block.on.used)
        )
    } else {
        String::new()
    }
}

fn words(protocols: &[Protocol]) -> String {
    let names: Vec<_> = protocols.iter().map(|protocol| protocol.as_str()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// None for a block, which has a section of its own, and for what is not built yet.
fn type_of(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::Flag => Some("boolean"),
        Kind::Integer { .. } => Some("integer"),
        Kind::Word { .. } | Kind::Text(_) => Some("string"),
        Kind::Texts(_) => Some("array of strings"),
        Kind::Block(_) | Kind::Blocks(_) | Kind::Named(_) | Kind::NamedArrays(_) | Kind::Later(_) => None,
    }
}

fn allowed(kind: &Kind) -> String {
    match kind {
        Kind::Flag => "`true`, `false`".to_owned(),
        Kind::Word { words, .. } => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Texts(text) => format!("each {}", text.expected()),
        _ => kind.allowed(),
    }
}

fn default(key: &Key) -> String {
    match key.default {
        Default::Required => "required".to_owned(),
        Default::Absent => "none".to_owned(),
        Default::Described(text) => text.to_owned(),
        Default::Flag(flag) => format!("`{flag}`"),
        Default::Integer(number) => format!("`{number}`"),
        Default::Word(word) => format!("`\"{word}\"`"),
    }
}

fn line_of(page: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{line}");
}

const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `cargo run -p lb-config --example config-md > CONFIG.md`. Change the schema in crates/lb-config instead. -->

ExpressGateway reads one TOML file: the path that follows its name on the command line, or `config/default.toml`.

- `expressgateway check FILE` says whether a file is right, and binds nothing.
- Every key has a name below. An unknown key, a wrong type or a value out of range is an error, never ignored; the message
  names file, line, key, value and what is allowed, and all errors of a file are shown together (the first 20).
- White space around a string does not count. Sizes and times are integers in the unit that the key's name ends with.
- `${NAME}` in a string is the environment variable of that name, which is of upper-case letters, digits and `_`; `${NAME:-default}` does without
  one that is absent or empty. A number or a flag may come from a variable too: `workers = \"${WORKERS:-4}\"`. The text itself is written
  `$${NAME}`. A reload reads the file anew, in the environment that the process was started with.
- `include = [\"conf.d/*.toml\"]` at the top of the file reads further files as if they stood in it: paths from the directory of the
  file, with `*`, `?` and `[…]`, in the order of their names. Listeners of all files are listeners of one gateway, and so are pools and route
  tables, of which each name is taken once; any other block stands in one file. Included files include no others. A reload reads them
  all.
- All files together have at most 4 MiB.
- What is allowed but probably not meant (a listener without backends, a block that does nothing on its listener) is a
  warning in the log.

On SIGHUP the file is read again and checked as a whole; a file with an error changes nothing. Then every key marked
*live* below applies to running listeners without touching a connection. Listeners come, go and change their address,
protocol and certificates in the same way: one that is new is bound before anything changes, and when it cannot be, nothing
does; the connections of one that is gone, or speaks another protocol from now on, have its `drain_timeout_ms` to finish. A
change of a key marked *restart* is named in the log and in a metric by each reload until the process is started again.

";

const NOT_BUILT_YET: &str = "\
These settings are checked like all others, but this build has nothing behind them. A start and `expressgateway check`
refuse a file that uses them, because no accepted setting is ever ignored.

";

const EXAMPLES: &[(&str, &str, &str)] = &[
    ("tcp", "tcp.toml", include_str!("../../../config/examples/tcp.toml")),
    ("h1", "h1-limits.toml", include_str!("../../../config/examples/h1-limits.toml")),
    ("h1: a pool", "h1-pool.toml", include_str!("../../../config/examples/h1-pool.toml")),
    ("h1: routes", "h1-routes.toml", include_str!("../../../config/examples/h1-routes.toml")),
    ("h1: canary", "h1-canary.toml", include_str!("../../../config/examples/h1-canary.toml")),
    ("h1: blue and green", "h1-blue-green.toml", include_str!("../../../config/examples/h1-blue-green.toml")),
    ("h1: rewrite", "h1-rewrite.toml", include_str!("../../../config/examples/h1-rewrite.toml")),
    (
        "h1s: virtual hosts",
        "h1s-virtual-hosts.toml",
        include_str!("../../../config/examples/h1s-virtual-hosts.toml"),
    ),
    ("tls", "tls.toml", include_str!("../../../config/examples/tls.toml")),
    ("h1s", "h1s.toml", include_str!("../../../config/examples/h1s.toml")),
    ("quic: HTTP/3", "quic-h3.toml", include_str!("../../../config/examples/quic-h3.toml")),
    ("quic: Mode B", "quic-mode-b.toml", include_str!("../../../config/examples/quic-mode-b.toml")),
    ("quic: DNS over QUIC", "quic-doq.toml", include_str!("../../../config/examples/quic-doq.toml")),
    (
        "passthrough: pools by server name",
        "passthrough-sni.toml",
        include_str!("../../../config/examples/passthrough-sni.toml"),
    ),
    (
        "passthrough: Mode A",
        "passthrough-mode-a.toml",
        include_str!("../../../config/examples/passthrough-mode-a.toml"),
    ),
];
