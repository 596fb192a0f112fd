//! Models of how servers read a path: none of them may be led behind another route than the one that was taken.

use proptest::prelude::*;

use super::*;
use crate::route::path::escape;

fn decode(text: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, escape(after)) {
            (b'%', Some((value, after))) => {
                read.push(value);
                rest = after;
            }
            _ => read.push(*byte),
        }
    }
    read
}

fn replace(text: &[u8], from: u8, to: u8) -> Vec<u8> {
    text.iter().map(|byte| if *byte == from { to } else { *byte }).collect()
}

fn cut_parameters(text: &[u8]) -> Vec<u8> {
    let cut = |segment: &[u8]| segment.split(|byte| *byte == b';').next().unwrap().to_vec();
    text.split(|byte| *byte == b'/').map(cut).collect::<Vec<_>>().join(&b'/')
}

/// Segments with dots resolved and, mostly, empty ones left out.
fn resolve(text: &[u8], merges: bool) -> Option<Vec<u8>> {
    let mut stack: Vec<&[u8]> = Vec::new();
    let inside = text.strip_prefix(b"/").unwrap_or(text);
    for segment in inside.split(|byte| *byte == b'/') {
        match segment {
            b"." => {}
            b"" if merges => {}
            b".." => {
                stack.pop()?;
            }
            segment => stack.push(segment),
        }
    }
    Some([b"/".as_slice(), &stack.join(&b'/')].concat())
}

/// A server's way from the bytes on the wire to the path that it serves.
type Reader = (&'static str, fn(&[u8]) -> Option<Vec<u8>>);

const READERS: &[Reader] = &[
    ("nginx: decode once, merge, resolve", |path| resolve(&decode(path), true)),
    ("Tomcat: cut parameters, decode once, backslash is slash, resolve", |path| {
        resolve(&replace(&decode(&cut_parameters(path)), b'\\', b'/'), true)
    }),
    ("IIS: decode twice, backslash is slash, resolve", |path| {
        resolve(&replace(&decode(&decode(path)), b'\\', b'/'), true)
    }),
    ("PHP behind a front controller: decode, cut at a question mark, resolve", |path| {
        let decoded = decode(path);
        resolve(decoded.split(|byte| *byte == b'?').next().unwrap(), true)
    }),
    ("Express: as it is, dots resolved", |path| resolve(path, false)),
    ("Go: decode once, resolve, cut at a number sign", |path| {
        let decoded = decode(path);
        resolve(decoded.split(|byte| *byte == b'#').next().unwrap(), true)
    }),
    ("Jetty: decode once, then cut parameters, resolve", |path| {
        resolve(&cut_parameters(&decode(path)), true)
    }),
];

fn guarded() -> RouteTable {
    let specs = vec![
        route("", "p:/public"),
        route("", "p:/admin"),
        route("", "=/admin/exact"),
        route("", "p:/public/inner"),
        route("", "p:/"),
    ];
    table(specs)
}

fn root(table: &RouteTable, path: &[u8]) -> RouteDestination {
    // What a server has decoded has no query any more.
    let mut asking = Asking::new("GET", "", "/", &[]);
    asking.path = String::from_utf8_lossy(path).into_owned();
    asking.destination(table)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_reader_is_led_behind_another_route(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "/", "/", "//", "public", "admin", "inner", "exact", "..", ".", "..;", ";x", "%2e", "%2F", "%5c", "%252e", "%252F", "%3f", "%23",
            "%3B", "%255C", "%25252F", "a",
        ]), 1..10),
    ) {
        let path = format!("/{}", pieces.concat());
        let table = guarded();
        let asking = Asking::new("GET", "", &path, &[]);
        let Ok(resolution) = table.resolve(&asking.request(), &mut PatternCaches::default()) else { return Ok(()) };
        if resolution.destination == RouteDestination::Nowhere(0) {
            return Ok(());
        }
        for (name, read) in READERS {
            let Some(seen) = read(&resolution.path) else {
                prop_assert!(false, "{name} is led above the root by {path}");
                continue;
            };
            // A trailing slash is all that an exact route and a prefix may disagree about here.
            let there = root(&table, &seen);
            let is_same = there == resolution.destination
                || (seen.len() < resolution.path.len() && root(&table, &[&seen, b"/".as_slice()].concat()) == resolution.destination);
            prop_assert!(is_same, "{name} reads {path} as {}", String::from_utf8_lossy(&seen));
        }
    }
}

#[test]
fn attacks_are_refused_and_honest_paths_pass() {
    let table = guarded();
    let resolve = |path: &str| {
        let asking = Asking::new("GET", "", path, &[]);
        let found = table.resolve(&asking.request(), &mut PatternCaches::default());
        found.map(|found| (found.destination, String::from_utf8(found.path.into_owned()).unwrap()))
    };
    for path in [
        "/public/..;/admin",
        "/public%2F..%2Fadmin",
        "/public%2f..%2fadmin",
        "/public%5c..%5cadmin",
        "/public/%252e%252e/admin",
        "/public/..%2Fadmin",
        "/admin%2F..%2Fpublic",
        "/public/x%2F..%2F..%2Fadmin",
        "/public%2F..%2F..",
        "/admin/exact;x",
        "/public//..%2F..%2Fadmin",
        "/public/%25252525",
        "/public/%C0%AE",
    ] {
        assert_eq!(resolve(path), Err(PathFault::Ambiguous), "{path}");
    }
    for path in ["/public/../../x", "/public/%00", "/public\\..\\admin", "/public/%", "/public/%0d%0a"] {
        assert_eq!(resolve(path), Err(PathFault::Syntax), "{path}");
    }
    for (path, forwarded, route) in [
        ("/public/../admin", "/admin", 1),
        ("//admin", "/admin", 1),
        ("/public//../admin", "/public/admin", 0),
        ("/public/a%2Fb", "/public/a%2Fb", 0),
        ("/public/a%2fb;c=d", "/public/a%2Fb;c=d", 0),
        ("/public/100%25", "/public/100%25", 0),
        ("/public/%41%2d", "/public/A-", 0),
        ("/public//x", "/public//x", 0),
    ] {
        assert_eq!(resolve(path), Ok((RouteDestination::Route(route), forwarded.to_owned())), "{path}");
    }
    let asking = Asking::new("GET", "", "/public/../admin", &[]);
    let with = |policy| {
        let table = RouteTable::new(table.specs().to_vec(), table.scopes().to_vec(), policy);
        let found = table.resolve(&asking.request(), &mut PatternCaches::default());
        found.map(|found| (found.destination, found.path.into_owned()))
    };
    let raw = PathPolicy { normalize: false, ..PathPolicy::default() };
    assert_eq!(
        with(raw),
        Err(PathFault::Ambiguous),
        "what is forwarded raw must lead where its canonical form does"
    );
    let lax = PathPolicy { allow_ambiguous: true, ..raw };
    assert_eq!(with(lax), Ok((RouteDestination::Route(0), b"/public/../admin".to_vec())));
}
