//! The Prometheus text format, as far as a test reads it.

use std::collections::BTreeMap;

/// One line of an exposition.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Name as written, with suffixes such as `_bucket`.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// A scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Every sample in order.
    pub samples: Vec<Sample>,
    /// Kind by family, from the `# TYPE` lines.
    pub kinds: BTreeMap<String, String>,
}

impl Metrics {
    /// Parses an exposition; panics on a line that is not one.
    #[track_caller]
    pub fn parse(text: &str) -> Metrics {
        let mut metrics = Metrics::default();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                if let Some((name, kind)) = rest.split_once(' ') {
                    metrics.kinds.insert(name.to_owned(), kind.to_owned());
                }
            } else if !line.starts_with('#') {
                let sample = sample(line).unwrap_or_else(|| panic!("not a metric line: {line:?}"));
                metrics.samples.push(sample);
            }
        }
        metrics
    }

    /// The samples of `name` that carry these labels.
    pub fn find<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |s| {
            s.name == name && labels.iter().all(|(k, v)| s.labels.get(*k).is_some_and(|have| have == v))
        })
    }

    /// Their sum; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).fold(0.0, |sum, s| sum + s.value)
    }

    /// Whether a family of that name is declared or sampled.
    pub fn has(&self, name: &str) -> bool {
        self.kinds.contains_key(name) || self.samples.iter().any(|s| s.name == name)
    }

    /// The samples of a family, for a message.
    pub fn lines_of(&self, name: &str) -> Vec<String> {
        let of = self.samples.iter().filter(|s| s.name == name);
        of.map(|s| format!("{:?} {}", s.labels, s.value)).collect()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ')?;
        return Some(Sample { name: name.to_owned(), labels: BTreeMap::new(), value: number(value)? });
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    while !rest.starts_with('}') {
        let (label, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(label.to_owned(), value);
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(Sample { name: name.to_owned(), labels, value: number(rest[1..].trim_start())? })
}

fn number(text: &str) -> Option<f64> {
    match text.split(' ').next()? {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        plain => plain.parse().ok(),
    }
}
