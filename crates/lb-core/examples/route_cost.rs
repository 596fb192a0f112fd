//! What it costs to find the route of a request, and what a large table takes.
//!
//! `cargo run --release -p lb-core --example route_cost`
//!
//! The numbers are medians of rounds, in nanoseconds for a request unless a line says otherwise. The requests of a table go over all of its
//! routes, in an order without a pattern, so that a table that is larger than the caches is measured as such.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lb_core::head::{RequestHead, Span};
use lb_core::route::{
    Host, HostPattern, PathCondition, PathPolicy, Pattern, PatternCaches, RouteConditions, RouteRequest,
    RouteSpec, RouteTable, Scheme, ScopeSpec, ValueCondition, Want, path, readings,
};

const ROUNDS: usize = 25;
const REQUESTS: usize = 20_000;

/// Bytes that are allocated at the moment.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which counts what it has given.
struct Counting;

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: every call goes to the system's allocator with the arguments of the caller, who keeps its contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A request as owned text.
struct Asked {
    authority: String,
    path: String,
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let prefix = |at: usize| RouteConditions {
        path: PathCondition::Prefix(format!("/p{at}").into_bytes().into()),
        ..RouteConditions::default()
    };
    let host = |at: usize| format!("h{at}.example.com");
    let one_host = |count: usize| {
        let specs = (0..count).map(|at| spec(None, prefix(at))).collect();
        let asked = (0..count).map(|at| Asked { authority: host(0), path: format!("/p{at}/x") }).collect();
        (specs, asked)
    };
    look_up(&mut out, "10 prefixes of one host", 40.0, one_host(10))?;
    look_up(&mut out, "10000 prefixes of one host", 150.0, one_host(10_000))?;
    let cells = || (0..10_000).map(|at| (at / 10, at % 10));
    let beta = |at: usize| {
        let kind = ValueCondition { name: (*b"x-kind").into(), want: Want::Is((*b"beta").into()) };
        if at == 0 { vec![kind] } else { Vec::new() }
    };
    let specs = cells()
        .map(|(of, at)| spec(Some(host(of)), RouteConditions { headers: beta(at), ..prefix(at) }))
        .collect();
    let asked = cells().map(|(of, at)| Asked { authority: host(of), path: format!("/p{at}/x") }).collect();
    look_up(&mut out, "1000 hosts of 10 prefixes", 150.0, (specs, asked))?;
    for count in [16, 32] {
        let regex = |at: usize| {
            let pattern = Pattern::new(&format!("/r{at}/[a-z]+/[0-9]+"), false).ok();
            RouteConditions {
                path: pattern.map_or(PathCondition::Any, PathCondition::Regex),
                ..RouteConditions::default()
            }
        };
        let specs = (0..count).map(|at| spec(None, regex(at))).collect();
        let asked = (0..100)
            .map(|at| Asked { authority: host(0), path: format!("/r{}/abc/{at}", count - 1) })
            .collect();
        look_up(&mut out, &format!("{count} regular expressions"), 1000.0, (specs, asked))?;
    }
    let plain = b"/api/v4/projects/17/issues";
    row(&mut out, "plain path", 15.0, time(|| usize::from(path::is_plain(black_box(plain)))))?;
    let twice = b"/api/v4/projects/a%2Fb;c/issues";
    let all = || {
        let mut count = 0;
        let read = readings::each(black_box(twice), &mut |_: Option<&[u8]>| {
            count += 1;
            true
        });
        count + usize::from(read.is_ok())
    };
    row(&mut out, "all readings of a path", 1500.0, time(all))
}

fn spec(host: Option<String>, conditions: RouteConditions) -> RouteSpec {
    let hosts = host.and_then(|host| HostPattern::parse(&host)).into_iter().collect();
    RouteSpec { hosts, matches: vec![conditions], ..RouteSpec::default() }
}

fn look_up(
    out: &mut impl Write,
    name: &str,
    target: f64,
    (specs, asked): (Vec<RouteSpec>, Vec<Asked>),
) -> std::io::Result<()> {
    let count = specs.len();
    let routes = (0..count).filter_map(|at| u32::try_from(at).ok()).collect();
    let held = HELD.load(Ordering::Relaxed);
    let began = Instant::now();
    let table =
        RouteTable::new(specs, vec![ScopeSpec { routes, ..ScopeSpec::default() }], PathPolicy::default());
    let built = began.elapsed();
    let held = HELD.load(Ordering::Relaxed).saturating_sub(held);
    let mut head = RequestHead::default();
    let start = head.fields.append_text(b"GET");
    head.method = Span::new(start, start.saturating_add(3));
    head.fields.push(b"Host", b"h0.example.com");
    head.fields.push(b"User-Agent", b"curl/8.0");
    head.fields.push(b"X-Kind", b"beta");
    let mut caches = PatternCaches::default();
    let mut at = 0_usize;
    let spent = time(|| {
        // A step that shares no factor with any count here comes to all of them.
        at = at.wrapping_add(7919) % asked.len();
        let Some(asked) = asked.get(at) else { return 0 };
        let Some(host) = Host::of(black_box(asked.authority.as_bytes())) else { return 0 };
        let request = RouteRequest {
            host: &host,
            method: head.method(),
            path: asked.path.as_bytes(),
            query: &[],
            head: &head,
            client: None,
            scheme: Scheme::Http,
            connection: None,
        };
        let found = table.resolve(&request, &mut caches);
        usize::from(black_box(found).is_ok())
    });
    row(out, name, target, spent)?;
    if count > 100 {
        writeln!(
            out,
            "{:<28} built in {:.1} ms; {} bytes a route beside the routes themselves",
            "",
            built.as_secs_f64() * 1e3,
            held / count
        )?;
    }
    Ok(())
}

/// The median of what a call takes, in nanoseconds.
fn time(mut act: impl FnMut() -> usize) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            let done: usize = (0..REQUESTS).map(|_| act()).sum();
            black_box(done);
            began.elapsed().as_secs_f64() * 1e9 / REQUESTS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds.get(ROUNDS / 2).copied().unwrap_or_default()
}

fn row(out: &mut impl Write, name: &str, target: f64, spent: f64) -> std::io::Result<()> {
    writeln!(out, "{name:<28} {spent:>8.1}   (at most {target:.0})")
}
