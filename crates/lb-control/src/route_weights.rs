//! Weights of splits that the admin port was told, and how routes stand.

use std::collections::BTreeMap;

use lb_config::{Config, Listener, Route, RouteTarget, Routing, Split};
use lb_observe::admin::Refusal;
use serde_json::{Value, json};

use crate::api::read_object;

/// Weights that lie over those of the file, by the names of route and pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteWeights(BTreeMap<String, BTreeMap<String, Told>>);

/// A weight that the admin port was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    weight: u32,
    /// What the file said then: a file that says something else since wins.
    configured: u32,
}

impl RouteWeights {
    /// The routes of a listener with these weights, where any differs.
    pub(crate) fn over(&self, routing: &Routing) -> Option<Routing> {
        if self.0.is_empty() {
            return None;
        }
        routing.with_weights(|route, pool| Some(self.0.get(route)?.get(pool)?.weight))
    }

    /// Takes in a body such as `{"blue": 0, "green": 1}`; `null` gives back the configured weight. `file` is the configuration as it is written.
    ///
    /// # Errors
    /// Why not, in plain words.
    pub(crate) fn told(&mut self, file: &Config, route: &str, body: &[u8]) -> Result<(), Refusal> {
        let split =
            split(file, route).ok_or_else(|| Refusal::new(404, "no route with a split has this name"))?;
        let object = read_object(body)?;
        if object.is_empty() {
            return Err(Refusal::new(400, "the body must name a pool and its weight"));
        }
        let mut weights = self.0.get(route).cloned().unwrap_or_default();
        for (pool, weight) in &object {
            let branch = split.branches.iter().find(|branch| branch.pool.name() == pool);
            let branch =
                branch.ok_or_else(|| Refusal::new(404, format!("the split has no pool {pool:?}")))?;
            match weight {
                Value::Null => {
                    weights.remove(pool);
                }
                weight => {
                    let weight =
                        weight.as_u64().and_then(|weight| u32::try_from(weight).ok()).ok_or_else(|| {
                            let problem =
                                "a weight must be an integer 0..=4294967295, or null for the configured one";
                            Refusal::new(400, problem)
                        })?;
                    weights.insert(pool.clone(), Told { weight, configured: branch.weight });
                }
            }
        }
        self.0.insert(route.to_owned(), weights);
        self.0.retain(|_, weights| !weights.is_empty());
        Ok(())
    }

    /// After a reload: routes and branches that are gone are forgotten, and the file wins where its weight is another one than before.
    pub(crate) fn reloaded(&mut self, file: &Config) {
        self.0.retain(|route, weights| {
            let Some(split) = split(file, route) else { return false };
            weights.retain(|pool, told| {
                let mut branches = split.branches.iter();
                branches.any(|branch| branch.pool.name() == pool && branch.weight == told.configured)
            });
            !weights.is_empty()
        });
    }
}

/// The split of the route of this name.
fn split<'a>(config: &'a Config, name: &str) -> Option<&'a Split> {
    let routes = config.listeners.iter().filter_map(|listener| listener.routing.as_ref());
    routes.flat_map(|routing| &routing.routes).find_map(|route| match &route.target {
        RouteTarget::Split(split) if route.spec.name == name => Some(split),
        _ => None,
    })
}

/// All routes as they stand: `now` has the weights in force, `file` those that are configured.
pub(crate) fn list(now: &Config, file: &Config) -> String {
    let listeners = now.listeners.iter().filter_map(|listener| {
        let routing = listener.routing.as_ref()?;
        let configured = file.listeners.iter().find(|other| other.id() == listener.id());
        let routes = routing.routes.iter().enumerate().map(|(at, route)| {
            let written =
                configured.and_then(|listener: &Listener| listener.routing.as_ref()?.routes.get(at));
            one(route, written.map_or(route.as_ref(), AsRef::as_ref))
        });
        Some(json!({ "listener": listener.name, "routes": routes.collect::<Vec<_>>() }))
    });
    format!("{:#}\n", Value::from(listeners.collect::<Vec<_>>()))
}

fn one(route: &Route, written: &Route) -> Value {
    let hosts: Vec<String> = route.spec.hosts.iter().map(ToString::to_string).collect();
    let mut shown = json!({ "name": route.spec.name, "hosts": hosts });
    let Some(object) = shown.as_object_mut() else { return shown };
    let (key, target) = match (&route.target, &written.target) {
        (RouteTarget::Pool(pool), _) => ("pool", json!(pool.name())),
        (RouteTarget::Redirect(redirect), _) => ("redirect", json!(redirect.status)),
        (RouteTarget::Respond(fixed), _) => ("respond", json!(fixed.status)),
        (RouteTarget::Split(split), written) => {
            let branches = split.branches.iter().enumerate().map(|(at, branch)| {
                let configured = match written {
                    RouteTarget::Split(written) => written.branches.get(at).map(|branch| branch.weight),
                    _ => None,
                };
                json!({ "pool": branch.pool.name(), "weight": branch.weight, "configured": configured })
            });
            ("split", Value::from(branches.collect::<Vec<_>>()))
        }
    };
    object.insert(key.to_owned(), target);
    if !route.mirrors.is_empty() {
        let mirrors = route.mirrors.iter().map(|mirror| {
            json!({
                "pool": mirror.pool.name(),
                "fraction": mirror.fraction.to_string(),
                "max_body_bytes": mirror.max_body_bytes,
                "timeout_ms": u64::try_from(mirror.timeout.as_millis()).unwrap_or(u64::MAX),
            })
        });
        object.insert("mirrors".to_owned(), Value::from(mirrors.collect::<Vec<_>>()));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(blue: u32) -> Config {
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:80\"\nprotocol = \"h1\"\n[[listeners.routes]]\nname = \"app\"\n\
             split = [{{ pool = \"blue\", weight = {blue} }}, {{ pool = \"green\", weight = 0 }}]\n\
             [[pools.blue.backends]]\naddress = \"10.0.0.1:80\"\n[[pools.green.backends]]\naddress = \"10.0.0.2:80\"\n"
        );
        Config::parse(&text, "lb.toml").unwrap()
    }

    fn weights(told: &RouteWeights, config: &Config) -> Vec<u32> {
        let routing = config.listeners[0].routing.as_ref().unwrap();
        let over = told.over(routing);
        let RouteTarget::Split(split) = &over.as_ref().unwrap_or(routing).routes[0].target else {
            panic!("it is a split")
        };
        split.branches.iter().map(|branch| branch.weight).collect()
    }

    #[test]
    fn what_is_told_holds_until_the_file_says_something_else() {
        let file = config(1);
        let mut told = RouteWeights::default();
        told.told(&file, "app", b"{\"blue\": 0, \"green\": 1}").unwrap();
        assert_eq!(weights(&told, &file), [0, 1]);
        told.reloaded(&file);
        assert_eq!(weights(&told, &file), [0, 1]);
        told.told(&file, "app", b"{\"blue\": null}").unwrap();
        assert_eq!(weights(&told, &file), [1, 1]);
        told.told(&file, "app", b"{\"blue\": 0}").unwrap();
        let other = config(2);
        told.reloaded(&other);
        assert_eq!(weights(&told, &other), [2, 1], "the file has changed one of them");
    }

    #[test]
    fn the_list_has_mirrors() {
        let text = "[[listeners]]\naddress = \"127.0.0.1:80\"\nprotocol = \"h1\"\n[[listeners.routes]]\npool = \"blue\"\n\
                    mirror = [{ pool = \"green\", fraction = \"1/2\", timeout_ms = 70, max_body_bytes = 8 }]\n\
                    [[listeners.routes]]\npath = \"/\"\npool = \"blue\"\n\
                    [[pools.blue.backends]]\naddress = \"10.0.0.1:80\"\n[[pools.green.backends]]\naddress = \"10.0.0.2:80\"\n";
        let file = Config::parse(text, "lb.toml").unwrap();
        let list: Value = serde_json::from_str(&list(&file, &file)).unwrap();
        let mirror = json!({ "pool": "green", "fraction": "1/2", "max_body_bytes": 8, "timeout_ms": 70 });
        assert_eq!(list[0]["routes"][0]["mirrors"], json!([mirror]));
        assert_eq!(list[0]["routes"][1].get("mirrors"), None);
    }

    #[test]
    fn c_08_a_body_that_is_no_weights_changes_nothing() {
        let file = config(1);
        let mut told = RouteWeights::default();
        for (route, body, status) in [
            ("other", "{\"blue\": 1}", 404),
            ("app", "{\"red\": 1}", 404),
            ("app", "{\"blue\": 3, \"red\": 1}", 404),
            ("app", "{\"blue\": -1}", 400),
            ("app", "{\"blue\": 1.5}", 400),
            ("app", "{\"blue\": 4294967296}", 400),
            ("app", "{\"blue\": \"1\"}", 400),
            ("app", "{}", 400),
            ("app", "[]", 400),
            ("app", "", 400),
        ] {
            assert_eq!(told.told(&file, route, body.as_bytes()).unwrap_err().status, status, "{body}");
            assert_eq!(weights(&told, &file), [1, 0]);
        }
    }
}
