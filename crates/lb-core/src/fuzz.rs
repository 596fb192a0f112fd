//! Entry points for fuzzing: each takes arbitrary bytes and checks what must always hold.

use std::sync::OnceLock;

use crate::filter::template::{TemplateSource, TemplateVariable};
use crate::filter::{HeaderEdits, HeaderLine, Template};
use crate::head::{Fields, RequestHead, Span};
use crate::route::{
    Host, HostPattern, PathCondition, PathPolicy, Pattern, PatternCaches, RouteConditions, RouteRequest,
    RouteSpec, RouteTable, Scheme, ScopeSpec, ValueCondition, Want, naive, path, readings,
};

/// The most readings that a path may have: each set of habits in each round of decoding, with and without parameters.
const MOST_READINGS: usize = 16 * 4 * 2;

/// A path: its canonical form is its own canonical form, readings are bounded in number, and each begins with a slash and has no dot segments.
pub fn path_readings(input: &[u8]) {
    // The query is no part of a path, and no parser lets a number sign pass.
    if input.iter().any(|byte| matches!(byte, b'?' | b'#')) {
        return;
    }
    for merges in [false, true] {
        let Ok(canonical) = path::canonical(input, merges) else {
            assert!(!path::is_plain(input), "a plain path is canonical");
            continue;
        };
        assert_eq!(path::canonical(&canonical, merges).as_deref(), Ok(&*canonical));
        assert!(canonical.starts_with(b"/") && !canonical.starts_with(b"//"));
        assert!(!path::is_plain(input) || canonical == input);
        let (mut count, mut are_all_it) = (0_usize, true);
        let read = readings::each(&canonical, |reading| {
            count = count.saturating_add(1);
            are_all_it &= reading == Some(&*canonical);
            if let Some(reading) = reading {
                assert!(reading.starts_with(b"/"));
                assert!(!reading.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b"..")));
            }
            true
        });
        assert!(count <= MOST_READINGS, "{count} readings");
        let is_plain_text = !canonical.contains(&b'%') && !path::is_suspicious(&canonical);
        assert!(!is_plain_text || (read.is_ok() && are_all_it), "{count} readings of plain text");
    }
}

fn table() -> RouteTable {
    let pattern = |text| Pattern::new(text, false).ok();
    let path = |path| RouteConditions { path, ..RouteConditions::default() };
    let prefix = |text: &[u8]| path(PathCondition::Prefix(text.into()));
    let field = ValueCondition { name: b"a".as_slice().into(), want: Want::Is(b"b".as_slice().into()) };
    let mut matches = vec![
        prefix(b"/a"),
        prefix(b"/a/b"),
        prefix(b""),
        path(PathCondition::Exact(b"/a/b/c".as_slice().into())),
        RouteConditions { methods: vec![b"POST".as_slice().into()], ..prefix(b"/a") },
        RouteConditions { headers: vec![field.clone()], ..prefix(b"/a") },
        RouteConditions { query: vec![field.clone()], ..RouteConditions::default() },
        RouteConditions { cookies: vec![field], ignore_case: true, ..prefix(b"/x") },
    ];
    matches.extend(pattern("/[a-z]+/[0-9]*").map(|pattern| path(PathCondition::Regex(pattern))));
    let hosts: [&[&str]; 4] = [&[], &["a.b"], &["*.b"], &["c.a.b", "*.a.b"]];
    let specs: Vec<RouteSpec> = (0..hosts.len().saturating_mul(matches.len()))
        .map(|at| RouteSpec {
            hosts: hosts
                .get(at.wrapping_rem(hosts.len()))
                .copied()
                .unwrap_or_default()
                .iter()
                .filter_map(|host| HostPattern::parse(host))
                .collect(),
            priority: u32::from(at.wrapping_rem(7) == 0),
            matches: matches.get(at.wrapping_div(hosts.len())).into_iter().cloned().collect(),
            ..RouteSpec::default()
        })
        .collect();
    let routes = (0..specs.len()).filter_map(|at| u32::try_from(at).ok()).collect();
    let scope = ScopeSpec { routes, ..ScopeSpec::default() };
    RouteTable::new(specs, vec![scope], PathPolicy::default())
}

/// A request in lines: method, authority, target, and fields. The compiled table sends it where the naive one does, and a path that passes leads
/// where it says in the form that is forwarded.
pub fn route_match(input: &[u8]) {
    static TABLE: OnceLock<RouteTable> = OnceLock::new();
    let table = TABLE.get_or_init(table);
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut head = RequestHead::default();
    let method = lines.next().unwrap_or_default();
    let start = head.fields.append_text(method);
    head.method = Span::new(start, start.saturating_add(method.len()));
    let Some(host) = Host::of(lines.next().unwrap_or_default()) else { return };
    let target = lines.next().unwrap_or_default();
    for line in lines.take(16) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            head.fields.push(name, value.trim_ascii());
        }
    }
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    let (path, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let request = RouteRequest {
        host: &host,
        method: head.method(),
        path,
        query,
        head: &head,
        client: None,
        scheme: Scheme::Http,
        connection: None,
    };
    let mut caches = PatternCaches::default();
    assert_eq!(table.find(&request, &mut caches), naive::find(table, &request, &mut caches));
    let Ok(resolution) = table.resolve(&request, &mut caches) else { return };
    let forwarded = RouteRequest { path: &resolution.path, ..request };
    assert_eq!(table.find(&forwarded, &mut caches), resolution.destination);
    let again = table.resolve(&forwarded, &mut caches);
    assert!(
        again.is_ok_and(|again| again.path == resolution.path),
        "what is forwarded passes once more as it is"
    );
}

struct Hostile<'a>(&'a [u8]);

impl TemplateSource for Hostile<'_> {
    fn value(&self, _variable: &TemplateVariable, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

/// A template in the first line, and behind it a value for whatever stands in it: no head that comes of it has a control character, whatever is
/// bound first.
pub fn template(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let (text, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(template) = Template::parse(text) else { return };
    assert_eq!(template.as_constant().is_some(), template.variables().next().is_none());
    let line = HeaderLine { name: b"x".as_slice().into(), value: template };
    let edits = HeaderEdits::new(Vec::new(), vec![line.clone()], Vec::new());
    let is_plain = !text.chars().any(char::is_control);
    let of = |edits: &HeaderEdits, source: &Hostile<'_>| {
        let mut fields = Fields::default();
        edits.apply(&edits.render(source), &mut fields);
        let values: Vec<Vec<u8>> = fields.iter().map(|field| field.value.to_vec()).collect();
        values
    };
    let direct = of(&edits, &Hostile(value));
    assert_eq!(direct, of(&edits.bound(&Hostile(value)), &Hostile(value)));
    if is_plain {
        let hostile = direct.iter().flatten().any(|byte| *byte != b'\t' && byte.is_ascii_control());
        assert!(!hostile, "{direct:?}");
    }
}

/// The first bytes of a connection: the same whether they come at once or one by one, never past what has come, and bounded.
pub fn proxy_protocol(input: &[u8]) {
    use crate::proxy_protocol::{MOST_V2_BYTES, Reading, read};
    let whole = read(input);
    for length in 0..input.len().min(64) {
        let part = read(input.get(..length).unwrap_or_default());
        assert!(part == Ok(Reading::More) || part == whole, "{length} bytes say otherwise");
    }
    match whole {
        Ok(Reading::Header(_, length)) => assert!(length <= input.len().min(MOST_V2_BYTES) && length > 14),
        Ok(Reading::More) => assert!(input.len() < MOST_V2_BYTES),
        Ok(Reading::Absent) | Err(_) => {}
    }
}

/// What proxies say of a client, one field to a line as `name: value`; the first line says how they are believed. Nobody else is believed, and
/// nothing grows beyond what the policy allows.
pub fn forwarded(input: &[u8]) {
    use crate::forwarded::{AddressSource, TrustPolicy};
    use crate::network::NetworkMap;
    use crate::route::IpNetwork;

    let mut lines = input.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let source = match first.first() {
        Some(b'f') => AddressSource::Forwarded,
        Some(b'h') => AddressSource::Field("x-real-ip".into()),
        _ => AddressSource::XForwardedFor,
    };
    let networks = ["10.0.0.0/8", "2001:db8::/32"].into_iter().filter_map(IpNetwork::parse);
    let policy = TrustPolicy {
        trusted: NetworkMap::new(networks.map(|network| (network, ()))),
        source,
        appends: first.contains(&b'a'),
        max_hops: 4,
        sends_forwarded: false,
    };
    let mut fields = Fields::default();
    for line in lines.take(16) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            fields.push(name, value.trim_ascii());
        }
    }
    let stranger = ([192, 0, 2, 1], 1).into();
    let of_stranger = policy.origin(&fields, stranger, Scheme::Http);
    assert!(of_stranger.client == stranger && !of_stranger.is_trusted(), "a stranger is believed");
    let proxy = ([10, 0, 0, 1], 1).into();
    let of_proxy = policy.origin(&fields, proxy, Scheme::Http);
    assert!(of_proxy.is_trusted());
    if let Some(told) = &of_proxy.told {
        assert!(told.hops.len() <= policy.max_hops, "{:?}", told.hops);
        assert!(told.host.as_ref().is_none_or(|host| Host::of(host).is_some()), "{:?}", told.host);
    }
}
