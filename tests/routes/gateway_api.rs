//! The cases of `gateway_api.txt` against the gateway, over each version of HTTP.

use std::collections::BTreeSet;

use testkit::{Backend, Client, Config, Gateway, H2Client, H3Client, Listener, Pool};

const ROWS: &str = include_str!("gateway_api.txt");

/// Routes of a table may be so many.
const BACKENDS: usize = 10;

/// A request of the file.
struct Row<'a> {
    line: &'a str,
    method: &'a str,
    target: &'a str,
    host: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    /// The name of the backend, or a status.
    expected: &'a str,
}

impl<'a> Row<'a> {
    fn read(line: &'a str) -> Self {
        let (request, expected) = line.split_once(" -> ").unwrap();
        let words: Vec<&str> = request.split(' ').collect();
        let host = words.iter().find_map(|word| word.strip_prefix('@')).unwrap_or("test.example");
        let rest = words[3..].iter().filter(|word| !word.starts_with('@'));
        let fields = rest.map(|word| word.split_once(':').unwrap()).collect();
        Self { line, method: words[1], target: words[2], host, fields, expected }
    }

    #[track_caller]
    fn judge(&self, version: &str, status: u16, backend: Option<String>) {
        let found = backend.unwrap_or_else(|| status.to_string());
        assert_eq!(found, self.expected, "{version}: {}", self.line);
    }
}

/// A route of the file as TOML.
fn route(number: &str, text: &str) -> String {
    let (hosts, sets) = match text.strip_prefix('@').and_then(|text| text.split_once(' ')) {
        Some((hosts, sets)) => (hosts.split(',').collect(), sets),
        None => (Vec::new(), text),
    };
    let sets: Vec<String> = sets.split(" | ").map(conditions).collect();
    format!("{{ hosts = {hosts:?}, matches = [{}], pool = \"p{number}\" }}", sets.join(", "))
}

fn conditions(text: &str) -> String {
    let (mut keys, mut lists) = (Vec::new(), [const { Vec::<String>::new() }; 3]);
    for word in text.split(' ') {
        match word.split_once([':', '=', '~']).map(|(kind, rest)| (kind, &word[kind.len()..], rest)) {
            Some(("p", _, path)) => keys.push(format!("path_prefix = {path:?}")),
            Some(("", start, path)) if start.starts_with('=') => keys.push(format!("path = {path:?}")),
            Some(("", _, pattern)) => keys.push(format!("path_regex = {pattern:?}")),
            Some(("m", _, method)) => lists[0].push(method.to_owned()),
            Some(("h", _, field)) => lists[1].push(field.to_owned()),
            Some(("q", _, parameter)) => lists[2].push(parameter.to_owned()),
            _ => panic!("{word}"),
        }
    }
    let names = ["methods", "headers", "query"];
    keys.extend(
        names
            .iter()
            .zip(&lists)
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name} = {list:?}")),
    );
    format!("{{ {} }}", keys.join(", "))
}

pub(crate) fn the_rows_hold_over_http_1_2_and_3() {
    let backends: Vec<_> = (1..=BACKENDS).map(|number| Backend::standard(&number.to_string())).collect();
    let mut config = Config::new();
    for (number, backend) in (1..).zip(&backends) {
        config = config.pool(
            Pool::named(&format!("p{number}"))
                .backend_with(backend.address, &[("protocol", "\"h1\"".to_owned())]),
        );
    }
    let (mut groups, mut numbers) = (Vec::new(), BTreeSet::new());
    for group in ROWS.split("\n[").skip(1) {
        let name = &group[..1];
        let lines: Vec<&str> = group.lines().skip(1).filter(|line| !line.is_empty()).collect();
        let (routes, rows): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(|line| line.contains(": "));
        let routes: Vec<_> = routes
            .iter()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(number, text)| route(number, text))
            .collect();
        let table = format!("routes.{name} = [\n{}\n]\n", routes.join(",\n"));
        let listeners = [Listener::h2c(), Listener::quic()]
            .map(|listener| listener.key("route_tables", vec![name.to_owned()]));
        let addresses = [listeners[0].address, listeners[1].address];
        config = listeners.into_iter().fold(config, Config::listener);
        groups.push((table, addresses, rows));
    }
    let tables: String = groups.iter().map(|(table, ..)| table.as_str()).collect();
    let gateway = Gateway::start(config.text(&tables));
    for (_, [tcp, udp], rows) in &groups {
        let mut over_udp = H3Client::connect(*udp).unwrap();
        for row in rows.iter().map(|line| Row::read(line)) {
            assert!(numbers.insert(row.line.split(' ').next().unwrap()), "{} stands there twice", row.line);
            let mut fields = vec![("Host", row.host)];
            fields.extend(&row.fields);
            let response =
                Client::connect(*tcp).unwrap().request(row.method, row.target, &fields, b"").unwrap();
            row.judge("HTTP/1.1", response.status, response.header("x-backend"));

            let lower: Vec<_> =
                row.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
            let lower: Vec<_> = lower.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let mut client = H2Client::connect(*tcp).unwrap();
            client.authority = row.host.to_owned();
            let response = client.request(row.method, row.target, &lower, b"").unwrap();
            row.judge("HTTP/2", response.status(), response.header("x-backend"));

            over_udp.authority = row.host.to_owned();
            let response = over_udp.request(row.method, row.target, &lower, b"").unwrap();
            let backend = response.head.as_ref().and_then(|head| head.get("x-backend"));
            row.judge("HTTP/3", response.status(), backend);
        }
    }
    assert_eq!(numbers.len(), 82, "rows were lost on the way");
    let faults: Vec<_> = backends.iter().flat_map(Backend::faults).collect();
    assert!(faults.is_empty(), "{faults:?}");
    drop(gateway);
}
