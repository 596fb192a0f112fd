//! The configuration of the gateway: text in, a value that cannot be wrong out, and the difference between two of them.
//!
//! Nothing here opens a file or a socket: the caller hands in the text, and a name for messages.

mod config;
mod document;
mod error;
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
    AccessLog, Admin, AltSvc, Backend, BackendPool, BackendProtocol, BackendTls, Balance, ClientAuth,
    ClientAuthMode, ClientCertificate, Config, Discovery, DiscoverySource, Dns, Grpc, H2Security, HashKey,
    Health, HostPort, HostPortError, Http, HttpProbe, IoBackend, Limits, Listener, ListenerId, MetricsBind,
    Observability, Outlier, Passthrough, Policy, Pool, PoolId, Probe, ProbeKind, ProbeMethod, Protocol, Quic,
    RawProxy, Retry, RetryOn, Runtime, SameSite, Security, SocketName, Sticky, Tcp, TlsCertificate, TlsFiles,
    Transport, UnderscorePolicy, Watchdog, WebSocket, Xdp, XdpMode,
};
pub use error::{ConfigError, Errors};
pub use list::{ListFormat, parse_backends};
pub use plan::{Change, Plan};
pub use render::render_config_md;
