//! Server names and what they stand for.

use std::collections::HashMap;

/// From server names to values, with wildcards for one label (RFC 6125 §6.4.3).
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    exact: HashMap<String, usize>,
    /// What follows `*.`.
    wildcard: HashMap<String, usize>,
}

impl Names {
    /// Adds `name`, in lower case, perhaps with `*` as its first label. The first value for a name stays.
    pub(crate) fn add(&mut self, name: &str, value: usize) {
        let (names, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent),
            None => (&mut self.exact, name),
        };
        names.entry(name.to_owned()).or_insert(value);
    }

    /// What `name` stands for. Case and a dot at the end do not matter; an exact name goes before a wildcard.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return None;
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.exact.get(&name).copied().or_else(|| {
            let (label, parent) = name.split_once('.')?;
            self.wildcard.get(parent).copied().filter(|_| !label.is_empty())
        })
    }
}

/// Whether `name`, found in a certificate, is a DNS name that a client can ask for. Anything else in a certificate, such as a
/// name with NUL in it (attack T-09), is passed over.
pub(crate) fn is_server_name(name: &str) -> bool {
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && labels.split('.').all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_go_before_wildcards_and_a_wildcard_is_one_label() {
        let mut names = Names::default();
        names.add("*.example.org", 1);
        names.add("www.example.org", 2);
        names.add("www.example.org", 3);
        assert_eq!(names.find("WWW.Example.ORG."), Some(2));
        assert_eq!(names.find("api.example.org"), Some(1));
        assert_eq!(names.find("example.org"), None);
        assert_eq!(names.find("a.b.example.org"), None);
        assert_eq!(names.find(".example.org"), None);
        assert_eq!(names.find(""), None);
    }

    #[test]
    fn t_09_odd_names_of_certificates_are_passed_over() {
        assert!(is_server_name("a.example") && is_server_name("*.example.org"));
        for odd in ["", "a\0.example", "a..example", "*", "a.*.example", "a b", "é.example"] {
            assert!(!is_server_name(odd), "{odd:?}");
        }
    }
}
