//! ACLs, and the conditions of routes that they become.

use std::collections::BTreeMap;

use super::super::ledger::{DirectiveId, Ledger};
use super::super::names::whole_path;
use super::super::output::{text, texts};

/// Alternatives that a condition may have: what is beyond is too much for a route.
const MOST_ALTERNATIVES: usize = 32;

/// Keys of a route with their values, as TOML.
pub(super) type Keys = Vec<(String, String)>;

/// One thing that is asked of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Hosts(Vec<String>),
    /// One of these: key and value.
    Path(Vec<(&'static str, String, bool)>),
    Methods(Vec<String>),
    Sources(Vec<String>),
    Headers(String),
    Scheme(&'static str),
}

/// The ACLs of a section, by name.
#[derive(Default)]
pub(super) struct Acls {
    tests: BTreeMap<String, Vec<(Option<Test>, DirectiveId)>>,
}

/// Sets of conditions, one of which must hold: the keys of each, as TOML. Hosts are those of the whole route.
pub(super) struct Conditions {
    pub(super) hosts: Vec<String>,
    pub(super) alternatives: Vec<Keys>,
    pub(super) ids: Vec<DirectiveId>,
}

impl Acls {
    /// Takes a line `acl NAME CRITERION…` in.
    pub(super) fn add(&mut self, words: &[String], id: DirectiveId, ledger: &mut Ledger) {
        let Some((name, criterion)) = words.split_first() else { return };
        let test = test(criterion);
        if test.is_none() {
            ledger.lost(id, "routes have conditions on host, path, method, source, fields and scheme; this one has no counterpart");
        } else {
            ledger.carried(id);
        }
        self.tests.entry(name.clone()).or_default().push((test, id));
    }

    /// The conditions behind `if` or `unless`. `None` where they have no counterpart.
    pub(super) fn conditions(&self, words: &[String]) -> Option<Conditions> {
        let (kind, rest) = words.split_first()?;
        let mut ids = Vec::new();
        // Each alternative is a list of tests that must all hold.
        let mut alternatives: Vec<Vec<Test>> = Vec::new();
        let mut words = rest.iter().map(String::as_str).peekable();
        let mut current: Vec<Vec<Test>> = vec![Vec::new()];
        while let Some(word) = words.next() {
            if matches!(word, "or" | "||") {
                alternatives.append(&mut current);
                current = vec![Vec::new()];
                continue;
            }
            let (negated, word) = match word.strip_prefix('!') {
                Some("") => (true, words.next()?),
                Some(word) => (true, word),
                None => (false, word),
            };
            let choices: Vec<Test> = if word == "{" {
                let inner: Vec<String> =
                    words.by_ref().take_while(|word| *word != "}").map(str::to_owned).collect();
                vec![test(&inner)?]
            } else {
                match (word, self.tests.get(word)) {
                    ("TRUE", None) => continue,
                    (_, Some(tests)) => {
                        ids.extend(tests.iter().map(|(_, id)| *id));
                        tests.iter().map(|(test, _)| test.clone()).collect::<Option<_>>()?
                    }
                    _ => return None,
                }
            };
            let choices = if negated { vec![negate(&choices)?] } else { choices };
            current = product(&current, &choices)?;
        }
        alternatives.append(&mut current);
        if kind == "unless" {
            let [only] = alternatives.as_slice() else { return None };
            alternatives = vec![vec![negate(only)?]];
        }
        rendered(&alternatives, ids)
    }
}

fn product(left: &[Vec<Test>], right: &[Test]) -> Option<Vec<Vec<Test>>> {
    let all = left.iter().flat_map(|tests| {
        right.iter().map(move |test| [tests.as_slice(), std::slice::from_ref(test)].concat())
    });
    let all: Vec<_> = all.take(MOST_ALTERNATIVES.saturating_add(1)).collect();
    (all.len() <= MOST_ALTERNATIVES).then_some(all)
}

/// The opposite, where conditions can say it.
fn negate(tests: &[Test]) -> Option<Test> {
    match tests {
        [Test::Scheme("https")] => Some(Test::Scheme("http")),
        [Test::Scheme("http")] => Some(Test::Scheme("https")),
        [Test::Headers(name)] if !name.contains(['=', '~', '!']) => Some(Test::Headers(format!("!{name}"))),
        _ => None,
    }
}

fn rendered(alternatives: &[Vec<Test>], ids: Vec<DirectiveId>) -> Option<Conditions> {
    let mut hosts: Option<Vec<String>> = None;
    let mut out: Vec<Keys> = Vec::new();
    for tests in alternatives {
        let mut own_hosts = Vec::new();
        let mut sets: Vec<Vec<(String, String)>> = vec![Vec::new()];
        for test in tests {
            let mut put = |key: &str, value: String| {
                let is_free = sets.iter().all(|set| set.iter().all(|(known, _)| known != key));
                sets.iter_mut().for_each(|set| set.push((key.to_owned(), value.clone())));
                is_free.then_some(())
            };
            match test {
                Test::Hosts(names) if own_hosts.is_empty() => own_hosts.clone_from(names),
                Test::Hosts(_) => return None,
                Test::Methods(methods) => put("methods", texts(methods))?,
                Test::Sources(sources) => put("sources", texts(sources))?,
                Test::Headers(field) => put("headers", texts(&[field]))?,
                Test::Scheme(scheme) => put("scheme", text(scheme))?,
                Test::Path(paths) => {
                    let has_path =
                        |set: &Vec<(String, String)>| set.iter().any(|(key, _)| key.starts_with("path"));
                    if sets.iter().any(has_path) || sets.len().saturating_mul(paths.len()) > MOST_ALTERNATIVES
                    {
                        return None;
                    }
                    sets = sets
                        .iter()
                        .flat_map(|set| {
                            paths.iter().map(move |(key, value, ignore_case)| {
                                let mut set = set.clone();
                                set.push(((*key).to_owned(), text(value)));
                                if *ignore_case {
                                    set.push(("ignore_case".to_owned(), "true".to_owned()));
                                }
                                set
                            })
                        })
                        .collect();
                }
            }
        }
        // Hosts are those of the route, so that all alternatives must have the same.
        own_hosts.sort();
        match &hosts {
            Some(hosts) if *hosts != own_hosts => return None,
            _ => hosts = Some(own_hosts),
        }
        out.append(&mut sets);
    }
    (out.len() <= MOST_ALTERNATIVES).then(|| Conditions {
        hosts: hosts.unwrap_or_default(),
        alternatives: out,
        ids,
    })
}

fn test(words: &[String]) -> Option<Test> {
    let (fetch, rest) = words.split_first()?;
    let mut values = Vec::new();
    let (mut ignore_case, mut method) = (false, None);
    let mut rest = rest.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        match word {
            "-i" => ignore_case = true,
            "-m" => method = Some(rest.next()?),
            "--" => values.extend(rest.by_ref().map(str::to_owned)),
            "-f" | "-n" | "-u" | "-M" => return None,
            _ => values.push(word.to_owned()),
        }
    }
    let fetch = fetch.as_str();
    let name_in = |start: &str| fetch.strip_prefix(start)?.strip_suffix(')');
    let fetch_host = |start: &str| {
        name_in(start)
            .is_some_and(|name| name.split(',').next().is_some_and(|name| name.eq_ignore_ascii_case("host")))
    };
    let paths = |key: &'static str, make: &dyn Fn(&str) -> Option<String>| {
        let all: Option<Vec<_>> = values.iter().map(|value| Some((key, make(value)?, ignore_case))).collect();
        all.filter(|all| !all.is_empty()).map(Test::Path)
    };
    let as_it_is = |value: &str| Some(value.to_owned());
    let hosts = |make: &dyn Fn(&str) -> Vec<String>| {
        let all: Vec<String> =
            values.iter().flat_map(|value| make(value.split(':').next().unwrap_or(value))).collect();
        (!all.is_empty()).then_some(Test::Hosts(all))
    };
    match (fetch, method) {
        ("path" | "path,lower", None | Some("str")) => paths("path", &as_it_is),
        ("path_beg" | "path_dir", None) | ("path", Some("beg" | "dir")) => {
            // Not whole segments, as there: told where it is used.
            paths("path_prefix", &as_it_is)
        }
        ("path_end", None) | ("path", Some("end")) => {
            paths("path_regex", &|end| Some(format!(".*{}", escaped(end))))
        }
        ("path_sub", None) | ("path", Some("sub")) => {
            paths("path_regex", &|part| Some(format!(".*{}.*", escaped(part))))
        }
        ("path_reg", None) | ("path", Some("reg")) => paths("path_regex", &whole_path),
        ("method", None) => Some(Test::Methods(values)).filter(|_| !words.is_empty()),
        ("src", None) => Some(Test::Sources(values)),
        ("ssl_fc", None) if values.is_empty() => Some(Test::Scheme("https")),
        ("dst_port", None) => match values.as_slice() {
            [port] if port == "443" => Some(Test::Scheme("https")),
            [port] if port == "80" => Some(Test::Scheme("http")),
            _ => None,
        },
        (_, None | Some("str")) if fetch_host("hdr(") || fetch_host("req.hdr(") => {
            hosts(&|host| vec![host.to_owned()])
        }
        (_, None) if fetch_host("hdr_dom(") => hosts(&|host| vec![host.to_owned(), format!("*.{host}")]),
        (_, None) if fetch_host("hdr_end(") => hosts(&|host| match host.strip_prefix('.') {
            Some(domain) => vec![format!("*.{domain}")],
            None => vec![host.to_owned(), format!("*.{host}")],
        }),
        (_, None | Some("str" | "found")) => {
            let name = name_in("hdr(").or_else(|| name_in("req.hdr("))?;
            match (method, values.as_slice()) {
                (Some("found"), []) => Some(Test::Headers(name.to_owned())),
                (None | Some("str"), [value]) if !ignore_case => {
                    Some(Test::Headers(format!("{name}={value}")))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// A text that stands for itself in an expression.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        if !char.is_ascii_alphanumeric() && !matches!(char, '/' | '_' | '%') {
            out.push('\\');
        }
        out.push(char);
    }
    out
}
