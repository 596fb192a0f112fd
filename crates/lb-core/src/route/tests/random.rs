//! Random tables, and requests bent towards them: the compiled table and the naive matcher agree, and the order of routes counts only where
//! they tie.

use proptest::prelude::*;

use super::*;

const HOSTS: &[&str] = &["a.test", "b.a.test", "*.a.test", "*.b.a.test", "*.test", "[::1]", "10.0.0.1"];
const ASKED: &[&str] =
    &["a.test", "b.a.test", "c.b.a.test", "x.test:80", "[::1]:8080", "10.0.0.1", "other", ""];
const PARTS: &[&str] = &["a", "b", "A", "ab", "", "admin", "%2F"];

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PARTS), 0..4).prop_map(|parts| format!("/{}", parts.join("/")))
}

fn value() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["x", "y"]);
    (name, prop::sample::select(vec!["=1", "=2", "", "~[12]"]), any::<bool>()).prop_map(
        |(name, want, absent)| {
            if absent && want.is_empty() { format!("!{name}") } else { format!("{name}{want}") }
        },
    )
}

fn some_conditions() -> impl Strategy<Value = RouteConditions> {
    let kind = prop::sample::select(vec!["", "=", "p:", "p:", "p:", "~"]);
    let values = || prop::collection::vec(value(), 0..2);
    (
        kind,
        path(),
        prop::option::of(prop::sample::select(vec!["GET", "POST"])),
        values(),
        values(),
        values(),
        any::<bool>(),
    )
        .prop_map(|(kind, path, method, headers, query, cookies, ignore_case)| {
            let mut text = match kind {
                "" => String::new(),
                "~" => format!("~{path}(/.*)?"),
                kind => format!("{kind}{path}"),
            };
            method.iter().for_each(|method| text += &format!(" m:{method}"));
            headers.iter().for_each(|value| text += &format!(" h:{value}"));
            query.iter().for_each(|value| text += &format!(" q:{value}"));
            cookies.iter().for_each(|value| text += &format!(" c:{value}"));
            RouteConditions { ignore_case, ..conditions(&text) }
        })
}

fn spec() -> impl Strategy<Value = RouteSpec> {
    let hosts = prop::collection::vec(prop::sample::select(HOSTS), 0..3);
    (hosts, 0..2_u32, prop::collection::vec(some_conditions(), 1..3)).prop_map(
        |(hosts, priority, matches)| RouteSpec {
            name: String::new(),
            hosts: hosts.into_iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
            priority,
            matches,
        },
    )
}

fn asking() -> impl Strategy<Value = Asking> {
    let pairs = || prop::collection::vec((prop::sample::select(vec!["x", "y"]), 1..4_i32), 0..3);
    let method = prop::sample::select(vec!["GET", "POST", "HEAD"]);
    (method, prop::sample::select(ASKED), path(), pairs(), pairs(), pairs()).prop_map(
        |(method, host, path, headers, query, cookies)| {
            let text = |pairs: &[(&str, i32)], between: &str| {
                pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(between)
            };
            let values: Vec<_> =
                headers.iter().map(|(name, value): &(&str, i32)| (*name, value.to_string())).collect();
            let cookie = text(&cookies, "; ");
            let mut fields: Vec<(&str, &str)> =
                values.iter().map(|(name, value)| (*name, value.as_str())).collect();
            fields.push(("Cookie", &cookie));
            Asking::new(method, host, &format!("{path}?{}", text(&query, "&")), &fields)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn compiled_is_naive(specs in prop::collection::vec(spec(), 0..12), askings in prop::collection::vec(asking(), 1..24)) {
        let table = table(specs);
        for asking in &askings {
            asking.destination(&table);
        }
    }

    #[test]
    fn order_counts_only_where_routes_tie(
        specs in prop::collection::vec(spec(), 0..8), askings in prop::collection::vec(asking(), 1..16),
    ) {
        let (table, reversed) = (table(specs.clone()), table(specs.iter().rev().cloned().collect()));
        for asking in &askings {
            let (one, other) = (asking.destination(&table), asking.destination(&reversed));
            let (RouteDestination::Route(one), RouteDestination::Route(other)) = (one, other) else {
                prop_assert_eq!(one, other);
                continue;
            };
            let (one, other) = (&specs[one as usize], &specs[specs.len() - 1 - other as usize]);
            let ranks = |spec: &RouteSpec| {
                let mut ranks = Vec::new();
                for host in spec.hosts.iter().map(Some).chain(spec.hosts.is_empty().then_some(None)) {
                    ranks.extend(spec.matches.iter().map(|found| order::Rank::of(host, spec.priority, found)));
                }
                ranks
            };
            prop_assert!(one == other || ranks(one).iter().any(|rank| ranks(other).contains(rank)));
        }
    }

    #[test]
    fn canonical_is_canonical_and_paths_do_no_harm(path in "/[ab./;%25fF2c\\\\]{0,24}") {
        if let Ok(canonical) = path::canonical(path.as_bytes(), false) {
            prop_assert_eq!(path::canonical(&canonical, false), Ok(canonical.clone()));
            prop_assert!(canonical.starts_with(b"/") && !canonical.starts_with(b"//"));
            prop_assert!(path::is_suspicious(&canonical) || readings_agree(&canonical));
        }
        if path::is_plain(path.as_bytes()) {
            prop_assert_eq!(path::canonical(path.as_bytes(), false), Ok(path.into_bytes()));
        }
    }
}

/// Whether all readings of a path without suspicion differ from it at most in what stands for itself.
fn readings_agree(path: &[u8]) -> bool {
    let mut agree = true;
    let done = readings::each(path, |reading| {
        agree &= reading.is_some_and(|reading| {
            reading.iter().filter(|byte| **byte == b'/').count()
                == path.iter().filter(|byte| **byte == b'/').count()
        });
        agree
    });
    agree || done.is_err()
}
