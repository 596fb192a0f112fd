//! What an unknown key was probably meant to be.

use crate::schema::{Block, Kind, blocks};

/// What to say about a key that `block` does not have.
pub(super) fn unknown_key(block: &Block, name: &str, is_table: bool) -> String {
    let homes = homes(block, name, is_table);
    if !homes.is_empty() {
        return format!("unknown key here; it belongs to {}", alternatives(&homes));
    }
    if let Some(near) = nearest(block, name) {
        return format!("unknown key; did you mean `{near}`?");
    }
    let names: Vec<_> = block.keys.iter().map(|key| key.name).collect();
    format!("unknown key; {} may hold {}", block.header(), names.join(", "))
}

/// How many places are named.
const MOST_HOMES: usize = 3;

/// Where a key of that name stands, as near to `block` as there is one: the block that holds it, or the block that it opens where the file
/// has a table under it.
fn homes(block: &Block, name: &str, is_table: bool) -> Vec<String> {
    let found = || {
        blocks().into_iter().filter_map(|other| {
            let (opens, header) = match other.key(name)?.kind {
                Kind::Block(inner) | Kind::Blocks(inner) | Kind::Named(inner) | Kind::NamedArrays(inner) => {
                    (true, inner.header())
                }
                _ => (false, other.header()),
            };
            Some(((opens == is_table, shared(block.path, other.path)), header))
        })
    };
    let Some(best) = found().map(|(rank, _)| rank).max() else { return Vec::new() };
    // A block that stands in several has one header.
    let mut headers = Vec::new();
    for (_, header) in found().filter(|(rank, _)| *rank == best) {
        if !headers.contains(&header) && headers.len() < MOST_HOMES {
            headers.push(header);
        }
    }
    headers
}

/// How many parts two paths of blocks have in common from the left.
fn shared(one: &str, other: &str) -> usize {
    one.split('.').zip(other.split('.')).take_while(|(one, other)| one == other).count()
}

fn alternatives(all: &[String]) -> String {
    match all {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        all => all.join(""),
    }
}

fn nearest(block: &Block, name: &str) -> Option<&'static str> {
    near(name, block.keys.iter().map(|key| key.name))
}

/// The one of `known` that `name` was probably meant to be.
pub(crate) fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = name.chars().take(LONGEST).collect();
    known
        .map(|known| (distance(&wanted, known), known))
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .min()
        .map(|(_, known)| known)
}

/// How many characters must be inserted, deleted or replaced to get from `from` to `to`.
fn distance(from: &[char], to: &str) -> usize {
    let mut row: Vec<usize> = (0..=from.len()).collect();
    for (index, wanted) in to.chars().enumerate() {
        let mut left = index + 1;
        let mut diagonal = index;
        for (found, above) in from.iter().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(*found != wanted);
            diagonal = *above;
            left = replaced.min(*above + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// No key is longer, and the cost of the comparison grows with it.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_single_edits() {
        let between = |from: &str, to: &str| distance(&from.chars().collect::<Vec<_>>(), to);
        assert_eq!(between("", "abc"), 3);
        assert_eq!(between("abc", ""), 3);
        assert_eq!(between("kitten", "sitting"), 3);
        assert_eq!(between("weigth", "weight"), 2);
        assert_eq!(between("same", "same"), 0);
    }
}
