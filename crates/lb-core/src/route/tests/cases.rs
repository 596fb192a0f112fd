//! Cases by their numbers, of the Gateway API's suite and some of ours. A row that fails names itself.

use super::*;

/// The rows that end-to-end tests run against the gateway as well.
const ROWS: &str = include_str!("../../../../../tests/routes/gateway_api.txt");

#[test]
fn the_rows_hold_on_both_matchers() {
    let mut rows = 0;
    for group in ROWS.split("\n[").skip(1) {
        let lines: Vec<_> = group.lines().skip(1).filter(|line| !line.is_empty()).collect();
        let (routes, asked): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(|line| line.contains(": "));
        let specs = routes.iter().map(|line| {
            let text = line.split_once(": ").unwrap().1;
            match text.strip_prefix('@').and_then(|text| text.split_once(' ')) {
                Some((hosts, matches)) => route(hosts, matches),
                None => route("", text),
            }
        });
        let table = table(specs.collect());
        for line in asked {
            let (request, expected) = line.split_once(" -> ").unwrap();
            let words: Vec<_> = request.split(' ').collect();
            let host = words.iter().find_map(|word| word.strip_prefix('@')).unwrap_or("test.example");
            let fields: Vec<_> = words[3..].iter().filter_map(|word| word.split_once(':')).collect();
            let fields: Vec<_> = fields.into_iter().filter(|(name, _)| !name.starts_with('@')).collect();
            let destination = Asking::new(words[1], host, words[2], &fields).destination(&table);
            let expected = match expected {
                "404" => RouteDestination::Nowhere(0),
                number => RouteDestination::Route(number.parse::<u32>().unwrap() - 1),
            };
            assert_eq!(destination, expected, "{line}");
            rows += 1;
        }
    }
    assert_eq!(rows, 82, "rows were lost on the way");
}

/// A row: what it is about, method, host, target, fields, and the route that takes it, counted from 1; 0 for none.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [(&'a str, &'a str)], u32);

fn check(table: &RouteTable, rows: &[Row<'_>]) {
    for (number, method, host, target, fields, route) in rows {
        let destination = Asking::new(method, host, target, fields).destination(table);
        let expected = match route {
            0 => RouteDestination::Nowhere(0),
            route => RouteDestination::Route(route - 1),
        };
        assert_eq!(destination, expected, "{number}");
    }
}

#[test]
fn n_10_conditions_fall_through_across_hosts_but_not_across_virtual_hosts() {
    let specs = || vec![route("foo.bar.com", "=/two"), route("*.bar.com", "=/three")];
    check(&table(specs()), &[("N10", "GET", "foo.bar.com", "/three", &[], 2)]);
    let host = |text| vec![HostPattern::parse(text).unwrap()];
    let scope = |hosts, routes| ScopeSpec { hosts, routes, has_fallback: false };
    let scopes = vec![
        ScopeSpec { has_fallback: true, ..ScopeSpec::default() },
        scope(host("foo.bar.com"), vec![0]),
        scope(host("*.bar.com"), vec![1]),
    ];
    let table = RouteTable::new(specs(), scopes, PathPolicy::default());
    let of = |host, path| Asking::new("GET", host, path, &[]).destination(&table);
    assert_eq!(of("foo.bar.com", "/three"), RouteDestination::Nowhere(1));
    assert_eq!(of("foo.bar.com", "/two"), RouteDestination::Route(0));
    assert_eq!(of("x.bar.com", "/three"), RouteDestination::Route(1));
    assert_eq!(of("bar.com", "/three"), RouteDestination::Fallback(0));
}

#[test]
fn r_25_options_of_the_whole_server_matches_no_path() {
    let table = table(vec![route("", "p:/ m:OPTIONS"), route("", "~.* m:OPTIONS"), route("", "h:a")]);
    let of = |target, fields| Asking::new("OPTIONS", "", target, fields).destination(&table);
    assert_eq!(of("*", &[]), RouteDestination::Nowhere(0));
    assert_eq!(of("*", &[("a", "")]), RouteDestination::Route(2));
    assert_eq!(of("/", &[]), RouteDestination::Route(1));
}

#[test]
fn priority_letter_case_sources_and_cookies() {
    let mut specs = vec![
        route("", "=/a"),
        route("", "p:/"),
        route("", "p:/Shop"),
        route("", "p:/ c:beta=1"),
        route("", "p:/ c:beta~[2-9]"),
    ];
    specs[1].priority = 1;
    specs[1].matches[0].sources = vec![IpNetwork::parse("198.51.100.0/24").unwrap()];
    specs[2].matches[0].ignore_case = true;
    let table = table(specs);
    check(
        &table,
        &[
            ("exact", "GET", "", "/a", &[], 1),
            ("case", "GET", "", "/sHOP/x", &[], 3),
            ("cookie", "GET", "", "/", &[("Cookie", "a=b; beta=1; beta=7")], 4),
            ("cookie by regex", "GET", "", "/", &[("Cookie", "a=b"), ("Cookie", "beta=7")], 5),
            ("another cookie", "GET", "", "/", &[("Cookie", "alphabeta=1")], 0),
        ],
    );
    let asking = Asking::new("GET", "", "/a", &[]);
    let from = |client: [u8; 4]| RouteRequest { client: Some(client.into()), ..asking.request() };
    let mut caches = PatternCaches::default();
    assert_eq!(
        table.find(&from([198, 51, 100, 9]), &mut caches),
        RouteDestination::Route(1),
        "priority goes before paths"
    );
    assert_eq!(
        table.find(&RouteRequest { client: None, ..from([0; 4]) }, &mut caches),
        RouteDestination::Route(0)
    );
}

#[test]
fn a_second_route_that_could_never_match_is_found() {
    let table = table(vec![
        route("a.b,c.d", "p:/x h:v=1"),
        route("c.d", "p:/x h:v=1"),
        route("c.d", "p:/x h:v=2"),
        route("c.d,e.f", "p:/x h:v=1"),
        route("", "p:/x | p:/x"),
    ]);
    assert_eq!(naive::shadowed(&table, 0), [(0, 1)]);
}

#[test]
fn networks_are_read_strictly() {
    let network = |text| IpNetwork::parse(text).unwrap();
    assert!(
        network("10.0.0.0/8").contains([10, 9, 8, 7].into())
            && !network("10.0.0.0/8").contains([11, 0, 0, 0].into())
    );
    assert!(
        network("0.0.0.0/0").contains([10, 9, 8, 7].into())
            && !network("::/0").contains([10, 9, 8, 7].into())
    );
    assert!(network("2001:db8::/32").contains("2001:db8:1::".parse().unwrap()));
    assert!(network("192.0.2.1").contains("::ffff:192.0.2.1".parse().unwrap()));
    for bad in ["10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0.0/", "a", "", "/8"] {
        assert_eq!(IpNetwork::parse(bad), None, "{bad}");
    }
}
