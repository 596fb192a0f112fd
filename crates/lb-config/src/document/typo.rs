//! What an unknown key was probably meant to be.

use crate::schema::{Block, blocks};

/// What to say about a key that `block` does not have.
pub(super) fn unknown_key(block: &Block, name: &str) -> String {
    if let Some(near) = nearest(block, name) {
        return format!("unknown key; did you mean `{near}`?");
    }
    if let Some(home) = blocks().into_iter().find(|other| other.key(name).is_some()) {
        return format!("unknown key here; it belongs to {}", home.header());
    }
    let names: Vec<_> = block.keys.iter().map(|key| key.name).collect();
    format!("unknown key; {} may hold {}", block.header(), names.join(", "))
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
