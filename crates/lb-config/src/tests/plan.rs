//! What a reload would do.

use super::parse;
use crate::plan::Plan;

const BASE: &str = "
[[listeners]]
address = \"0.0.0.0:80\"
protocol = \"h1\"
[[listeners.backends]]
address = \"10.0.0.1:80\"
[[listeners.backends]]
address = \"10.0.0.2:80\"

[[listeners]]
address = \"0.0.0.0:81\"
protocol = \"tcp\"
[[listeners.backends]]
address = \"10.0.0.1:81\"
";

fn scopes(changes: &[crate::KeyChange]) -> Vec<String> {
    changes.iter().map(|change| change.scope.clone()).collect()
}

/// What the plan from [`BASE`] to it with `from` replaced by `to` says: live changes, then the others.
fn plan(from: &str, to: &str) -> (Vec<String>, Vec<String>) {
    assert!(BASE.contains(from));
    let plan = Plan::between(&parse(BASE), &parse(&BASE.replacen(from, to, 1)));
    let say =
        |changes: &[crate::KeyChange]| changes.iter().map(|c| format!("{} | {}", c.field, c.scope)).collect();
    (say(&plan.live), say(&plan.restart))
}

fn live(from: &str, to: &str, expected: &[&str]) {
    assert_eq!(plan(from, to), (expected.iter().map(|text| (*text).to_owned()).collect(), vec![]));
}

fn restart(from: &str, to: &str, expected: &[&str]) {
    assert_eq!(plan(from, to), (vec![], expected.iter().map(|text| (*text).to_owned()).collect()));
}

#[test]
fn comments_and_order_of_listeners_are_no_change() {
    live("\n", "\n# a comment\n", &[]);
    let listeners: Vec<_> = BASE.split("\n\n").collect();
    let turned = parse(&format!("{}\n\n{}", listeners[1], listeners[0]));
    assert!(Plan::between(&parse(BASE), &turned).is_empty());
}

#[test]
fn backends_change_live_and_by_name() {
    live(
        "10.0.0.2:80",
        "10.0.0.3:80",
        &["listener.backends | listener 0.0.0.0:80 backends: removed 10.0.0.2:80, added 10.0.0.3:80"],
    );
    live(
        "address = \"10.0.0.1:80\"",
        "address = \"10.0.0.1:80\"\nweight = 5",
        &["listener.backends | listener 0.0.0.0:80 backend 10.0.0.1:80 weight: 1 -> 5"],
    );
    live(
        "address = \"10.0.0.1:81\"",
        "address = \"10.0.0.1:81\"\n[[listeners.backends]]\naddress = \"10.0.0.1:81\"",
        &["listener.backends | listener 0.0.0.0:81 backends: in another order or number"],
    );
}

#[test]
fn blocks_of_a_listener_change_live() {
    let http = "protocol = \"h1\"\n[listeners.http]\nheader_timeout_ms = 2500\nretries = 2";
    live(
        "protocol = \"h1\"",
        http,
        &[
            "listener.l7 | listener 0.0.0.0:80 http.header_timeout_ms: 10000 -> 2500",
            "listener.l7 | listener 0.0.0.0:80 http.retries: 3 -> 2",
        ],
    );
    live(
        "protocol = \"h1\"",
        "protocol = \"h1\"\n[listeners.websocket]",
        &["listener.l7 | listener 0.0.0.0:80 websocket: added"],
    );
    live(
        "protocol = \"tcp\"",
        "protocol = \"tcp\"\n[listeners.tcp]\nsplice = false",
        &["listener.tcp | listener 0.0.0.0:81 tcp.splice: true -> false"],
    );
    live(
        "protocol = \"tcp\"",
        "protocol = \"tcp\"\ndrain_timeout_ms = 5000",
        &["drain_timeout_ms | listener 0.0.0.0:81 drain_timeout_ms: 10000 -> 5000"],
    );
}

#[test]
fn optional_values_are_shown_as_they_come_and_go() {
    let tcp = |line: &str| parse(&BASE.replace("\"tcp\"", &format!("\"tcp\"\n[listeners.tcp]\n{line}")));
    let said = |running, new| scopes(&Plan::between(&tcp(running), &tcp(new)).live);
    let (unset, five, six) = ("", "idle_timeout_ms = 5000", "idle_timeout_ms = 6000\nsplice = false");
    let idle = |what: &str| format!("listener 0.0.0.0:81 tcp.idle_timeout_ms: {what}");
    let splice = |what: &str| format!("listener 0.0.0.0:81 tcp.splice: {what}");
    assert_eq!(said(unset, five), [idle("unset -> 5000")]);
    assert_eq!(said(five, six), [idle("5000 -> 6000"), splice("true -> false")]);
    assert_eq!(said(six, unset), [idle("6000 -> unset"), splice("false -> true")]);
    let ws = |line: &str| parse(&BASE.replace("\"h1\"", &format!("\"h1\"\n{line}")));
    let said = |running, new| scopes(&Plan::between(&ws(running), &ws(new)).live);
    let (plain, other) = ("[listeners.websocket]", "[listeners.websocket]\nidle_timeout_seconds = 5");
    assert_eq!(said(plain, other), ["listener 0.0.0.0:80 websocket.idle_timeout_seconds: 60 -> 5"]);
    assert_eq!(said(other, ""), ["listener 0.0.0.0:80 websocket: removed"]);
    let dns = |servers: &str| parse(&format!("dns.servers = [{servers}]\n{BASE}"));
    let plan = Plan::between(&dns(""), &dns("\"1.1.1.1\", \"8.8.8.8\""));
    assert_eq!(scopes(&plan.restart), [r#"dns.servers: [] -> ["1.1.1.1:53", "8.8.8.8:53"]"#]);
}

#[test]
fn certificates_and_sources_are_told_by_their_keys() {
    let first = "cert_path = \"a.pem\"\nkey_path = \"a.key\"\n";
    let second = "[[listeners.tls.certificates]]\ncert_path = \"b.pem\"\nkey_path = \"b.key\"\n";
    let tls = |lines: &str| parse(&BASE.replacen("\"h1\"", &format!("\"h1s\"\n[listeners.tls]\n{lines}"), 1));
    let said = |running: &str, new: &str| {
        let plan = Plan::between(&tls(running), &tls(new));
        assert!(plan.restart.is_empty());
        scopes(&plan.live)
    };
    let both = format!("{first}{second}");
    let listener = "listener 0.0.0.0:80 tls";
    assert_eq!(said(first, &both), [format!("{listener}.certificates[0]: added")]);
    assert_eq!(said(&both, first), [format!("{listener}.certificates[0]: removed")]);
    let other = both.replace("b.key", "c.key");
    let line = format!("{listener}.certificates[0].key_path: \"b.key\" -> \"c.key\"");
    assert_eq!(said(&both, &other), [line.as_str()]);
    let (running, new) = (tls(&both), tls(&other));
    assert!(Plan::between(&Plan::apply(&running, new.clone()), &new).is_empty());
    // What waits for a restart is told again, and in the same words, by each later reload.
    let dns = |servers: &str| parse(&format!("dns.servers = [{servers}]\n{BASE}"));
    let (running, new) = (dns("\"1.1.1.1\""), dns("\"8.8.8.8\""));
    let said = scopes(&Plan::between(&running, &new).restart);
    assert_eq!(said, [r#"dns.servers: ["1.1.1.1:53"] -> ["8.8.8.8:53"]"#]);
    assert_eq!(scopes(&Plan::between(&Plan::apply(&running, new.clone()), &new).restart), said);
    let source = |what: &str| format!("[pools.web.discovery]\n{what}\n[[pools.web.backends]]");
    let of = |what: &str| parse(&POOLED.replacen("[[pools.web.backends]]", &source(what), 1));
    let plan = Plan::between(&of("file = \"a.json\""), &of("srv = \"_http._tcp.example.org\""));
    assert_eq!(
        scopes(&plan.live),
        [
            "pool web discovery.file: \"a.json\" -> unset",
            "pool web discovery.srv: unset -> \"_http._tcp.example.org\""
        ]
    );
}

#[test]
fn many_backends_stay_a_few_lines() {
    let with = |backends: std::ops::Range<u32>, weight: u32| {
        let list: String = backends
            .map(|n| {
                format!(
                    "[[pools.web.backends]]\naddress = \"10.0.{}.{}:80\"\nweight = {weight}\n",
                    n / 256,
                    n % 256
                )
            })
            .collect();
        parse(&POOLED.replacen("[[pools.web.backends]]\naddress = \"10.0.0.1:80\"\n", &list, 1))
    };
    let plan = Plan::between(&with(0..1000, 1), &with(500..2000, 2));
    let said = scopes(&plan.live);
    assert_eq!(said.len(), 22, "{said:?}");
    assert!(
        said[0].contains("backends: removed 10.0.0.0:80") && said[0].contains(" and 480 more, added "),
        "{}",
        said[0]
    );
    assert!(said[0].len() < 1000 && said[0].ends_with(" and 980 more"), "{}", said[0]);
    assert_eq!(said[21], "pool web backends: 480 more changed");
}

#[test]
fn process_settings_by_their_class() {
    live(
        "\n",
        "[runtime]\nmax_keepalive_requests = 10\n",
        &["max_keepalive_requests | runtime.max_keepalive_requests: 1000 -> 10"],
    );
    live("\n", "[pool]\nper_peer_max = 4\n", &["pool | pool.per_peer_max: 8 -> 4"]);
    restart("\n", "[runtime]\nworkers = 4\n", &["workers | runtime.workers: unset -> 4"]);
    restart(
        "\n",
        "[observability]\nmetrics_bind = \"127.0.0.1:1\"\n",
        &["observability.bind | observability.metrics_bind: unset -> \"127.0.0.1:1\""],
    );
    restart(
        "\n",
        "[admin]\napi_token_hash = \"0000000000000000000000000000000000000000000000000000000000000000\"\n",
        &["admin | admin.api_token_hash: changed"],
    );
}

#[test]
fn the_drain_timeout_reaches_listeners_that_inherit_it() {
    live(
        "\n",
        "[runtime]\ndrain_timeout_ms = 8000\ndrain_jitter_ms = 2500\n",
        &[
            "drain_timeout_ms | runtime.drain_timeout_ms: 10000 -> 8000",
            "drain_timeout_ms | listener 0.0.0.0:80 drain_timeout_ms: 10000 -> 8000",
            "drain_timeout_ms | listener 0.0.0.0:81 drain_timeout_ms: 10000 -> 8000",
        ],
    );
}

#[test]
fn listeners_come_go_and_turn_into_others_live() {
    live(
        "0.0.0.0:81",
        "0.0.0.0:82",
        &["listener.removed | listener 0.0.0.0:81 removed", "listener.added | listener 0.0.0.0:82 added"],
    );
    live(
        "protocol = \"tcp\"",
        "protocol = \"h1\"\ndrain_timeout_ms = 5000",
        &[
            "listener.protocol | listener 0.0.0.0:81 protocol: tcp -> h1",
            "drain_timeout_ms | listener 0.0.0.0:81 drain_timeout_ms: 10000 -> 5000",
        ],
    );
    live(
        "protocol = \"tcp\"",
        "protocol = \"tls\"\n[listeners.tls]\ncert_path = \"a.pem\"\nkey_path = \"a.key\"",
        &[
            "listener.protocol | listener 0.0.0.0:81 protocol: tcp -> tls",
            "tls | listener 0.0.0.0:81 tls: added",
        ],
    );
}

#[test]
fn a_listener_without_backends_counts_as_absent() {
    live(
        "[[listeners.backends]]\naddress = \"10.0.0.1:81\"",
        "",
        &["listener.removed | listener 0.0.0.0:81 removed"],
    );
}

#[test]
fn what_is_applied_mixes_new_and_running() {
    let running = parse(BASE);
    let new = parse(
        &BASE
            .replace("protocol = \"h1\"", "protocol = \"h1\"\n[listeners.http]\nretries = 5")
            .replace("0.0.0.0:81", "0.0.0.0:82")
            .replacen('\n', "[runtime]\nworkers = 7\nmax_keepalive_requests = 9\n", 1),
    );
    let plan = Plan::between(&running, &new);
    let applied = Plan::apply(&running, new.clone());
    assert_eq!(applied.runtime.workers, None);
    assert_eq!(applied.runtime.max_keepalive_requests, 9);
    assert_eq!(applied.listeners[0].http.retries, 5);
    assert_eq!(applied.listeners, new.listeners);
    let again = Plan::between(&applied, &new);
    assert_eq!(again.live, []);
    assert_eq!(again.restart, plan.restart);
}

const POOLED: &str = "
[[listeners]]
address = \"0.0.0.0:80\"
protocol = \"h1\"
pool = \"web\"
[[listeners]]
address = \"0.0.0.0:81\"
protocol = \"tcp\"
pool = \"web\"
[[pools.web.backends]]
address = \"10.0.0.1:80\"
[[pools.api.backends]]
address = \"10.0.0.2:80\"
";

/// The live changes from [`POOLED`] to it with `from` replaced by `to`, and the configuration that runs then.
fn pooled(from: &str, to: &str) -> (Vec<String>, crate::Config) {
    assert!(POOLED.contains(from));
    let (running, new) = (parse(POOLED), parse(&POOLED.replacen(from, to, 1)));
    let plan = Plan::between(&running, &new);
    let applied = Plan::apply(&running, new.clone());
    assert_eq!(Plan::between(&applied, &new), Plan { live: Vec::new(), restart: plan.restart });
    (plan.live.iter().map(|change| format!("{} | {}", change.field, change.scope)).collect(), applied)
}

#[test]
fn a_pool_changes_once_for_all_its_listeners() {
    let (said, applied) = pooled("10.0.0.1:80", "10.0.0.3:80");
    assert_eq!(said, ["pool.backends | pool web backends: removed 10.0.0.1:80, added 10.0.0.3:80"]);
    for listener in &applied.listeners {
        assert_eq!(listener.pool.backends[0].name, "10.0.0.3:80");
    }
    let rules =
        "[pools.web]\npolicy = \"random\"\n[pools.web.limits]\nmax_requests = 5\n[[pools.web.backends]]";
    let (said, _) = pooled("[[pools.web.backends]]", rules);
    assert_eq!(
        said,
        [
            "pool.balance | pool web policy: \"round_robin\" -> \"random\"",
            "pool.limits | pool web limits.max_requests: 0 -> 5"
        ]
    );
    let (said, _) = pooled("[[pools.web.backends]]", "[pools.web.outlier]\n[[pools.web.backends]]");
    assert_eq!(said, ["pool.outlier | pool web outlier: added"]);
}

#[test]
fn a_listener_moves_to_another_pool_while_running() {
    let (said, applied) = pooled("pool = \"web\"", "pool = \"api\"");
    assert_eq!(said, ["listener.pool | listener 0.0.0.0:80 pool: web -> api"]);
    assert_eq!(applied.listeners[0].pool, applied.pools[0]);
    let (said, _) = pooled("pool = \"web\"", "[[listeners.backends]]\naddress = \"10.0.0.1:80\"");
    assert_eq!(said, ["listener.pool | listener 0.0.0.0:80 pool: web -> its own backends"]);
    let (said, _) = pooled("[[pools.api.backends]]\naddress = \"10.0.0.2:80\"\n", "");
    assert_eq!(said, ["pool.removed | pool api removed"]);
}
