//! A public type has a name of its own in the whole workspace: a reader who meets the name finds one meaning.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// How macros begin that declare public enumerations by their names alone.
const MACROS: &[&str] = &["words! {", "labels! {"];

/// The name of the public struct, enum, trait or union that a line declares, whatever stands around it.
fn declared(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let kinds = ["struct ", "enum ", "trait ", "union "];
    let rest = kinds.iter().find_map(|kind| rest.strip_prefix(kind))?;
    let end = rest.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(rest.len());
    Some(&rest[..end]).filter(|name| !name.is_empty())
}

/// The name that a line gives to an enumeration inside one of [`MACROS`].
fn worded(line: &str) -> Option<&str> {
    let name = line.strip_prefix("    ")?.strip_suffix(" {")?;
    let is_name = name.starts_with(|char: char| char.is_ascii_uppercase());
    Some(name).filter(|name| is_name && name.chars().all(char::is_alphanumeric))
}

fn names_in(source: &str) -> Vec<&str> {
    let mut is_in_macro = false;
    let mut found = Vec::new();
    for line in source.lines() {
        is_in_macro = MACROS.contains(&line) || is_in_macro && line != "}";
        found.extend(declared(line).or_else(|| worded(line).filter(|_| is_in_macro)));
    }
    found
}

#[test]
fn public_types_have_names_of_their_own() {
    let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(crate::repository("crates")).unwrap() {
        let sources = entry.unwrap().path().join("src");
        crate::imports::sources(&sources, &mut |path, text| {
            for name in names_in(text) {
                places.entry(name.to_owned()).or_default().push(path.to_owned());
            }
        });
    }
    assert!(
        places.len() > 300,
        "{} names were found, so the sources were not read as they are written",
        places.len()
    );
    let shared: Vec<_> = places.iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(shared.is_empty(), "several types have one name: {shared:#?}");
}

#[test]
fn declarations_are_read_as_they_are_written() {
    let source = "pub struct One<T> {\n    pub enum Two {\npub(crate) struct Three;\npub trait Four: Copy {\n// pub struct Five\n\
                  words! {\n    /// A word.\n    Six {\n        /// One.\n        One = \"one\",\n    }\n}\n    Seven {\n\
                  labels! {\n    Eight {\n        Two = \"two\",\n    }\n\n    Nine {\n        Three = \"three\",\n    }\n}\n";
    assert_eq!(names_in(source), ["One", "Two", "Four", "Six", "Eight", "Nine"]);
}
