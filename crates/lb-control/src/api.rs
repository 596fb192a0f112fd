//! What operators see of the backends and do to them while the gateway runs: the answers to the admin port.
//!
//! Nothing is written down: what is done here holds until the process ends, or until a reload as far as the file names the backend.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use lb_config::{Backend, BackendPool, Config, ListFormat, Protocol, SocketName, parse_backends};
use lb_core::address::Address;
use lb_observe::admin::{Action, Call, Refusal};
use lb_pool::{Report, SharedPool};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::control::Control;
use crate::discovery;
use crate::overlay::Overlay;
use crate::route_weights;
use crate::snapshot::{PoolInForce, Snapshot};

/// What a body may say of a backend. Files are named in files only.
const KEYS: &[&str] = &["address", "protocol", "weight", "priority"];

impl Control {
    /// Does what is asked at the admin port.
    pub(crate) async fn answer(&mut self, Call { action, answer }: Call) {
        // Whoever asked may have been told that the gateway is busy, or have left: nothing is to happen behind their back.
        let is_awaited = || !answer.is_closed();
        if !is_awaited() {
            return;
        }
        let result = self.act(action, &is_awaited).await;
        // Who asked may have left.
        let _ = answer.send(result);
    }

    async fn act(&mut self, action: Action, is_awaited: &dyn Fn() -> bool) -> Result<String, Refusal> {
        match action {
            Action::List(pool) => self.standing().list(pool.as_deref()),
            Action::Plan { body, with_environment } => self.plan(&body, with_environment).await,
            Action::Routes => Ok(route_weights::list(&self.snapshot.config, &self.config)),
            Action::RouteWeights(route, body) => {
                let mut overlay = self.overlay.clone();
                overlay.route_weights_mut().told(&self.config, &route, &body)?;
                self.change(overlay, is_awaited).await?;
                tracing::info!(route, "weights of a route set by the admin port");
                Ok(route_weights::list(&self.snapshot.config, &self.config))
            }
            Action::Reload => {
                tracing::info!("reload asked for by the admin port");
                self.pass().await.map_err(|error| Refusal::new(422, error))?;
                Ok(self.admin_port.newest_reload() + "\n")
            }
            Action::Add(pool, body) => {
                let owner = self.pool(&pool)?;
                let backend = read_backend(&body, &self.protocols(&owner))?;
                let name = backend.name.clone();
                let mut overlay = self.overlay.clone();
                overlay.add(&owner, backend).map_err(|reason| Refusal::new(409, reason))?;
                self.change(overlay, is_awaited).await?;
                self.done(&pool, &name, "backend added by the admin port")
            }
            Action::Remove(pool, backend) => {
                let owner = self.pool(&pool)?;
                let (name, address) = self.backend(&owner, &backend)?;
                let mut overlay = self.overlay.clone();
                overlay.remove(&owner, &address);
                let left = overlay.over(&self.config);
                if left.pool(&owner.id).is_some_and(|pool| pool.backends.is_empty()) {
                    return Err(Refusal::new(409, format!("{name} is the last backend of the pool")));
                }
                self.change(overlay, is_awaited).await?;
                self.done(&pool, &name, "backend removed by the admin port")
            }
            Action::Drain(pool, backend, draining) => {
                let owner = self.pool(&pool)?;
                let (shared, members) = self.members(&owner, &backend)?;
                for at in members {
                    shared.set_draining(at, draining);
                }
                let what = if draining {
                    "backend drained by the admin port"
                } else {
                    "backend taken back by the admin port"
                };
                self.done(&pool, &backend, what)
            }
            Action::Weight(pool, backend, body) => {
                let weight = read_weight(&body)?;
                let owner = self.pool(&pool)?;
                let (shared, members) = self.members(&owner, &backend)?;
                for at in members {
                    shared.set_weight(at, weight);
                }
                self.done(&pool, &backend, "weight of a backend set by the admin port")
            }
        }
    }

    async fn change(&mut self, overlay: Overlay, is_awaited: &dyn Fn() -> bool) -> Result<(), Refusal> {
        let changed = self.apply_if(self.config.clone(), overlay, is_awaited).await;
        changed.map(|_| ()).map_err(|error| Refusal::new(422, format!("{error:#}").replace('\n', "; ")))
    }

    /// Logs what was done, and shows how the pool stands after it.
    fn done(&self, pool: &str, backend: &str, what: &'static str) -> Result<String, Refusal> {
        tracing::info!(pool, backend, "{what}");
        self.standing().list(Some(pool))
    }

    /// What the admin port shows now.
    pub(crate) fn standing(&self) -> Pools<'_> {
        Pools { config: &self.config, overlay: &self.overlay, snapshot: &self.snapshot }
    }

    /// A pool as the file has it, by the name under which it is shown.
    fn pool(&self, name: &str) -> Result<Arc<BackendPool>, Refusal> {
        let pools = self.config.pools_in_use();
        let pool = pools.into_iter().find(|pool| pool.id.name() == name);
        pool.cloned().ok_or_else(no_pool)
    }

    fn protocols(&self, pool: &BackendPool) -> Vec<Protocol> {
        self.config.listeners_of(&pool.id).map(|listener| listener.protocol).collect()
    }

    /// A backend that is in use, by name or address as written.
    fn backend(&self, pool: &BackendPool, text: &str) -> Result<(String, SocketName), Refusal> {
        let merged = self.snapshot.config.pool(&pool.id);
        let backends = merged.map_or(&[][..], |pool| &pool.backends);
        let wanted = SocketName::parse(text).ok();
        let found =
            backends.iter().find(|backend| backend.name == text || Some(&backend.address) == wanted.as_ref());
        if let Some(backend) = found {
            return Ok((backend.name.clone(), backend.address.clone()));
        }
        // One address of a name can be drained, but the name would bring it back.
        Err(match self.members(pool, text) {
            Ok(_) => Refusal::new(
                409,
                format!("{text} is an address of a backend with a name: remove that, or drain this"),
            ),
            Err(refusal) => refusal,
        })
    }

    /// The members that a text means: all addresses of a backend, or one address.
    fn members(&self, pool: &BackendPool, text: &str) -> Result<(Arc<SharedPool>, Vec<usize>), Refusal> {
        let shared = self.snapshot.pool(&pool.id).ok_or_else(no_pool)?.shared;
        let wanted = SocketName::parse(text).ok();
        let is_meant = |backend: &str, address: Address| {
            backend == text
                || wanted.as_ref().is_some_and(|wanted| {
                    wanted.literal() == Some(address)
                        || SocketName::parse(backend).is_ok_and(|name| name == *wanted)
                })
        };
        let members = shared.members.iter().enumerate();
        let meant: Vec<usize> = members
            .filter(|(_, (member, _))| is_meant(&member.key.backend, member.key.address))
            .map(|(at, _)| at)
            .collect();
        if meant.is_empty() {
            return Err(Refusal::new(404, "the pool has no such backend"));
        }
        Ok((Arc::clone(shared), meant))
    }
}

fn no_pool() -> Refusal {
    Refusal::new(404, "no listener uses a pool of this name")
}

/// Answers while the process drains: what is asked is shown, and nothing is changed any more.
pub(crate) async fn answer_in_drain(
    mut calls: mpsc::Receiver<Call>,
    config: Config,
    overlay: Overlay,
    snapshot: Arc<Snapshot>,
) {
    while let Some(Call { action, answer }) = calls.recv().await {
        let pools = Pools { config: &config, overlay: &overlay, snapshot: &snapshot };
        let result = match action {
            Action::List(pool) => pools.list(pool.as_deref()),
            Action::Routes => Ok(route_weights::list(&snapshot.config, &config)),
            _ => Err(Refusal::new(503, "the gateway is ending")),
        };
        let _ = answer.send(result);
    }
}

fn bad(reason: impl Into<String>) -> Refusal {
    Refusal::new(400, reason)
}

pub(crate) fn read_object(body: &[u8]) -> Result<serde_json::Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(bad("the body must be a JSON object")),
        Err(error) => Err(bad(format!("the body is not JSON: {error}"))),
    }
}

fn read_backend(body: &[u8], protocols: &[Protocol]) -> Result<Backend, Refusal> {
    let object = read_object(body)?;
    if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(bad(format!(
            "{key:?}: a backend is given {} here, and all else in the file",
            KEYS.join(", ")
        )));
    }
    // As it came, so that a key that stands twice is refused there.
    let text = String::from_utf8_lossy(body);
    let backends = parse_backends(&format!("[{text}]"), "body", ListFormat::Json)
        .map_err(|errors| bad(errors.to_string().replace('\n', "; ")))?;
    discovery::check(&backends, protocols).map_err(bad)?;
    match <[Backend; 1]>::try_from(backends) {
        Ok([backend]) if backend.address.host_port().is_some_and(|address| address.port == 0) => {
            Err(bad("nothing can be reached at port 0"))
        }
        Ok([backend]) => Ok(backend),
        Err(_) => Err(bad("the body must be one backend")),
    }
}

/// The weight in a body; `null` gives back the configured one.
fn read_weight(body: &[u8]) -> Result<Option<u32>, Refusal> {
    let object = read_object(body)?;
    let wrong =
        || bad("the body must be {\"weight\": an integer 0..=4294967295, or null for the configured one}");
    match (object.get("weight"), object.len()) {
        (Some(Value::Null), 1) => Ok(None),
        (Some(weight), 1) => {
            let weight = weight.as_u64().and_then(|weight| u32::try_from(weight).ok());
            weight.map(Some).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

/// All pools as they stand.
pub(crate) struct Pools<'a> {
    config: &'a Config,
    overlay: &'a Overlay,
    snapshot: &'a Snapshot,
}

impl Pools<'_> {
    /// An array of all pools, or of the one with this name.
    fn list(&self, name: Option<&str>) -> Result<String, Refusal> {
        let pools = self.config.pools_in_use().into_iter();
        let wanted = pools.filter(|pool| name.is_none_or(|name| pool.id.name() == name));
        let list: Vec<Value> = wanted.filter_map(|pool| self.pool(pool)).collect();
        if list.is_empty() && name.is_some() {
            return Err(no_pool());
        }
        Ok(format!("{:#}\n", Value::from(list)))
    }

    fn pool(&self, pool: &BackendPool) -> Option<Value> {
        let PoolInForce { config: merged, backends: resolved, shared } = self.snapshot.pool(&pool.id)?;
        let users = self.config.listeners_of(&pool.id);
        let reports = shared.report(Instant::now());
        let origins = self.overlay.origins(self.config);
        let backends = merged.backends.iter().map(|backend| (backend.name.as_str(), &backend.address));
        let by_name: HashMap<_, _> = backends.collect();
        let members = reports.iter().map(|report| {
            let address = by_name.get(report.backend.as_str());
            let origin = address.map(|address| origins.of(&pool.id, address).name());
            member(report, origin)
        });
        let unresolved = resolved.iter().filter(|backend| backend.addresses.is_empty());
        Some(json!({
            "pool": pool.id.name(),
            "listeners": users.map(|listener| listener.name.as_str()).collect::<Vec<_>>(),
            "policy": pool.settings.balance.policy.to_string(),
            "panic": shared.is_in_panic(),
            "members": members.collect::<Vec<_>>(),
            "without_address": unresolved.map(|backend| backend.name.as_str()).collect::<Vec<_>>(),
        }))
    }
}

fn member(report: &Report, origin: Option<&str>) -> Value {
    let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    json!({
        "backend": report.backend,
        "address": report.address.to_string(),
        "origin": origin,
        "weight": report.weight,
        "priority": report.priority,
        "draining": report.draining,
        "health": report.health.map_or("unchecked", |state| state.as_str()),
        "health_reason": report.last.map(|outcome| outcome.as_str()),
        "ejected": report.ejected_for.is_some(),
        "ejected_for_ms": report.ejected_for.map(|time| time.as_millis() as u64),
        "probation": report.probation,
        "ejections": report.ejections,
        "left_alone": report.rest.is_some(),
        "left_alone_reason": report.rest.map(|(cause, _)| cause.as_str()),
        "left_alone_for_ms": report.rest.map(|(_, time)| time.as_millis() as u64),
        "requests_in_flight": report.requests_running,
        "connections": report.connections,
        "requests_total": report.requests,
        "failures_total": report.failures,
        "latency_mean_ms": report.mean_latency.map(millis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_say_one_backend_and_nothing_that_opens_files() {
        let read =
            |body: &str| read_backend(body.as_bytes(), &[Protocol::H1]).map_err(|refusal| refusal.reason);
        let backend =
            read("{\"address\": \"10.0.0.1:80\", \"weight\": 2, \"priority\": 1, \"protocol\": \"h2\"}")
                .unwrap();
        assert_eq!((backend.name.as_str(), backend.weight, backend.priority), ("10.0.0.1:80", 2, 1));
        for (body, problem) in [
            ("", "not JSON"),
            ("[]", "must be a JSON object"),
            ("{}", "address: missing"),
            ("{\"address\": 7}", "address"),
            ("{\"address\": \"10.0.0.1\"}", "the port is missing"),
            ("{\"address\": \"10.0.0.1:0\"}", "port 0"),
            (
                "{\"address\": \"unix:/run/docker.sock\"}",
                "a Unix socket may stand in the configuration alone",
            ),
            ("{\"address\": \"10.0.0.1:80\", \"weight\": -1}", "weight"),
            ("{\"address\": \"10.0.0.1:80\", \"tls_ca_path\": \"/etc/shadow\"}", "in the file"),
            ("{\"address\": \"10.0.0.1:80\", \"address\": \"10.0.0.2:80\"}", "duplicate"),
            ("{\"address\": \"10.0.0.1:80\", \"protocol\": \"h3\"}", ""),
        ] {
            let reason = read(body).expect_err(body);
            assert!(reason.contains(problem), "{body}: {reason}");
        }
    }

    #[test]
    fn weights_are_whole_or_the_configured_ones() {
        assert_eq!(read_weight(b"{\"weight\": 3}"), Ok(Some(3)));
        assert_eq!(read_weight(b"{\"weight\": 0}"), Ok(Some(0)));
        assert_eq!(read_weight(b"{\"weight\": null}"), Ok(None));
        for body in [
            "",
            "3",
            "{}",
            "{\"weight\": -1}",
            "{\"weight\": 1.5}",
            "{\"weight\": 4294967296}",
            "{\"weight\": 1, \"x\": 1}",
        ] {
            assert_eq!(read_weight(body.as_bytes()).unwrap_err().status, 400, "{body}");
        }
    }
}
