//! What the admin port is told that a new file would change. It is found by what a reload does ([`Decision`]); no file that the configuration names
//! is opened, no name is looked up and nothing is bound.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use lb_config::{
    BackendChange, Config, ConfigText, ElementChange, KeyChange, KeyOwner, ListenerId, PoolId, RouteChange,
};
use lb_observe::admin::Refusal;
use lb_pool::Report;
use serde_json::{Value, json};

use crate::control::Control;
use crate::decision::Decision;
use crate::{aside, source};

/// Why values of the environment are not shown.
const ENVIRONMENT: &str = "the file takes values from the environment of the process, which are shown only where admin.api_token_hash is set";

impl Control {
    /// What a reload with the files in `body` would do. `with_environment`: whether values of the environment may be told.
    pub(crate) async fn plan(&self, body: &[u8], with_environment: bool) -> Result<String, Refusal> {
        let text = read_files(body)?;
        let is_unchanged = text.files().map(|(_, text)| text).eq(self.text.files().map(|(_, text)| text));
        // A large file takes a tenth of a second to read.
        let read = aside::run("plan", move || read_config(&text, with_environment)).await;
        let new =
            read.map_err(|error| Refusal::new(503, format!("the file cannot be read now: {error}")))??;
        let decision = Decision::of(&self.config, &self.overlay, new)
            .map_err(|error| Refusal::new(422, format!("{error:#}")))?;
        let open = Connections::of(self);
        let (backends, routes) = decision.elements(&self.snapshot.config);
        let Decision { plan, merged, .. } = &decision;
        let keys = plan.live.iter().map(|change| open.of_key(change, "live", merged));
        let keys = keys.chain(plan.restart.iter().map(|change| open.of_key(change, "restart", merged)));
        let mut backends: Vec<Value> = backends.iter().map(|change| open.of_backend(change)).collect();
        backends.extend(open.of_weights(self, &decision.next));
        let routes = routes.iter().map(|change| open.of_route(change));
        let answer = json!({
            "unchanged": is_unchanged,
            "version": self.version,
            "changes": keys.collect::<Vec<_>>(),
            "backends": backends,
            "routes": routes.collect::<Vec<_>>(),
            "warnings": decision.next.warnings,
        });
        Ok(format!("{answer:#}\n"))
    }
}

/// The texts in a body such as `{"files": [{"name": "lb.toml", "text": "…"}]}`: the main file, and those that it includes.
fn read_files(body: &[u8]) -> Result<ConfigText, Refusal> {
    let bad = || Refusal::new(400, "the body must be {\"files\": [{\"name\": …, \"text\": …}, …]}");
    let body: Value = serde_json::from_slice(body).map_err(|_| bad())?;
    let files = body.get("files").and_then(Value::as_array).ok_or_else(bad)?;
    let read = |file: &Value| {
        let text_of = |key: &str| Some(file.get(key)?.as_str()?.to_owned());
        text_of("name").zip(text_of("text")).ok_or_else(bad)
    };
    let (name, text) = read(files.first().ok_or_else(bad)?)?;
    let mut all = ConfigText::new(text, name);
    for file in files.iter().skip(1) {
        let (name, text) = read(file)?;
        all.push(&text, name);
    }
    if all.len() as u64 > source::MAX_CONFIG_BYTES {
        return Err(Refusal::new(
            413,
            format!("a configuration has at most {} bytes", source::MAX_CONFIG_BYTES),
        ));
    }
    Ok(all)
}

/// What the text says in the environment of the process, as a reload reads it.
fn read_config(text: &ConfigText, with_environment: bool) -> Result<Config, Refusal> {
    let asked = Cell::new(false);
    let environment = |name: &str| {
        asked.set(true);
        if with_environment { source::environment(name) } else { None }
    };
    let read = source::load_in(text, &environment);
    if asked.get() && !with_environment {
        return Err(Refusal::new(403, ENVIRONMENT));
    }
    read.map_err(|error| Refusal::new(422, format!("{error:#}")))
}

/// The connections that are open now, of listeners and to backends.
struct Connections<'a> {
    running: &'a Config,
    of_listeners: HashMap<&'a ListenerId, usize>,
    /// By pool and backend.
    of_backends: HashMap<(PoolId, String), ToBackend>,
}

#[derive(Clone, Copy, Default)]
struct ToBackend {
    connections: u64,
    requests: u64,
}

impl<'a> Connections<'a> {
    fn of(control: &'a Control) -> Self {
        let bound = control.listeners.bound.iter();
        let of_listeners = bound.map(|bound| (&bound.id, bound.gate.open())).collect();
        let now = std::time::Instant::now();
        let mut of_backends: HashMap<(PoolId, String), ToBackend> = HashMap::new();
        for pool in control.snapshot.pools() {
            for report in pool.shared.report(now) {
                // A name has as many members as addresses.
                let one = of_backends.entry((pool.config.id.clone(), report.backend)).or_default();
                one.connections = one.connections.saturating_add(report.connections);
                one.requests = one.requests.saturating_add(report.requests_running);
            }
        }
        Self { running: &control.snapshot.config, of_listeners, of_backends }
    }

    fn of_key(&self, change: &KeyChange, effect: &str, after: &Config) -> Value {
        let effect = if change.ends_connections { "connections_end" } else { effect };
        json!({
            "what": change.scope,
            "field": change.field,
            "effect": effect,
            "connections": self.touched(&change.owner, after),
        })
    }

    /// The connections of the listeners that a change concerns.
    fn touched(&self, owner: &KeyOwner, after: &Config) -> usize {
        let open = |id: &ListenerId| self.of_listeners.get(id).copied().unwrap_or(0);
        match owner {
            KeyOwner::Process => self.of_listeners.values().sum(),
            KeyOwner::Listener(id) => open(id),
            KeyOwner::Pool(pool) => {
                self.running.listeners_of(pool).map(|listener| open(&listener.id())).sum()
            }
            KeyOwner::RouteTables => {
                let differs = |id: &ListenerId| {
                    let of = |config: &Config| config.listener(id).and_then(|one| one.routing.clone());
                    of(self.running) != of(after)
                };
                self.of_listeners.iter().filter(|(id, _)| differs(id)).map(|(_, open)| open).sum()
            }
        }
    }

    fn of_backend(&self, change: &BackendChange) -> Value {
        let BackendChange { pool, backend, change, keys } = change;
        self.backend(pool, backend, *change, keys)
    }

    fn backend(&self, pool: &PoolId, backend: &str, change: ElementChange, keys: &[String]) -> Value {
        let open = self.of_backends.get(&(pool.clone(), backend.to_owned())).copied().unwrap_or_default();
        json!({
            "pool": pool.name(),
            "backend": backend,
            "change": change.as_str(),
            "keys": keys,
            "connections": open.connections,
            "requests": open.requests,
        })
    }

    fn of_route(&self, RouteChange { listener, route, change }: &RouteChange) -> Value {
        json!({
            "listener": listener.name,
            "route": route,
            "change": change.as_str(),
            "connections": self.of_listeners.get(listener).copied().unwrap_or(0),
        })
    }

    /// Weights that the admin port was told, and that a reload gives back to the file.
    fn of_weights(&self, control: &Control, file: &Config) -> Vec<Value> {
        let mut values = Vec::new();
        let now = std::time::Instant::now();
        for pool in control.snapshot.pools() {
            let written = pool.config.backends.iter().map(|one| (one.name.as_str(), one.weight));
            let written: HashMap<&str, u32> = written.collect();
            let named = file.pool(&pool.config.id).map_or(&[][..], |pool| &pool.backends);
            let named: HashSet<&str> = named.iter().map(|backend| backend.name.as_str()).collect();
            let mut seen = HashSet::new();
            for Report { backend, weight, .. } in pool.shared.report(now) {
                let is_named = named.contains(backend.as_str());
                let Some(configured) = written.get(backend.as_str()).filter(|_| is_named) else { continue };
                if *configured != weight && seen.insert(backend.clone()) {
                    let key = format!("weight: {weight}, as the admin port was told, -> as the file says");
                    values.push(self.backend(&pool.config.id, &backend, ElementChange::Changed, &[key]));
                }
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_files() {
        let read = |body: &str| read_files(body.as_bytes()).map_err(|refusal| refusal.status);
        let text = read(r#"{"files": [{"name": "a", "text": "x"}, {"name": "b", "text": "y\n"}]}"#).unwrap();
        assert_eq!(text.files().collect::<Vec<_>>(), [("a", "x"), ("b", "y\n")]);
        for body in
            ["", "[]", "{}", r#"{"files": []}"#, r#"{"files": [{"name": "a"}]}"#, r#"{"files": ["a"]}"#]
        {
            assert_eq!(read(body), Err(400), "{body}");
        }
        let long = "x".repeat(source::MAX_CONFIG_BYTES as usize + 1);
        assert_eq!(read(&format!(r#"{{"files": [{{"name": "a", "text": "{long}"}}]}}"#)), Err(413));
    }

    #[test]
    fn c_08_the_environment_is_told_only_behind_a_token() {
        let text = |value: &str| {
            let text = format!("[[listeners]]\naddress = \"127.0.0.1:80\"\nprotocol = \"{value}\"\n");
            ConfigText::new(text, "lb.toml".to_owned())
        };
        for value in ["${PATH}", "${NOT_THERE:-h1}", "${NOT_THERE}"] {
            assert_eq!(
                read_config(&text(value), false).unwrap_err(),
                Refusal::new(403, ENVIRONMENT),
                "{value}"
            );
        }
        assert!(read_config(&text("${NOT_THERE:-h1}"), true).is_ok());
        assert!(read_config(&text("h1"), false).is_ok());
    }
}
