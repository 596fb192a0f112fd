//! The configuration of the gateway: text in, a value that cannot be wrong out, and the difference between two of them.
//!
//! Nothing here opens a file or a socket: the caller hands in the text, and a name for messages.

mod config;
mod document;
mod error;
mod files;
mod list;
mod not_built;
mod places;
mod plan;
mod read;
mod render;
mod schema;
#[cfg(test)]
mod tests;
mod written;

pub use config::{
    AccessLogPlace, AdminAccess, AltSvc, Backend, BackendPool, BackendProtocol, BackendTls, Branch,
    ClientAuth, ClientAuthMode, ClientCertificate, Collector, Config, Discovery, DiscoverySource, Dns,
    FixedAnswer, Grpc, H2Security, HashKey, HealthCheck, HostPort, HostPortError, Http, HttpProbe, IdlePool,
    IoBackend, Listener, ListenerId, ListenerKind, MetricsBind, MintRetry, Mirror, Observability, OwnRoutes,
    Passthrough, Policy, PoolId, Probe, ProbeKind, ProbeMethod, Protocol, Quic, QuicLb, QuicRetry, RawProxy,
    Route, RouteLimits, RouteRetry, RouteTarget, Routing, RuntimeSettings, SameSite, Security, SniRoute,
    SocketName, Split, SplitKey, SplitSticky, Sticky, Tcp, TlsCertificate, TlsFiles, TraceProtocol, Tracing,
    Transport, Udp, UdpProbe, UnderscorePolicy, VirtualHost, Watchdog, WebSocket, Xdp, XdpAtShutdown,
    XdpForward, XdpIds, XdpListener, XdpMode, XdpPlace, XdpPlane, XdpProtocol, XdpRules, XdpService,
};
pub use error::{ConfigError, Errors};
pub use files::ConfigText;
pub use list::{ListFormat, parse_backends};
pub use plan::{
    BackendChange, ElementChange, KeyChange, KeyOwner, Plan, RouteChange, backend_changes, route_changes,
};
pub use render::{render_config_md, render_json_schema};
