//! Which pool a server name leads to.

use std::collections::HashMap;

/// Names, and wildcards in place of a first label, each with what it leads to.
#[derive(Debug)]
pub(crate) struct NameTable<T> {
    exact: HashMap<String, T>,
    /// What follows the `*.`.
    wildcards: HashMap<String, T>,
}

impl<T: Copy> NameTable<T> {
    /// A table of these names, in lower case. The first of several entries of a name counts.
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = (&'a str, T)>) -> Self {
        let (mut exact, mut wildcards) = (HashMap::new(), HashMap::new());
        for (name, to) in names {
            match name.strip_prefix("*.") {
                Some(suffix) => wildcards.entry(suffix.to_owned()).or_insert(to),
                None => exact.entry(name.to_owned()).or_insert(to),
            };
        }
        Self { exact, wildcards }
    }

    /// Whether it has no names.
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty()
    }

    /// What a name in lower case leads to: itself, or a wildcard for its first label.
    pub(crate) fn find(&self, name: &str) -> Option<T> {
        let wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_before_a_wildcard_which_stands_for_one_label() {
        let table =
            NameTable::new([("a.example", 1), ("*.example", 2), ("*.b.example", 3), ("a.example", 4)]);
        let names = ["a.example", "x.example", "x.b.example", "x.y.example", "example", "b.example", ""];
        assert_eq!(
            names.map(|name| table.find(name)),
            [Some(1), Some(2), Some(3), None, None, Some(2), None]
        );
        assert!(NameTable::<u8>::new([]).is_empty());
    }
}
