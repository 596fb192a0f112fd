//! Routes in operation: what is counted and logged, and what a reload does.

use testkit::gateway::Reload;
use testkit::{Backend, Config, Gateway, Listener, Pool, eventually, seconds};

fn route(name: &str, prefix: &str, pool: &str) -> String {
    format!("[[listeners.routes]]\nname = {name:?}\npath_prefix = {prefix:?}\npool = {pool:?}\n")
}

pub(crate) fn routes_are_named_in_metrics_and_log() {
    let backend = Backend::standard("web");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let listener = Listener::h1().text(&route("shop", "/shop", "web"));
    let config = Config::new()
        .block("observability", "access_log", path.to_str().unwrap())
        .listener(listener)
        .pool(Pool::named("web").backend(backend.address));
    let gateway = Gateway::start(config);
    for target in ["/shop", "/x/../shop/%61", "/none", "/shop/%00"] {
        gateway.client().get(target).unwrap();
    }
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("four lines", seconds(10), || lines().lines().count() == 4);
    let count = |route, class| {
        gateway.metric("http_requests_total", &[("route", route), ("status_class", class), ("version", "h1")])
    };
    assert_eq!((count("shop", "2xx"), count("", "4xx"), count("", "2xx")), (2.0, 2.0, 0.0));
    let text = lines();
    let found: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| ["target", "route", "reason"].map(|key| line[key].as_str().unwrap().to_owned()))
        .collect();
    for expected in [
        ["/shop", "shop", ""],
        ["/shop/a", "shop", ""],
        ["/none", "", "no_route"],
        ["/shop/%00", "", "path_syntax"],
    ] {
        assert!(found.iter().any(|line| *line == expected), "{expected:?} in {found:?}");
    }
}

pub(crate) fn a_reload_changes_routes_and_weighs_nothing_else() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let listener = Listener::h1();
    let config = |routes: &str| {
        let listener = listener.clone().text(routes);
        let pools = [("one", &one), ("two", &two)];
        pools
            .iter()
            .fold(Config::new(), |config, (name, backend)| {
                config.pool(Pool::named(name).backend(backend.address))
            })
            .listener(listener)
    };
    let first = config(&route("a", "/a", "one"));
    let mut gateway = Gateway::start(first.clone());
    let at = |mut config: Config| {
        config.admin = first.admin;
        config.block("observability", "metrics_bind", first.admin.to_string())
    };
    let mut client = gateway.client();
    assert_eq!(client.get("/a").unwrap().text(), "one");
    let Reload::Complete(_) = gateway.reload(at(config(&route("a", "/a", "two")))) else {
        panic!("it was refused")
    };
    assert_eq!(client.get("/a").unwrap().text(), "two", "the connection stays");
    let told = gateway.process.stderr.matching("routes[0].pool");
    assert!(told.iter().any(|line| line.contains("one") && line.contains("two")), "{told:?}");
    let wrong = at(config(&route("a", "/a", "thre")));
    let Reload::Rejected(_) = gateway.reload(wrong) else { panic!("a pool that is not there was accepted") };
    assert_eq!(client.get("/a").unwrap().text(), "two");
}

pub(crate) fn a_listener_may_have_routes_alone() {
    let backend = Backend::standard("web");
    let listener =
        Listener::h1().text("[[listeners.routes]]\nredirect = { scheme = \"https\", status = 308 }\n");
    let other = Listener::h1().backend(backend.address);
    let gateway = Gateway::start(Config::new().listener(listener).listener(other));
    assert_eq!(gateway.get("/").status, 308);
    assert_eq!(gateway.readyz(), Some(200));
    let warnings = gateway.process.stderr.matching("no backends");
    assert!(warnings.is_empty(), "{warnings:?}");
}
