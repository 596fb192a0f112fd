//! The configuration after every check: types that cannot hold a value the file may not have.

mod backend;
mod blocks;
mod host_port;
mod limits;
mod listener;
mod passthrough;
mod pool;
mod resilience;
mod route;
mod runtime;
mod socket_name;
mod split;
mod tracing;
mod xdp;

pub use backend::{Backend, BackendProtocol, BackendTls, ClientCertificate};
pub use blocks::{AccessLogPlace, AdminAccess, Dns, IdlePool, MetricsBind, Observability, Security};
pub use host_port::{HostPort, HostPortError};
pub use limits::{RouteLimits, RouteRetry};
pub use listener::{
    AltSvc, ClientAuth, ClientAuthMode, Grpc, H2Security, Http, Listener, ListenerKind, Protocol, Quic,
    QuicRetry, RawProxy, Tcp, TlsCertificate, TlsFiles, Udp, WebSocket,
};
pub(crate) use passthrough::hex_octets;
pub use passthrough::{MintRetry, Passthrough, QuicLb, SniRoute};
pub(crate) use pool::is_token;
pub use pool::{BackendPool, HashKey, SameSite, Sticky};
pub(crate) use resilience::RetryOn;
pub use resilience::{
    Discovery, DiscoverySource, HealthCheck, HttpProbe, Probe, ProbeKind, ProbeMethod, UdpProbe,
};
pub use route::{FixedAnswer, Mirror, OwnRoutes, Route, RouteTarget, Routing, VirtualHost};
pub use runtime::{IoBackend, RuntimeSettings, UnderscorePolicy, Watchdog, Xdp, XdpMode};
pub use socket_name::SocketName;
pub use split::{Branch, Split, SplitKey, SplitSticky};
pub use tracing::{Collector, TraceProtocol, Tracing};
pub(crate) use xdp::is_host;
pub use xdp::{
    XdpAtShutdown, XdpForward, XdpIds, XdpListener, XdpPlace, XdpPlane, XdpProtocol, XdpRules, XdpService,
};

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

pub use lb_core::balance::Policy;
use lb_core::filter::AccessList;
pub use lb_core::identity::{ListenerId, PoolId, Transport};

use crate::document::{self, Source, View};
use crate::error::{ConfigError, Errors};
use crate::files::ConfigText;
use crate::places::Places;
use crate::read;
use crate::written::Written;

/// One whole, valid configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The name of the file it came from, for messages.
    pub source_name: String,
    /// What the gateway binds, in the order of the file; `[passthrough]` comes last.
    pub listeners: Vec<Listener>,
    /// Every `[pools.NAME]`, in the order of their names, whether a listener uses it or not.
    pub pools: Vec<Arc<BackendPool>>,
    /// Every `[[routes.NAME]]`, by its name.
    pub route_tables: BTreeMap<String, Vec<Arc<Route>>>,
    /// Process-wide settings.
    pub runtime: RuntimeSettings,
    /// Idle backend connections.
    pub pool: IdlePool,
    /// Name resolution.
    pub dns: Dns,
    /// Metrics and logs.
    pub observability: Observability,
    /// Traces of requests.
    pub tracing: Tracing,
    /// Access to the admin port.
    pub admin: AdminAccess,
    /// Strictness of protocol checks.
    pub security: Security,
    /// What is balanced in the kernel.
    pub xdp: XdpPlane,
    /// What is allowed but probably not meant; one line each, to be logged at start and on reload.
    pub warnings: Vec<String>,
    pub(crate) not_built_yet: Vec<ConfigError>,
    /// The settings as the file spells them, so that a reload can report what it changes.
    pub(crate) written: Written,
    /// Where in the file paths and addresses stand.
    pub(crate) places: Places,
}

impl Config {
    /// Reads and checks a whole configuration in an empty environment. `file` is only a name for messages: nothing is opened.
    ///
    /// # Errors
    /// Everything that is wrong with the text, up to a bound, each with its line.
    pub fn parse(text: &str, file: &str) -> Result<Self, Errors> {
        Self::parse_in(text, file, &|_| None)
    }

    /// Reads and checks a whole configuration, as [`Self::parse`] does. `environment` gives the values of the variables that strings name
    /// by `${NAME}`.
    ///
    /// # Errors
    /// Everything that is wrong with the text, up to a bound, each with its line.
    pub fn parse_in(
        text: &str,
        file: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Errors> {
        Self::read(&Source::new(text, file).with_environment(environment))
    }

    /// Reads and checks a configuration of several files, as [`Self::parse_in`] does with one.
    ///
    /// # Errors
    /// Everything that is wrong with the text, up to a bound, each with its file and line.
    pub fn parse_files(
        text: &ConfigText,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Errors> {
        let files = text.files.iter().map(|(file, start)| (file.as_str(), *start)).collect();
        Self::read(&Source::of_files(&text.text, files).with_environment(environment))
    }

    fn read(source: &Source<'_>) -> Result<Self, Errors> {
        let document = document::parse(source)?;
        read::config(View::root(&document), source)
    }

    /// Each pool that a started listener uses, once, in the order of the listeners; then those of services in the kernel. No two of them have
    /// the same id.
    pub fn pools_in_use(&self) -> Vec<&Arc<BackendPool>> {
        let mut seen = HashSet::new();
        let started = self.listeners.iter().filter(|listener| listener.starts());
        let in_kernel = self.services_alone().iter().map(|service| &service.pool);
        started.flat_map(Listener::pools).chain(in_kernel).filter(|pool| seen.insert(&pool.id)).collect()
    }

    /// The pool of this id, if a listener or a service in the kernel has it.
    pub fn pool(&self, id: &PoolId) -> Option<&Arc<BackendPool>> {
        let in_kernel = self.services_alone().iter().map(|service| &service.pool);
        self.listeners.iter().flat_map(Listener::pools).chain(in_kernel).find(|pool| pool.id == *id)
    }

    /// The listeners that a pool stands behind, started or not.
    pub fn listeners_of(&self, id: &PoolId) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(move |listener| listener.pools().any(|pool| pool.id == *id))
    }

    /// The listener of this id, started or not.
    pub fn listener(&self, id: &ListenerId) -> Option<&Listener> {
        let mut listeners = self.listeners.iter();
        listeners.find(|listener| listener.name == id.name && listener.transport() == id.transport)
    }

    /// The services that are balanced in the kernel, also those that stand for listeners; none while XDP is off.
    pub fn xdp_services(&self) -> Vec<XdpService> {
        let of_listeners = self.listeners.iter().filter(|_| self.runtime.xdp.enabled);
        let of_listeners = of_listeners.filter_map(XdpService::of_listener);
        self.services_alone().iter().cloned().chain(of_listeners).collect()
    }

    /// The listeners whose SYNs are answered with cookies in a flood; none while XDP is off. Where a service has the address too, that gets the SYNs.
    pub fn syn_cookie_listeners(&self) -> Vec<XdpListener> {
        if !self.runtime.xdp.enabled || self.xdp.rules.syn_cookies_above == 0 {
            return Vec::new();
        }
        let services = self.xdp_services();
        let is_free = |one: &XdpListener| {
            !services.iter().any(|service| {
                let is_its_port = service.port == one.port || service.port == 0;
                service.address == one.address && service.protocol == XdpProtocol::Tcp && is_its_port
            })
        };
        self.listeners.iter().filter_map(XdpListener::of).filter(is_free).collect()
    }

    /// Those of them that no listener has.
    fn services_alone(&self) -> &[XdpService] {
        if self.runtime.xdp.enabled { &self.xdp.services } else { &[] }
    }

    /// Each access list that a started listener uses, once, by its policy.
    pub fn access_lists(&self) -> impl Iterator<Item = &Arc<AccessList>> {
        let mut seen = HashSet::new();
        let started = self.listeners.iter().filter(|listener| listener.starts());
        let lists = started.flat_map(|listener| {
            let routed = listener.routing.iter().flat_map(|routing| routing.access_lists());
            listener.access.iter().chain(routed)
        });
        lists.filter(move |list| seen.insert(&list.policy))
    }

    /// Whether a start would serve anything.
    pub fn serves(&self) -> bool {
        !self.services_alone().is_empty() || self.listeners.iter().any(Listener::starts)
    }

    /// What is wrong with `value`, a path or an address that stands under one of `keys`: an error for each such place that `owner` has
    /// in the file, with its line. A listener is the owner of what stands in it, and a pool with a name of what stands there; what stands
    /// in neither has no owner. When the value is not in the file, the one error has no line.
    pub fn faults(
        &self,
        owner: Option<&PoolId>,
        keys: &[&str],
        value: &str,
        problem: &str,
    ) -> Vec<ConfigError> {
        let found = self.places.faults(owner, keys, value, problem);
        if !found.is_empty() {
            return found;
        }
        let whose = owner.map_or(String::new(), |owner| format!("{}: ", owner.owner()));
        vec![ConfigError::of_file(&self.source_name, format!("{whose}{value}: {problem}"))]
    }

    /// As [`Self::faults`] for a file, wherever its path stands under any key; without a place where it stands nowhere.
    pub fn faults_wherever(&self, path: &str, problem: &str) -> Vec<ConfigError> {
        let found = self.places.faults_wherever(path, problem);
        if found.is_empty() {
            vec![ConfigError::of_file(&self.source_name, problem.to_owned())]
        } else {
            found
        }
    }

    /// The settings that are valid but that this build cannot honour. Both `check` and a start refuse them, because a
    /// setting that is accepted must have an effect.
    pub fn not_built_yet(&self) -> Vec<ConfigError> {
        self.not_built_yet.clone()
    }
}
