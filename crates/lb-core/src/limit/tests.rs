//! Rates against an exact log, tables under pressure and by many threads, and keys.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::address::ClientAddress;
use crate::filter::{Chain, ConcurrencyLimit, RateLimit, check_rates};
use crate::head::{RequestHead, Span};

const SECOND: u64 = 1_000_000_000;

/// The moments of all requests that passed: decides by looking at every span that ends now.
struct Log {
    passed: Vec<u64>,
    interval: u128,
    burst: u128,
}

impl Log {
    fn passes(&mut self, now: u64) -> bool {
        let fits = |(at, first): (usize, &u64)| {
            let count = u128::try_from(self.passed.len() - at + 1).unwrap();
            count * self.interval <= self.burst * self.interval + u128::from(now - first)
        };
        let passes = self.passed.iter().enumerate().all(fits);
        if passes {
            self.passed.push(now);
        }
        passes
    }
}

proptest! {
    #[test]
    fn a_rate_decides_as_an_exact_log_does(
        (requests, window, burst) in (1u64..40, 1u64..20, 1u64..30),
        gaps in prop::collection::vec(prop_oneof![Just(0u64), 0..SECOND / 50, 0..SECOND, 0..40 * SECOND], 1..120),
    ) {
        let rate = RequestRate::new(requests, window, burst).unwrap();
        let interval = (window * SECOND).div_ceil(requests);
        let mut log = Log { passed: Vec::new(), interval: interval.into(), burst: burst.into() };
        let table = RateTable::new(64, Instant::now());
        let mut now = 0;
        for gap in gaps {
            now += gap;
            let taken = table.take(77, &rate, now);
            prop_assert_eq!(taken.result.is_ok(), log.passes(now), "at {}", now);
            if let Err(wait) = taken.result {
                // What it says of the next request is exact.
                let at = |moment| rate.decide(log.passed.iter().fold(0, |until: u64, passed| until.max(*passed) + interval), moment);
                prop_assert!(at(now + wait).is_ok() && at(now + wait - 1).is_err());
            }
        }
        // In no span did more pass than the burst and the rate allow.
        for (at, first) in log.passed.iter().enumerate() {
            for (count, last) in (1..).zip(&log.passed[at..]) {
                prop_assert!(count <= burst + (last - first) / interval);
            }
        }
    }
}

#[test]
fn what_is_left_and_when_all_of_it_is() {
    let rate = RequestRate::new(2, 1, 4).unwrap();
    let at = |until, now| {
        let RateStanding { remaining, reset_seconds } = rate.standing(until, now);
        (remaining, reset_seconds)
    };
    assert_eq!(at(0, 5 * SECOND), (4, 0));
    let mut until = 0;
    for (remaining, reset) in [(3, 1), (2, 1), (1, 2), (0, 2)] {
        until = rate.decide(until, 5 * SECOND).unwrap();
        assert_eq!(at(until, 5 * SECOND), (remaining, reset));
    }
    assert_eq!(rate.decide(until, 5 * SECOND), Err(SECOND / 2));
    // Debts of a rate with a larger burst are not kept.
    assert_eq!(rate.decide(u64::MAX, 5 * SECOND), Err(SECOND / 2));
    assert_eq!(at(until, 6 * SECOND), (2, 1));
}

#[test]
fn rates_that_are_none() {
    assert!(
        RequestRate::new(0, 1, 1).is_none()
            && RequestRate::new(1, 0, 1).is_none()
            && RequestRate::new(1, 1, 0).is_none()
    );
    assert!(RequestRate::new(1_000_000, 1, 1).is_some() && RequestRate::new(1_000_001, 1, 1).is_none());
    assert!(RequestRate::new(1, u64::MAX, 1).is_none());
    let most = RequestRate::new(1, 86_400, u64::MAX).unwrap();
    assert!(most.decide(u64::MAX, 1).is_err() && most.decide(0, 1).is_ok());
}

#[test]
fn a_table_is_what_it_was_and_a_full_bucket_forgets_who_owes_least() {
    // One bucket of four places.
    let table = RateTable::new(4, Instant::now());
    let rate = RequestRate::new(1, 1, 10).unwrap();
    assert_eq!(table.capacity(), 4);
    for (hash, times) in [(10, 10), (11, 3), (12, 2), (13, 4)] {
        for _ in 0..times {
            assert_eq!(table.take(hash, &rate, 0).result.map(|_| ()), Ok(()));
        }
    }
    assert!(table.take(10, &rate, 0).result.is_err());
    let new = table.take(14, &rate, 0);
    assert!(new.has_evicted && new.result.is_ok());
    // The new key owes least now, and goes for the one that comes back: with a whole burst.
    assert_eq!(table.take(12, &rate, 0), Taken { result: Ok(SECOND), has_evicted: true });
    assert!(table.take(10, &rate, 0).result.is_err(), "who has used his limit up stays");
    // Who owes nothing any more is no loss.
    assert!(!table.take(15, &rate, 100 * SECOND).has_evicted);
    assert_eq!(table.capacity(), 4);
    assert_eq!(RateTable::new(1, Instant::now()).capacity(), 4);
    assert_eq!(RateTable::new(65_536, Instant::now()).capacity(), 65_536);
}

#[test]
fn what_was_owed_under_a_slow_rate_does_not_outlast_it() {
    let table = RateTable::new(4, Instant::now());
    let (slow, fast) = (RequestRate::new(1, 600, 3).unwrap(), RequestRate::new(1, 1, 2).unwrap());
    for passes in [true, true, true, false] {
        assert_eq!(table.take(10, &slow, 0).result.is_ok(), passes);
    }
    assert_eq!(table.take(10, &fast, SECOND).result, Err(SECOND));
    for passes in [true, false] {
        assert_eq!(table.take(10, &fast, 2 * SECOND).result.is_ok(), passes);
    }
}

#[test]
fn sixteen_bytes_a_key() {
    let text = format!("{:?}", RateTable::new(1, Instant::now()));
    assert_eq!(text.matches("hash").count(), 4);
    assert_eq!(table::BUCKET_BYTES, 4 * 16);
}

#[test]
fn threads_share_what_a_key_may_have() {
    const BURST: u64 = 400_000;
    let together = std::sync::Barrier::new(4);
    let table = RateTable::new(1024, Instant::now());
    let rate = RequestRate::new(1, 10, BURST).unwrap();
    let passed = [AtomicU64::new(0), AtomicU64::new(0)];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                together.wait();
                for _ in 0..BURST / 2 {
                    for (hash, passed) in [2, u64::MAX].into_iter().zip(&passed) {
                        passed.fetch_add(u64::from(table.take(hash, &rate, 5).result.is_ok()), Relaxed);
                    }
                }
            });
        }
    });
    // Two places for one key need three threads within nanoseconds in one bucket: not with one key a bucket.
    assert_eq!(passed.map(|passed| passed.load(Relaxed)), [BURST; 2]);
}

#[test]
fn threads_that_fight_for_a_bucket_lose_nothing_else() {
    let table = RateTable::new(4, Instant::now());
    let rate = RequestRate::new(1, 1, 3).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (table, rate) = (&table, &rate);
            scope.spawn(move || {
                for turn in 0..20_000_u64 {
                    let taken = table.take(2 + (turn * 7 + thread * 13) % 9, rate, turn);
                    assert!(taken.result.is_ok() || taken.result.is_err_and(|wait| wait <= SECOND));
                }
            });
        }
    });
    // Every place is settled, and a key has the burst that the rate allows.
    for _ in 0..3 {
        assert!(table.take(99, &rate, 1000 * SECOND).result.is_ok());
    }
    assert!(table.take(99, &rate, 1000 * SECOND).result.is_err());
}

fn limit(policy: &str, rate: (u64, u64, u64)) -> RateLimit {
    RateLimit {
        policy: policy.into(),
        key: key("client_ip"),
        rate: RequestRate::new(rate.0, rate.1, rate.2).unwrap(),
        max_keys: 64,
        status: 429,
        fields: true,
        dry_run: false,
    }
}

fn key(text: &str) -> LimitKey {
    let parts = LimitKey::parse_parts(text).unwrap();
    LimitKey { parts, ipv4_prefix: 32, ipv6_prefix: 64, on_missing: OnMissing::ClientIp }
}

/// A request of this client for `/a`, with these fields.
fn head(fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::default();
    let start = head.fields.append_text(b"A.example:80");
    head.authority = Span::new(start, start + 12);
    for (name, value) in fields {
        head.fields.push(name.as_bytes(), value.as_bytes());
    }
    head
}

fn client(ip: &str) -> ClientAddress {
    (ip.parse::<IpAddr>().unwrap(), 1).into()
}

fn asked(head: &RequestHead) -> LimitRequest<'_> {
    LimitRequest { client: client("192.0.2.1"), head, path: b"/a", query: b"q=%41&q=b&e", route: "r" }
}

#[test]
fn the_limits_of_all_levels_hold_and_a_refusal_costs_nothing_elsewhere() {
    let now = Instant::now();
    let (wide, narrow) = (limit("wide", (1, 10, 5)), limit("narrow", (1, 1, 2)));
    let dry = RateLimit { dry_run: true, ..limit("dry", (1, 100, 1)) };
    let tables = [RateTable::new(64, now), RateTable::new(64, now), RateTable::new(64, now)];
    let head = head(&[]);
    let ask = |after: u64| {
        let limits = [&wide, &narrow, &dry].into_iter().zip(&tables);
        check_rates(limits, &asked(&head), now + Duration::from_secs(after), |_| panic!("nothing is full"))
    };
    let notice = |limit, remaining, reset_seconds| {
        Some(crate::filter::RateNotice {
            limit,
            standing: Some(RateStanding { remaining, reset_seconds }),
            retry_after: None,
        })
    };
    let found = ask(0);
    assert_eq!((found.refused, found.notice, found.dry_refusals), (None, notice(1, 1, 1), 0));
    let found = ask(0);
    assert_eq!((found.refused, found.notice, found.dry_refusals), (None, notice(1, 0, 2), 1));
    for _ in 0..10 {
        let verdict = ask(0);
        assert_eq!((verdict.refused, verdict.notice.unwrap().retry_after), (Some(429), Some(1)));
        assert_eq!(verdict.notice.unwrap().standing, Some(RateStanding { remaining: 0, reset_seconds: 2 }));
    }
    // Ten refusals by the narrow limit later, the wide one has three left.
    assert_eq!(ask(2).refused, None);
    assert_eq!(ask(2).refused, None);
    assert_eq!(ask(4).refused, None);
    let last = ask(6);
    assert_eq!((last.refused, last.notice.unwrap().limit), (Some(429), 0));
    // The narrow one lets what the wide one refuses go free.
    assert_eq!(ask(6).notice.unwrap().retry_after, Some(4));
    assert_eq!(ask(10).notice, notice(0, 0, 50));
}

fn chain(limits: &[RateLimit]) -> Chain {
    Chain { rate_limits: limits.iter().cloned().map(Arc::new).collect(), ..Chain::default() }
}

fn at_once(policy: &str, max: Option<u32>, by: Option<&str>) -> Chain {
    let adaptive = Some(AdaptiveBounds { min: 3, max: 9 });
    let limit = ConcurrencyLimit { policy: policy.into(), max, key: by.map(key), adaptive, dry_run: false };
    Chain { concurrency: vec![Arc::new(limit)], ..Chain::default() }
}

#[test]
fn a_reload_keeps_what_is_owed() {
    let mut registry = LimitRegistry::default();
    let now = Instant::now();
    let mut tables = |limits: &[RateLimit]| registry.tables([&chain(limits)], now).rates;
    let first = tables(&[limit("a", (1, 1, 1)), limit("b", (1, 1, 1))]);
    let kept = tables(&[limit("a", (9, 1, 5)), limit("a", (9, 1, 5))]);
    assert!(Arc::ptr_eq(&first["a"], &kept["a"]), "another rate changes nothing about what is owed");
    assert_eq!(kept.len(), 1);
    let again = tables(&[limit("a", (9, 1, 5)), limit("b", (1, 1, 1))]);
    assert!(!Arc::ptr_eq(&first["b"], &again["b"]), "it was gone meanwhile");
    let larger = tables(&[RateLimit { max_keys: 128, ..limit("a", (9, 1, 5)) }]);
    assert!(!Arc::ptr_eq(&first["a"], &larger["a"]));
    let by_host = tables(&[RateLimit { key: key("host"), max_keys: 128, ..limit("a", (9, 1, 5)) }]);
    assert!(!Arc::ptr_eq(&larger["a"], &by_host["a"]));
}

#[test]
fn a_reload_keeps_what_runs() {
    let mut registry = LimitRegistry::default();
    let mut tables = |chain: Chain| registry.tables([&chain], Instant::now()).places;
    let first = tables(at_once("a", Some(5), None));
    let kept = tables(at_once("a", Some(9), None));
    assert!(Arc::ptr_eq(&first["a"], &kept["a"]));
    let by_key = tables(at_once("a", Some(9), Some("client_ip")));
    assert!(!Arc::ptr_eq(&first["a"], &by_key["a"]));
    assert!(tables(at_once("a", None, None)).is_empty(), "each worker has its own");
}

#[test]
fn places_are_taken_and_given_back_by_key() {
    let table = PlaceTable::new(true);
    // Keys of one bucket: the high bits say which.
    for hash in 0..8 {
        assert_eq!(table.take(hash + 1, 2), PlaceTaken::Held);
        assert_eq!(table.take(hash + 1, 2), PlaceTaken::Held);
        assert_eq!(table.take(hash + 1, 2), PlaceTaken::Refused);
    }
    assert_eq!(table.running(), 16);
    assert_eq!(table.take(9, 2), PlaceTaken::Uncounted, "no flood of keys keeps others out");
    table.give_back(3);
    assert_eq!(table.take(9, 2), PlaceTaken::Uncounted);
    table.give_back(3);
    assert_eq!(table.take(9, 2), PlaceTaken::Held, "a key of which nothing runs has no place");
    assert_eq!(table.take(3, 2), PlaceTaken::Uncounted);
    // Under a bound that is smaller now, nobody loses a place and nobody gets one.
    assert_eq!(table.take(1, 1), PlaceTaken::Refused);
    table.give_back(1);
    assert_eq!(table.take(1, 1), PlaceTaken::Refused);
    table.give_back(1);
    assert_eq!(table.take(1, 1), PlaceTaken::Held);
    table.give_back(77);
    for hash in [2, 4, 5, 6, 7, 8] {
        table.give_back(hash);
        table.give_back(hash);
    }
    table.give_back(9);
    table.give_back(1);
    assert_eq!(table.running(), 0);
}

#[test]
fn threads_never_run_more_than_there_are_places() {
    let together = std::sync::Barrier::new(4);
    for by_key in [false, true] {
        let table = PlaceTable::new(by_key);
        let running = [AtomicU64::new(0), AtomicU64::new(0)];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    together.wait();
                    for turn in 0..100_000_usize {
                        let (hash, running) = if turn % 3 == 0 { (7, &running[0]) } else { (8, &running[1]) };
                        if table.take(hash, 2) == PlaceTaken::Held {
                            let now = running.fetch_add(1, SeqCst) + 1;
                            assert!(now <= 2, "{now} at once");
                            running.fetch_sub(1, SeqCst);
                            table.give_back(hash);
                        }
                    }
                });
            }
        });
        assert_eq!(table.running(), 0);
    }
}

#[test]
fn networks_of_clients() {
    let count = |prefix: (u8, u8), ip: &str| {
        let key = LimitKey { ipv4_prefix: prefix.0, ipv6_prefix: prefix.1, ..key("client_ip") };
        key.network(ip.parse().unwrap()).to_string()
    };
    for (prefix, ip, network) in [
        ((32, 64), "192.0.2.7", "192.0.2.7"),
        ((24, 64), "192.0.2.7", "192.0.2.0"),
        ((0, 64), "192.0.2.7", "0.0.0.0"),
        ((32, 64), "::ffff:192.0.2.7", "192.0.2.7"),
        ((32, 64), "64:ff9b::c000:207", "192.0.2.7"),
        ((32, 64), "2002:c000:207:1::5", "192.0.2.7"),
        ((32, 64), "64:ff9b:1::c000:207", "64:ff9b:1::"),
        ((32, 64), "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ((32, 128), "2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6"),
        ((32, 56), "2001:db8:1:2ff:3:4:5:6", "2001:db8:1:200::"),
        ((32, 0), "2001:db8::1", "::"),
    ] {
        assert_eq!(count(prefix, ip), network, "{ip}/{prefix:?}");
    }
}

#[test]
fn keys_by_what_requests_have() {
    let secret = RandomState::new();
    let hash = |key: &LimitKey, request: &LimitRequest<'_>| key.hash(request, secret.build_hasher());
    let plain = head(&[]);
    let fields = head(&[("X-Key", "one"), ("Cookie", "s=1; t=2")]);
    let other = head(&[("x-key", "two"), ("Cookie", "s=2; t=2")]);
    let lines = head(&[("X-Key", "one"), ("X-Key", "")]);
    let moved = |head| LimitRequest {
        client: client("192.0.2.9"),
        path: b"/b",
        query: b"q=c",
        route: "s",
        ..asked(head)
    };
    for (text, is_other) in [
        ("client_ip", true),
        ("header:x-KEY", true),
        ("cookie:s", true),
        ("cookie:t", false),
        ("query:q", true),
        ("host", false),
        ("path", true),
        ("route", true),
        ("host+cookie:t", false),
        ("host+path", true),
    ] {
        let key = key(text);
        let one = hash(&key, &asked(&fields)).unwrap();
        assert_eq!(one, hash(&key, &asked(&fields)).unwrap(), "{text}");
        assert_eq!(one != hash(&key, &moved(&other)).unwrap(), is_other, "{text}");
    }
    let by_field = key("header:x-key");
    let by = |head: &RequestHead| hash(&by_field, &asked(head)).unwrap();
    assert_ne!(by(&fields), by(&lines), "a line more is another value");
    let both = key("header:a+header:b");
    let [one, other] = [[("a", "x"), ("b", "y"), ("b", "z")], [("a", "x"), ("a", "y"), ("b", "z")]];
    let [one, other] = [one, other].map(|fields| head(&fields));
    assert_ne!(hash(&both, &asked(&one)), hash(&both, &asked(&other)), "lines of two fields");
    // Without a value the address stands in, and is no value of the field.
    assert_eq!(by(&plain), by(&head(&[("y", "z")])));
    assert_ne!(by(&plain), hash(&key("client_ip"), &asked(&plain)).unwrap());
    assert_ne!(by(&plain), hash(&by_field, &moved(&plain)).unwrap());
    for text in ["header:x-key", "cookie:s", "query:none", "path+cookie:s"] {
        let skip = LimitKey { on_missing: OnMissing::Skip, ..key(text) };
        assert_eq!(hash(&skip, &asked(&plain)), Err(MissingKey::Skip), "{text}");
        let deny = LimitKey { on_missing: OnMissing::Deny, ..skip };
        assert_eq!(hash(&deny, &asked(&plain)), Err(MissingKey::Deny), "{text}");
    }
    // All clients at Unix sockets are one, unless the limit does without.
    let unix = LimitRequest { client: ClientAddress::Unix, ..asked(&plain) };
    assert!(hash(&key("client_ip"), &unix).is_ok());
    let skip = LimitKey { on_missing: OnMissing::Skip, ..key("client_ip") };
    assert_eq!(hash(&skip, &unix), Err(MissingKey::Skip));
    // A value in a query is decoded, and the first one counts.
    let by_query = key("query:q");
    let a = LimitRequest { query: b"q=A", ..asked(&plain) };
    assert_eq!(hash(&by_query, &a), hash(&by_query, &asked(&plain)));
}

#[test]
fn keys_as_they_are_written() {
    for text in ["client_ip", "header:x-key+path", "cookie:s+host+route", "query:a[]"] {
        assert_eq!(key(text).to_string(), text);
    }
    for (text, problem) in [
        ("", ""),
        ("client", ""),
        ("header:", ""),
        ("header:a b", ""),
        ("query:", ""),
        ("path+", ""),
        ("path:x", ""),
        ("path+path", "a part stands in it twice"),
        ("user", "not built yet: users, which need authentication"),
        ("jwt:sub", "not built yet: claims, which need authentication"),
        (
            "header:X-Forwarded-For",
            "the client writes `x-forwarded-for` as it likes; its address is client_ip",
        ),
        ("header:Host", "`host` is written host"),
        ("header:Cookie", "a cookie is written cookie:NAME"),
    ] {
        assert_eq!(LimitKey::parse_parts(text), Err(problem.to_owned()), "{text}");
    }
}

#[test]
fn fields_tell_the_limit_and_what_is_left() {
    let limit = limit("a\"b\\cé", (20, 60, 40));
    assert_eq!(limit.policy_field(), "\"a\\\"b\\\\c?\";q=20;w=60");
    let standing = RateStanding { remaining: 7, reset_seconds: 9 };
    assert_eq!(limit.standing_field(standing), "\"a\\\"b\\\\c?\";r=7;t=9");
}
