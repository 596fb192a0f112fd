//! `expressgateway plan`.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use testkit::gateway::{Reload, binary, cli};
use testkit::process::{Finished, run_command};
use testkit::{Backend, Client, Config, Gateway, Listener, Pool, seconds};

/// SHA-256 of `secret-token`.
const HASH: &str = "930bbdc51b6aed5c2a5678fd6e28dee7a05e8a4b643cfc0b4427c3efb86c0d94";

/// What is said of this file.
#[track_caller]
fn plan(gateway: &Gateway, text: &str, arguments: &[&str]) -> Finished {
    let file = gateway.dir().join("next.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(binary());
    command.arg("plan").arg(&file).args(arguments).env_remove("EXPRESSGATEWAY_TOKEN");
    run_command(command, seconds(20))
}

#[track_caller]
fn asked(gateway: &Gateway, text: &str) -> Value {
    let done = plan(gateway, text, &["--json"]);
    let answer: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    let lists = ["changes", "backends", "routes"];
    let changes = lists.iter().any(|list| !answer[*list].as_array().unwrap().is_empty());
    assert_eq!(done.code, if changes { 2 } else { 0 }, "{done:?}");
    answer
}

/// The texts of one kind of change.
fn told(answer: &Value, effects: &[&str]) -> Vec<String> {
    let changes = answer["changes"].as_array().unwrap().iter();
    let meant = changes.filter(|change| effects.contains(&change["effect"].as_str().unwrap()));
    meant.map(|change| change["what"].as_str().unwrap().to_owned()).collect()
}

/// What the log says of a reload: live, for a restart, and listeners that closed with their connections.
fn logged(messages: &[String], lines: &[String]) -> (Vec<String>, Vec<String>, BTreeSet<(String, u64)>) {
    let of = |end: &str| {
        let found = messages.iter().filter_map(|line| line.strip_prefix("SIGHUP: ")?.strip_suffix(end));
        found.map(str::to_owned).collect()
    };
    let closed = lines.iter().filter(|line| line.contains("listener closed by a reload"));
    let closed = closed.map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let fields = line.get("fields").unwrap_or(&line);
        (fields["listener"].as_str().unwrap().to_owned(), fields["connections"].as_u64().unwrap())
    });
    (of(" — applied live"), of(" — requires restart, not applied"), closed.collect())
}

pub(crate) fn it_is_what_the_reload_then_does() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let (a, b, c) = (Listener::h1(), Listener::h1(), Listener::tcp());
    let base = Config::new();
    let web = |backends: &[(&Backend, u32)]| {
        backends.iter().fold(Pool::named("web"), |pool, (one, weight)| pool.weighted(one.address, *weight))
    };
    let route = "[[listeners.routes]]\nname = \"x\"\npath_prefix = \"/x\"\nrespond.status = ";
    let files = [
        base.clone().listener(a.clone().pool("web")).pool(web(&[(&one, 1)])),
        base.clone().listener(a.clone().pool("web").http("retries", 1)).pool(web(&[(&one, 2), (&two, 1)])),
        base.clone()
            .runtime("workers", 3)
            .listener(a.clone().backend(one.address))
            .listener(b.clone().backend(two.address)),
        base.clone()
            .runtime("max_keepalive_requests", 7)
            .listener(c.clone().at(b.address).backend(two.address))
            .listener(a.clone().pool("web").text(&format!("{route}404\n")))
            .pool(web(&[(&two, 1)]).key("policy", "random")),
        base.clone()
            .listener(a.clone().pool("web").text(&format!("{route}410\n")))
            .listener(b.clone().backend(one.address).backend(two.address))
            .pool(web(&[(&two, 1), (&one, 1)])),
        base.clone().listener(b.clone().backend(two.address)),
    ];
    let mut gateway = Gateway::start(files[0].clone());
    for (at, file) in files.iter().cycle().skip(1).take(7).enumerate() {
        // Connections on whatever listens now.
        let fronts = [a.address, b.address].into_iter().filter_map(|address| Client::connect(address).ok());
        let open: Vec<Client> = fronts.collect();
        let count = open.len() as f64;
        gateway.wait_metric("accept_inflight", &[], |open| open >= count);
        let answer = asked(&gateway, &file.render());
        assert_eq!(told(&answer, &["connections_end"]).len(), {
            let ends = answer["changes"].as_array().unwrap().iter();
            ends.filter(|one| one["field"] == "listener.removed" || one["field"] == "listener.protocol")
                .count()
        });
        let from = gateway.process.stderr.len();
        let outcome = gateway.reload(file.clone());
        assert!(matches!(outcome, Reload::Complete(_)), "{outcome:?}");
        let lines = gateway.process.stderr.lines()[from..].to_vec();
        let messages: Vec<String> = lines.iter().filter_map(|line| testkit::gateway::message(line)).collect();
        let (live, restart, closed) = logged(&messages, &lines);
        assert_eq!(told(&answer, &["live", "connections_end"]), live, "file {at}");
        assert_eq!(told(&answer, &["restart"]), restart, "file {at}");
        let ends = answer["changes"].as_array().unwrap().iter();
        let ends = ends.filter(|change| change["effect"] == "connections_end").map(|change| {
            let listener = change["what"].as_str().unwrap().split(' ').nth(1).unwrap().to_owned();
            (listener, change["connections"].as_u64().unwrap())
        });
        assert_eq!(ends.collect::<BTreeSet<_>>(), closed, "file {at}");
        // What is in force now changes nothing but what waits for a restart.
        let again = asked(&gateway, &file.render());
        assert_eq!(told(&again, &["live", "connections_end"]), Vec::<String>::new());
        assert_eq!(again["unchanged"], true);
        assert_eq!(
            (&again["backends"], &again["routes"]),
            (&Value::from(vec![0; 0]), &Value::from(vec![0; 0]))
        );
        drop(open);
    }
}

pub(crate) fn connections_are_counted_where_they_end() {
    let slow = Backend::start(|conn| {
        conn.request()?;
        conn.hold(seconds(20));
        Ok(())
    });
    let fast = Backend::standard("fast");
    let (first, second) = (Listener::h1(), Listener::h1());
    let both =
        Config::new().listener(first.clone().pool("web")).listener(second.clone().backend(fast.address));
    let both = both.pool(Pool::named("web").backend(slow.address));
    let gateway = Gateway::start(both.clone());
    let mut clients: Vec<Client> = (0..3).map(|_| gateway.client()).collect();
    clients[0].send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    slow.wait_requests(1);
    gateway.wait_metric("accept_inflight", &[], |open| open >= 3.0);
    let one = both.clone().with_listener(second.backend(fast.address));
    let answer = asked(&gateway, &one.render());
    let removed =
        &answer["changes"].as_array().unwrap().iter().find(|one| one["field"] == "listener.removed");
    let removed = removed.unwrap_or_else(|| panic!("{answer:#}"));
    assert_eq!((&removed["effect"], &removed["connections"]), (&"connections_end".into(), &3.into()));
    let backend = &answer["backends"][0];
    let expected = serde_json::json!({
        "pool": "web", "backend": slow.address.to_string(), "change": "removed", "keys": [], "connections": 1, "requests": 1,
    });
    assert_eq!(*backend, expected);
    let said = plan(&gateway, &one.render(), &[]);
    let listener = format!("live, connections end: listener {} removed (3 connections)", first.address);
    let lines = format!("backend {} of pool web removed (1 connection, 1 request)", slow.address);
    assert!(said.stdout.contains(&listener) && said.stdout.contains(&lines), "{said:?}");
    assert_eq!(said.code, 2);
    assert_eq!(gateway.metric("config_reload_applied_version", &[]), 1.0, "nothing has changed");
    clients[0].quiet(testkit::ms(100)).unwrap();
}

pub(crate) fn what_the_admin_port_was_told_and_a_reload_takes_back() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let pool = Pool::named("web").backend(one.address).backend(two.address);
    let config = Config::new().listener(Listener::h1().pool("web")).pool(pool);
    let mut gateway = Gateway::start(config.block("admin", "api_token_hash", HASH));
    let text = gateway.config.render();
    let token = gateway.dir().join("token");
    std::fs::write(&token, "secret-token\n").unwrap();
    let token = token.to_str().unwrap().to_owned();
    let ask = |gateway: &Gateway| -> Value {
        let done = plan(gateway, &text, &["--json", "--token-file", &token]);
        serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"))
    };
    assert_eq!(ask(&gateway)["backends"], Value::Array(vec![]));
    let tell = |method: &str, path: &str, body: &str| {
        let fields = [("Authorization", "Bearer secret-token")];
        let answer = gateway.admin_client().request(method, path, &fields, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    tell("POST", &format!("/backends/web/{}/weight", one.address), "{\"weight\": 5}");
    tell("DELETE", &format!("/backends/web/{}", two.address), "");
    let answer = ask(&gateway);
    let backends = answer["backends"].as_array().unwrap();
    let said: BTreeSet<_> = backends
        .iter()
        .map(|one| (one["backend"].as_str().unwrap(), one["change"].as_str().unwrap()))
        .collect();
    let (one, two) = (one.address.to_string(), two.address.to_string());
    assert_eq!(said, BTreeSet::from([(one.as_str(), "changed"), (two.as_str(), "added")]), "{answer:#}");
    assert_eq!(gateway.reload_text(&text), Reload::Unchanged);
    // The pass that follows the line of an unchanged file.
    testkit::eventually("both are back", seconds(10), || ask(&gateway)["backends"] == Value::Array(vec![]));
}

pub(crate) fn codes_and_reasons() {
    let backend = Backend::standard("one");
    let gateway = Gateway::start(Config::new().listener(Listener::h1().backend(backend.address)));
    let text = gateway.config.render();
    let same = plan(&gateway, &text, &[]);
    assert_eq!(same.code, 0, "{same:?}");
    assert!(same.stdout.ends_with("changes nothing of version 1, which runs"), "{same:?}");
    // What is wrong is told as a reload tells it.
    let wrong = plan(&gateway, &format!("surprise = 1\n{text}"), &["--admin", &gateway.admin().to_string()]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("next.toml:1: surprise"), "{wrong:?}");
    let nothing = format!("[[listeners]]\naddress = \"{}\"\nprotocol = \"h1\"\n", gateway.front());
    let nothing = plan(&gateway, &nothing, &["--admin", &gateway.admin().to_string()]);
    assert!(nothing.code == 1 && nothing.stderr.contains("no listeners started"), "{nothing:?}");
    let unasked = plan(&gateway, &format!("surprise = 1\n{text}"), &[]);
    assert!(unasked.code == 1 && unasked.stderr.contains("next.toml:1: surprise"), "{unasked:?}");
    // The running file names the port where the new one does not.
    let bare = format!("[[listeners]]\naddress = \"{}\"\nprotocol = \"h1\"\n", gateway.front());
    let bare = format!("{bare}[[listeners.backends]]\naddress = \"{}\"\n", backend.address);
    let running = gateway.dir().join("lb.toml");
    let other = plan(&gateway, &bare, &["--config", running.to_str().unwrap(), "--json"]);
    assert_eq!(other.code, 2, "{other:?}");
    let lost = plan(&gateway, &text, &["--admin", &testkit::ports::reserve().to_string()]);
    assert!(lost.code == 1 && lost.stderr.contains("cannot be asked"), "{lost:?}");
    assert!(cli(&["plan"]).code == 2, "the file is missing");
    // Included files belong to the new file.
    std::fs::write(
        gateway.dir().join("more.toml"),
        "[pools.more]\n[[pools.more.backends]]\naddress = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    let included = asked(&gateway, &format!("include = [\"more.toml\"]\n{text}"));
    assert_eq!(told(&included, &["live"]), ["pool more added"]);
}

pub(crate) fn the_token_and_the_environment() {
    let backend = Backend::standard("one");
    let config = Config::new().listener(Listener::h1().backend(backend.address));
    let guarded = Gateway::launch_with(
        config.clone().block("admin", "api_token_hash", HASH),
        &[("EG_TEST_POLICY", "random")],
    );
    testkit::eventually("it serves", seconds(30), || guarded.readyz() == Some(200));
    let text = guarded.config.render().replace("[[listeners]]", "[pools.x]\npolicy = \"${EG_TEST_POLICY}\"\n[[pools.x.backends]]\naddress = \"127.0.0.1:1\"\n[[listeners]]");
    let refused = plan(&guarded, &text, &["--admin", &guarded.admin().to_string()]);
    assert!(refused.code == 1 && refused.stderr.contains("answers 403"), "{refused:?}");
    let file = guarded.dir().join("next.toml");
    let admin = guarded.admin().to_string();
    let ask = |token: &str| {
        let mut command = Command::new(binary());
        command.arg("plan").arg(&file).args(["--admin", &admin]).env("EXPRESSGATEWAY_TOKEN", token);
        run_command(command, seconds(20))
    };
    assert_eq!(ask("wrong").code, 1);
    let done = ask("secret-token");
    // The variable is that of the process, and not of the command.
    assert_eq!((done.code, done.stdout.contains("pool x added")), (2, true), "{done:?}");
    let open = Gateway::start(Config::new().listener(Listener::h1().backend(backend.address)));
    let text =
        open.config.render().replace("[[listeners]]", "[pools.x]\npolicy = \"${PATH}\"\n[[listeners]]");
    let refused = plan(&open, &text, &["--admin", &open.admin().to_string()]);
    assert!(
        refused.code == 1 && refused.stderr.contains("only where admin.api_token_hash is set"),
        "{refused:?}"
    );
}

pub(crate) fn c_08_other_origins_and_large_bodies() {
    let backend = Backend::standard("one");
    let gateway = Gateway::start(Config::new().listener(Listener::h1().backend(backend.address)));
    let body = serde_json::json!({ "files": [{ "name": "a", "text": gateway.config.render() }] }).to_string();
    let json = ("Content-Type", "application/json");
    let send = |method: &str, fields: &[(&str, &str)], body: &[u8]| {
        gateway.admin_client().request(method, "/plan", fields, body).unwrap().status
    };
    assert_eq!(send("POST", &[json], body.as_bytes()), 200);
    assert_eq!(send("POST", &[json, ("Origin", "https://evil.example")], body.as_bytes()), 403);
    assert_eq!(send("POST", &[json, ("Host", "evil.example")], body.as_bytes()), 403);
    // What a page can send without being asked first.
    assert_eq!(send("POST", &[("Content-Type", "text/plain")], body.as_bytes()), 415);
    assert_eq!(send("POST", &[], body.as_bytes()), 415);
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(send(method, &[json], b""), 405, "{method}");
    }
    assert_eq!(send("POST", &[json], b"{}"), 400);
    let mut large = gateway.admin_client();
    large.send("POST /plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n").unwrap();
    assert_eq!(large.response("POST").unwrap().status, 413);
    // Two that are slow have the only places; probes and others go on.
    let slow: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = gateway.admin_client();
            client.send("POST /plan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{").unwrap();
            client
        })
        .collect();
    testkit::eventually("no place is left", seconds(5), || send("POST", &[json], body.as_bytes()) == 503);
    assert_eq!(gateway.readyz(), Some(200));
    drop(slow);
    testkit::eventually("places are free", seconds(5), || send("POST", &[json], body.as_bytes()) == 200);
}
