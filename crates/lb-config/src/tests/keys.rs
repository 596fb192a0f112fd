//! What the schema says about each key is what the parser and the plan do.

use std::collections::BTreeSet;

use super::parse;
use crate::config::Config;
use crate::plan::{KeyChange, Plan};
use crate::schema::{Block, Default, Key, Kind, Reload, blocks};

/// The second file has the keys that no file may have together with others in the first, the third those of routes.
const FILES: [&str; 3] =
    [include_str!("keys.toml"), include_str!("keys-passthrough-pool.toml"), include_str!("keys-routes.toml")];

/// A `key = value # other` line of the file.
struct Line {
    file: &'static str,
    index: usize,
    block: &'static Block,
    key: &'static Key,
    other: &'static str,
}

/// The path with `NAME` in place of the name of a pool.
fn schema_path(path: &str) -> String {
    let mut parts: Vec<_> = path.split('.').collect();
    if let ["pools", name, ..] = parts.as_mut_slice() {
        *name = "NAME";
    }
    if let ["routes", name] | ["policies", name, ..] = parts.as_mut_slice() {
        *name = "NAME";
    }
    parts.join(".")
}

fn lines() -> Vec<Line> {
    FILES.into_iter().flat_map(lines_of).collect()
}

fn lines_of(file: &'static str) -> Vec<Line> {
    let mut block = None;
    let mut found = Vec::new();
    for (index, line) in file.lines().enumerate() {
        if line.starts_with('[') {
            let path = line.trim_matches(['[', ']']);
            block = blocks().into_iter().find(|block| block.path == schema_path(path));
        } else if let (Some((name, _)), Some((_, other))) = (line.split_once(" = "), line.split_once(" # ")) {
            let block = block.unwrap();
            found.push(Line { file, index, block, key: block.key(name).unwrap(), other });
        }
    }
    found
}

/// Whether a key opens blocks, or is for what is not built yet.
fn has_no_value(kind: &Kind) -> bool {
    matches!(kind, Kind::Block(_) | Kind::Blocks(_) | Kind::Named(_) | Kind::NamedArrays(_) | Kind::Later(_))
}

/// The file with another text in place of one line; without what a comparison of settings does not mean.
fn with(line: &Line, text: &str) -> Config {
    let mut lines: Vec<_> = line.file.lines().collect();
    lines[line.index] = text;
    let config = parse(&lines.join("\n"));
    Config { not_built_yet: Vec::new(), warnings: Vec::new(), ..config }
}

#[test]
fn the_file_has_every_key() {
    let found: BTreeSet<_> = lines().iter().map(|line| (line.block.path, line.key.name)).collect();
    for block in blocks() {
        // What `include` does is done before values are read.
        for key in block.keys.iter().filter(|key| !has_no_value(&key.kind) && key.name != "include") {
            assert!(found.contains(&(block.path, key.name)), "{} {}", block.path, key.name);
        }
    }
}

#[test]
fn every_key_has_an_effect_and_the_reload_class_it_claims() {
    for line in lines() {
        let running = parse(line.file);
        let place = format!("{} {}", line.block.path, line.key.name);
        let new = with(&line, &format!("{} = {}", line.key.name, line.other));
        let plan = Plan::between(&running, &new);
        assert!(!plan.is_empty(), "{place} has no effect");
        match line.key.reload {
            Reload::Live => assert!(plan.restart.is_empty(), "{place} is not live: {plan:?}"),
            Reload::Restart => assert!(plan.live.is_empty(), "{place} does not need a restart: {plan:?}"),
            Reload::Contents => panic!("{place} has no reload class"),
        }
        for change in plan.live.iter().chain(&plan.restart) {
            assert_plain(&change.scope, &place);
        }
        let is_named = |change: &KeyChange| change.scope.contains(line.key.name) || names_itself(&line);
        assert!(plan.live.iter().chain(&plan.restart).any(is_named), "{place} is not named: {plan:?}");
        let applied = Plan::apply(&running, new.clone());
        let left = Plan::between(&applied, &new);
        assert_eq!(left, Plan { live: Vec::new(), restart: plan.restart }, "{place} after it was applied");
    }
}

/// No word of Rust, and one line.
fn assert_plain(scope: &str, place: &str) {
    for odd in ["Some(", "None", "{", "}", "( ", "\n", "PathBuf", "Duration"] {
        assert!(!scope.contains(odd), "{place}: {scope}");
    }
}

/// Whether the value of a key is the name under which its change is told, or the key stands for one of a backend's. What policies hold is
/// told as part of the routes that have them.
fn names_itself(line: &Line) -> bool {
    if line.block.path.starts_with("policies.NAME") {
        return true;
    }
    // The fields of the access log are told as what they are part of.
    matches!(
        line.key.name,
        "address" | "bind_addr" | "access_log_fields" | "backend_addr" | "sni" | "backend_ca_path"
    )
}

#[test]
fn every_default_is_the_one_in_the_table() {
    for line in lines() {
        let default = match line.key.default {
            Default::Flag(flag) => flag.to_string(),
            Default::Integer(number) => number.to_string(),
            Default::Word(word) => format!("\"{word}\""),
            Default::Required | Default::Absent | Default::Described(_) => continue,
        };
        let written = with(&line, &format!("{} = {default}", line.key.name));
        assert_eq!(with(&line, ""), written, "{} {}", line.block.path, line.key.name);
    }
}

#[test]
fn every_key_is_documented_and_every_default_is_in_range() {
    for block in blocks() {
        assert!(!block.doc.is_empty(), "{}", block.path);
        for key in block.keys {
            let place = format!("{} {}", block.path, key.name);
            assert!(has_no_value(&key.kind) || key.doc.ends_with('.'), "{place}");
            match (&key.kind, key.default) {
                (Kind::Integer { min, max, zero, .. }, Default::Integer(number)) => {
                    assert!((*min..=*max).contains(&number) || *zero && number == 0, "{place}");
                }
                (Kind::Word { words, .. }, Default::Word(word)) => assert!(words.contains(&word), "{place}"),
                _ => {}
            }
        }
    }
}
