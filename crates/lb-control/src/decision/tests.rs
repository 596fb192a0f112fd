//! Random files after each other: what is told is what comes to be in force, and all of it.

use std::collections::{BTreeMap, BTreeSet};

use lb_config::{ElementChange, KeyOwner, ListenerId, PoolId};
use lb_core::rng::SplitMix64;

use super::*;

/// One of several texts, by chance.
fn one_of<'a>(rng: &mut SplitMix64, texts: &[&'a str]) -> &'a str {
    texts[rng.below(texts.len() as u64) as usize]
}

fn chance(rng: &mut SplitMix64, one_in: u64) -> bool {
    rng.below(one_in) == 0
}

fn backends(rng: &mut SplitMix64, block: &str, least: u64) -> String {
    let count = least + rng.below(4);
    (0..count)
        .map(|_| {
            let (host, weight) = (1 + rng.below(5), rng.below(3));
            format!("[[{block}.backends]]\naddress = \"10.0.0.{host}:80\"\nweight = {weight}\n")
        })
        .collect()
}

/// Names are those of the whole file.
fn route(rng: &mut SplitMix64, block: &str, at: u64) -> String {
    let name = if chance(rng, 3) { String::new() } else { format!("name = \"r{at}\"\n") };
    let host = one_of(rng, &["", "hosts = [\"a.example\"]\n", "hosts = [\"b.example\"]\n"]);
    let target = one_of(
        rng,
        &[
            "pool = \"a\"\n",
            "pool = \"b\"\n",
            "respond.status = 404\n",
            "split = [{ pool = \"a\", weight = 1 }, { pool = \"b\", weight = 2 }]\n",
            "split = [{ pool = \"a\", weight = 1 }, { pool = \"b\", weight = 3 }]\n",
        ],
    );
    let path = one_of(rng, &["path_prefix", "path"]);
    format!("[[{block}]]\n{name}{host}{target}{path} = \"/{at}\"\n")
}

fn file(rng: &mut SplitMix64) -> String {
    let mut text = String::new();
    for key in [
        "workers = 2",
        "workers = 3",
        "max_keepalive_requests = 10",
        "drain_timeout_ms = 8000",
        "connect_timeout_ms = 900",
    ] {
        let name = key.split(' ').next().unwrap();
        if chance(rng, 3) && !text.contains(name) {
            text += &format!("runtime.{key}\n");
        }
    }
    text += one_of(rng, &["", "pool.per_peer_max = 4\n", "dns.negative_ttl_seconds = 9\n"]);
    for port in 80..80 + 1 + rng.below(4) {
        let protocol = one_of(rng, &["h1", "h1", "tcp", "udp"]);
        text += &format!("[[listeners]]\naddress = \"127.0.0.1:{port}\"\nprotocol = \"{protocol}\"\n");
        text += one_of(rng, &["", "", "drain_timeout_ms = 4000\n"]);
        let has_pool = chance(rng, 2);
        if has_pool {
            text += one_of(rng, &["pool = \"a\"\n", "pool = \"b\"\n"]);
        }
        let has_table = protocol == "h1" && chance(rng, 3);
        if has_table {
            text += "route_tables = [\"t\"]\n";
        }
        if protocol == "h1" {
            text += one_of(rng, &["", "[listeners.http]\nretries = 2\n", "[listeners.websocket]\n"]);
            for at in 0..rng.below(3) {
                text += &route(rng, "listeners.routes", port * 10 + at);
            }
        }
        if !has_pool {
            text += &backends(rng, "listeners", u64::from(port == 80));
        }
    }
    for at in 0..1 + rng.below(3) {
        text += &route(rng, "routes.t", at + 10);
    }
    for pool in ["a", "b"] {
        text += &format!("[pools.{pool}]\npolicy = \"{}\"\n", one_of(rng, &["round_robin", "random"]));
        text += one_of(rng, &["", &format!("[pools.{pool}.limits]\nmax_requests = 5\n")]);
        text += &backends(rng, &format!("pools.{pool}"), 1);
    }
    text
}

/// What an operator may have done at the admin port.
fn overlaid(rng: &mut SplitMix64, config: &Config, mut overlay: Overlay) -> Overlay {
    for pool in config.pools_in_use() {
        if chance(rng, 3) {
            let list = format!("[{{\"address\": \"10.0.0.{}:80\"}}]", 1 + rng.below(8));
            let parsed = lb_config::parse_backends(&list, "body", lb_config::ListFormat::Json);
            // It may be there already.
            let _ = overlay.add(pool, parsed.unwrap().remove(0));
        }
        if chance(rng, 3)
            && let Some(backend) = pool.backends.first()
        {
            overlay.remove(pool, &backend.address);
        }
    }
    for name in ["r800", "r801", "r810", "r10"] {
        let body = format!("{{\"a\": {}}}", rng.below(4));
        // There may be no split of this name.
        let _ = overlay.route_weights_mut().told(config, name, body.as_bytes());
    }
    overlay
}

/// The addresses of the backends of each pool in use.
fn members(config: &Config) -> BTreeMap<PoolId, BTreeSet<String>> {
    let pools = config.pools_in_use().into_iter();
    let named = |pool: &std::sync::Arc<lb_config::BackendPool>| {
        (pool.id.clone(), pool.backends.iter().map(|backend| backend.name.clone()).collect())
    };
    pools.map(named).filter(|(_, names): &(_, BTreeSet<_>)| !names.is_empty()).collect()
}

/// The routes of each listener that have a name.
fn named_routes(config: &Config) -> BTreeSet<(String, String)> {
    let listeners = config.listeners.iter().filter(|listener| listener.starts());
    let routes = listeners.filter_map(|listener| Some((listener, listener.routing.as_ref()?)));
    let names = routes.flat_map(|(listener, routing)| {
        routing.routes.iter().map(|route| (listener.name.clone(), route.spec.name.clone()))
    });
    names.filter(|(_, name)| !name.is_empty()).collect()
}

/// The listeners whose connections end: those that are gone or speak something else.
fn ending(before: &Config, after: &Config) -> BTreeSet<String> {
    let started = before.listeners.iter().filter(|listener| listener.starts());
    let ends = started.filter(|old| {
        let same =
            |new: &&lb_config::Listener| new.id() == old.id() && new.starts() && new.protocol == old.protocol;
        !after.listeners.iter().any(|new| same(&new))
    });
    ends.map(|listener| listener.name.clone()).collect()
}

#[test]
fn what_is_told_comes_and_nothing_else() {
    let mut told = [0usize; 6];
    for seed in 0..400 {
        let rng = &mut SplitMix64::new(seed);
        let read = |text: &str| {
            Config::parse(text, "lb.toml").unwrap_or_else(|errors| panic!("seed {seed}: {errors}\n{text}"))
        };
        let (mut running, mut overlay) = (read(&file(rng)), Overlay::default());
        for _ in 0..4 {
            overlay = overlaid(rng, &running, overlay);
            let before = overlay.over(&running);
            let text = if chance(rng, 6) { None } else { Some(file(rng)) };
            let new = text.as_deref().map_or_else(|| running.clone(), read);
            let decision = Decision::of(&running, &overlay, new.clone()).unwrap();
            let (backends, routes) = decision.elements(&before);
            let after = &decision.merged;
            let context = || format!("seed {seed}: {:#?}\n{backends:#?}\n{routes:#?}", decision.plan);

            // Backends: what is there, with what is told, is what comes.
            let mut pools = members(&before);
            for change in &backends {
                let pool = pools.entry(change.pool.clone()).or_default();
                let fits = match change.change {
                    ElementChange::Added => pool.insert(change.backend.clone()),
                    ElementChange::Removed => pool.remove(&change.backend),
                    ElementChange::Changed => pool.contains(&change.backend) && !change.keys.is_empty(),
                };
                assert!(fits, "{change:?} {}", context());
            }
            pools.retain(|_, names| !names.is_empty());
            assert_eq!(pools, members(after), "{}", context());

            // Routes.
            let mut names = named_routes(&before);
            for change in routes.iter().filter(|change| !change.route.starts_with('(')) {
                let name = (change.listener.name.clone(), change.route.clone());
                let fits = match change.change {
                    ElementChange::Added => names.insert(name),
                    ElementChange::Removed => names.remove(&name),
                    ElementChange::Changed => names.contains(&name),
                };
                assert!(fits, "{change:?} {}", context());
            }
            assert_eq!(names, named_routes(after), "{}", context());

            // Connections that end.
            let ends = decision.plan.live.iter().filter(|change| change.ends_connections);
            let ends = ends.filter_map(|change| match &change.owner {
                KeyOwner::Listener(ListenerId { name, .. }) => Some(name.clone()),
                _ => None,
            });
            assert_eq!(ends.collect::<BTreeSet<_>>(), ending(&before, after), "{}", context());

            // What waits for a restart is not in force, and all else is.
            assert_eq!(decision.next.runtime.workers, running.runtime.workers);
            assert_eq!(decision.next.dns, running.dns);
            let again = Plan::between(&decision.next, &new);
            assert_eq!((again.live.len(), &again.restart), (0, &decision.plan.restart), "{}", context());

            // Where nothing is told, nothing changes.
            if decision.plan.live.is_empty() && backends.is_empty() && routes.is_empty() {
                assert_eq!(before.listeners, after.listeners, "{}", context());
                assert_eq!(before.pools_in_use(), after.pools_in_use(), "{}", context());
                assert_eq!(before.runtime, after.runtime, "{}", context());
                told[5] += 1;
            }
            told[0] += backends.len();
            told[1] += routes.len();
            told[2] += decision.plan.live.len();
            told[3] += decision.plan.restart.len();
            told[4] += ending(&before, after).len();
            (running, overlay) = (decision.next, decision.overlay);
        }
    }
    assert!(told.iter().all(|count| *count > 20), "{told:?}");
}
