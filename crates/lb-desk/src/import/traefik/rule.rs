//! Rules of routers, and the conditions that they become.

use super::super::names::whole_path;

/// One thing that a rule asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Matcher {
    Host(String),
    /// The key of a route, and its value.
    Path(&'static str, String),
    Method(String),
    Header(String),
    Query(String),
    Source(String),
}

/// Alternatives that a rule may have.
const MOST: usize = 64;

/// How deep a rule may nest.
const DEPTH: usize = 16;

/// Reads a rule as alternatives, of each of which everything must hold.
///
/// # Errors
/// What has no counterpart.
pub(super) fn read(rule: &str) -> Result<Vec<Vec<Matcher>>, String> {
    let mut reader = Reader { rest: rule.trim() };
    let found = reader.any(0)?;
    if reader.rest.is_empty() { Ok(found) } else { Err(format!("`{}` is not understood", reader.rest)) }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn takes(&mut self, start: &str) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(start) {
            Some(after) => {
                self.rest = after.trim_start();
                true
            }
            None => false,
        }
    }

    fn any(&mut self, depth: usize) -> Result<Vec<Vec<Matcher>>, String> {
        let mut found = self.all(depth)?;
        while self.takes("||") {
            found.append(&mut self.all(depth)?);
        }
        bounded(found)
    }

    fn all(&mut self, depth: usize) -> Result<Vec<Vec<Matcher>>, String> {
        let mut found = self.one(depth)?;
        while self.takes("&&") {
            let more = self.one(depth)?;
            if found.len().saturating_mul(more.len()) > MOST {
                return Err("it has too many alternatives".to_owned());
            }
            found = found
                .iter()
                .flat_map(|left| more.iter().map(move |right| [left.as_slice(), right].concat()))
                .collect();
        }
        Ok(found)
    }

    fn one(&mut self, depth: usize) -> Result<Vec<Vec<Matcher>>, String> {
        if depth > DEPTH {
            return Err("it nests too deep".to_owned());
        }
        if self.takes("!") {
            return Err("`!` has no counterpart".to_owned());
        }
        if self.takes("(") {
            let found = self.any(depth.saturating_add(1))?;
            return if self.takes(")") { Ok(found) } else { Err("a `)` is missing".to_owned()) };
        }
        let (name, rest) =
            self.rest.split_once('(').ok_or_else(|| format!("`{}` is not understood", self.rest))?;
        let name = name.trim().to_owned();
        self.rest = rest.trim_start();
        let mut values = Vec::new();
        while !self.takes(")") {
            values.push(self.value()?);
            self.takes(",");
        }
        matcher(&name, &values)
    }

    fn value(&mut self) -> Result<String, String> {
        let quote = self.rest.chars().next().filter(|char| matches!(char, '`' | '"' | '\''));
        let quote = quote.ok_or_else(|| format!("`{}` is not understood", self.rest))?;
        let inner = self.rest.get(1..).unwrap_or_default();
        let (value, rest) = inner.split_once(quote).ok_or("a text has no end")?;
        self.rest = rest.trim_start();
        Ok(value.to_owned())
    }
}

fn bounded(found: Vec<Vec<Matcher>>) -> Result<Vec<Vec<Matcher>>, String> {
    if found.len() > MOST { Err("it has too many alternatives".to_owned()) } else { Ok(found) }
}

fn matcher(name: &str, values: &[String]) -> Result<Vec<Vec<Matcher>>, String> {
    let each = |make: &dyn Fn(&str) -> Option<Matcher>| {
        let all: Option<Vec<_>> = values.iter().map(|value| make(value).map(|found| vec![found])).collect();
        all.filter(|all| !all.is_empty())
            .ok_or_else(|| format!("{name}({}) has no counterpart", values.join(", ")))
    };
    let pair = |between: &str| match values {
        [key, value] => Ok(format!("{key}{between}{value}")),
        _ => Err(format!("{name} needs a name and a value")),
    };
    match name {
        "Host" | "HostHeader" | "HostSNI" => each(&|host| Some(Matcher::Host(host.to_owned()))),
        "HostRegexp" => each(&|host| wildcard(host).map(Matcher::Host)),
        "Path" => each(&|path| (!path.contains('{')).then(|| Matcher::Path("path", path.to_owned()))),
        "PathPrefix" => {
            each(&|path| (!path.contains('{')).then(|| Matcher::Path("path_prefix", path.to_owned())))
        }
        "PathRegexp" => each(&|path| whole_path(path).map(|path| Matcher::Path("path_regex", path))),
        "Method" => each(&|method| Some(Matcher::Method(method.to_owned()))),
        "ClientIP" => each(&|network| Some(Matcher::Source(network.to_owned()))),
        "Header" | "Headers" => Ok(vec![vec![Matcher::Header(pair("=")?)]]),
        "HeaderRegexp" | "HeadersRegexp" => Ok(vec![vec![Matcher::Header(pair("~")?)]]),
        "Query" if values.len() == 1 => each(&|value| Some(Matcher::Query(value.to_owned()))),
        "Query" => Ok(vec![vec![Matcher::Query(pair("=")?)]]),
        _ => Err(format!("{name} has no counterpart")),
    }
}

/// Expressions that stand for one label before a domain.
fn wildcard(pattern: &str) -> Option<String> {
    let rest = match pattern.strip_prefix('{') {
        Some(inner) => inner.split_once('}')?.1,
        None => {
            let rest = pattern.strip_prefix('^').unwrap_or(pattern);
            ["[^.]+", "[a-z0-9-]+", "[a-zA-Z0-9-]+", ".+", "[a-z]+"]
                .into_iter()
                .find_map(|label| rest.strip_prefix(label))?
        }
    };
    let domain = rest.trim_end_matches('$').replace("\\.", ".");
    let is_plain = domain.starts_with('.')
        && domain.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-'));
    is_plain.then(|| format!("*{domain}"))
}
