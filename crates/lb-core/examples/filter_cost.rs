//! What filters cost a request: a look-up in an access list, a rate limit, an edit of a field.
//!
//! `cargo run --release -p lb-core --example filter_cost`
//!
//! The numbers are nanoseconds, medians of rounds. "cold" is a look-up among keys or entries that no cache of the processor holds.

use std::hint::black_box;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use lb_core::address::ClientAddress;
use lb_core::filter::{AccessMap, HeaderEdits, HeaderLine, RateLimit, Template, check_rates};
use lb_core::head::{RequestHead, Span};
use lb_core::limit::{LimitKey, LimitRequest, OnMissing, RateTable, RequestRate};
use lb_core::rng::SplitMix64;
use lb_core::route::IpNetwork;

const ROUNDS: usize = 25;
const TURNS: usize = 20_000;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<58} {:>8} {:>8}", "nanoseconds", "measured", "target")?;
    let mut line = |what: &str, cost: f64, target: u32| writeln!(out, "{what:<58} {cost:>8.1} {target:>8}");
    let list = access_list(100_000);
    let mut rng = SplitMix64::new(1);
    let clients: Vec<ClientAddress> = (0..TURNS).map(|_| client(rng.next_u64())).collect();
    line(
        "access: 100 000 entries, cold",
        median(|at| {
            black_box(list.lets_in(pick(&clients, at)));
        }),
        60,
    )?;

    let rate = RequestRate::new(1_000_000, 1, 1_000_000_000).unwrap_or_else(unreachable);
    let start = Instant::now();
    let table = RateTable::new(65_536, start);
    let hashes: Vec<u64> = (0..TURNS).map(|_| rng.next_u64()).collect();
    let mut moment = 0_u64;
    line(
        "GCRA: one key",
        median(|_| {
            moment = moment.wrapping_add(100);
            black_box(table.take(77, &rate, moment));
        }),
        40,
    )?;
    line(
        "GCRA: 20 000 keys in a table for 65 536",
        median(|at| {
            moment = moment.wrapping_add(100);
            black_box(table.take(pick(&hashes, at), &rate, moment));
        }),
        40,
    )?;
    let small = RateTable::new(4_096, start);
    line(
        "GCRA: 20 000 keys in a table for 4096, which forgets",
        median(|at| {
            moment = moment.wrapping_add(100);
            black_box(small.take(pick(&hashes, at), &rate, moment));
        }),
        40,
    )?;

    let mut head = RequestHead::default();
    let authority = head.fields.append_text(b"www.example.org");
    head.authority = Span::new(authority, authority.saturating_add(15));
    for (name, value) in FIELDS {
        head.fields.push(name.as_bytes(), value.as_bytes());
    }
    for (what, key) in
        [("client_ip", "client_ip"), ("host+path", "host+path"), ("header:x-api-key", "header:x-api-key")]
    {
        let limit = RateLimit {
            policy: "api".into(),
            key: LimitKey {
                parts: LimitKey::parse_parts(key).unwrap_or_default(),
                ipv4_prefix: 32,
                ipv6_prefix: 64,
                on_missing: OnMissing::ClientIp,
            },
            rate,
            max_keys: 65_536,
            status: 429,
            fields: true,
            dry_run: false,
        };
        let name = format!("rate_limit: whole check by {what}, without the clock");
        line(
            &name,
            median(|at| {
                let client = pick(&clients, at);
                let request = LimitRequest {
                    client,
                    head: &head,
                    path: b"/a/path/of/some/length",
                    query: b"",
                    route: "",
                };
                black_box(check_rates(std::iter::once((&limit, &table)), &request, start, |_| ()));
            }),
            40,
        )?;
    }
    line(
        "the clock",
        median(|_| {
            black_box(Instant::now());
        }),
        0,
    )?;

    let text = |name: &str, value: &str| HeaderLine {
        name: name.as_bytes().into(),
        value: Template::parse(value).unwrap_or_else(|_| unreachable()),
    };
    let set = vec![text("X-Site", "shop"), text("X-Frame-Options", "DENY")];
    let edits = HeaderEdits::new(vec![b"x-powered-by"[..].into()], set, vec![text("X-Via", "gateway")]);
    // What copying and clearing the head costs is not of the edits.
    let mut copy = head.clone();
    let mut blank = || {
        copy.clear();
        for (name, value) in FIELDS {
            copy.fields.push(name.as_bytes(), value.as_bytes());
        }
        black_box(&mut copy);
    };
    let without = median(|_| blank());
    let mut copy = head.clone();
    let with = median(|_| {
        copy.clear();
        for (name, value) in FIELDS {
            copy.fields.push(name.as_bytes(), value.as_bytes());
        }
        let rendered = edits.render(&200_u16);
        edits.apply(&rendered, &mut copy.fields);
        black_box(&mut copy);
    });
    line("edits: a field removed, two set, one added; each", (with - without) / 4.0, 30)
}

const FIELDS: [(&str, &str); 8] = [
    ("Host", "www.example.org"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Cookie", "session=0123456789abcdef; theme=dark"),
    ("X-Api-Key", "0123456789abcdef0123456789abcdef"),
    ("X-Powered-By", "hands"),
];

fn unreachable<T>() -> T {
    std::process::exit(1)
}

fn pick<T: Copy>(all: &[T], at: usize) -> T {
    all.get(at).copied().unwrap_or_else(unreachable)
}

/// Networks of all lengths, half of them IPv6.
fn access_list(count: u64) -> AccessMap {
    let mut rng = SplitMix64::new(7);
    let network = |at: u64, bits: u64| {
        let text = if at.is_multiple_of(2) {
            let length = 16 + bits % 17;
            let address = u32::try_from(bits >> 32).unwrap_or_default();
            let mask = u32::MAX.checked_shl(32 - u32::try_from(length).unwrap_or(32)).unwrap_or(0);
            format!("{}/{length}", Ipv4Addr::from_bits(address & mask))
        } else {
            let length = 32 + bits % 33;
            let mask = u128::MAX.checked_shl(128 - u32::try_from(length).unwrap_or(128)).unwrap_or(0);
            format!("{}/{length}", Ipv6Addr::from_bits((u128::from(bits) << 64) & mask))
        };
        IpNetwork::parse(&text)
    };
    let networks: Vec<_> = (0..count).filter_map(|at| network(at, rng.next_u64())).collect();
    let (allow, deny) = networks.split_at(networks.len() / 2);
    AccessMap::new(Some(allow.iter().copied()), deny.iter().copied())
}

fn client(bits: u64) -> ClientAddress {
    let ip = match bits % 2 {
        0 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits >> 32).unwrap_or_default())),
        _ => IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits) << 64)),
    };
    (ip, 1).into()
}

/// The median of rounds, nanoseconds a turn.
fn median(mut turn: impl FnMut(usize)) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for at in 0..TURNS {
                turn(at);
            }
            start.elapsed().as_nanos() as f64 / TURNS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}
