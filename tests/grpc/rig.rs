//! A gateway between a gRPC client and a gRPC server.

use serde_json::Value;
use std::net::SocketAddr;
use testkit::peers::{Certificate, scenario};
use testkit::process::Finished;
use testkit::tools::curl;
use testkit::{Config, Gateway, Listener};

/// How clients reach the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// HTTP/2 by prior knowledge.
    Plain,
    /// HTTP/2 over TLS, by ALPN.
    Tls,
}

pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    certificate: Option<Certificate>,
}

impl Rig {
    /// A listener for gRPC in front of an HTTP/2 backend.
    #[track_caller]
    pub(crate) fn new(front: Front, backend: SocketAddr) -> Rig {
        Rig::with(front, |listener| listener.h2_backend(backend))
    }

    /// The same with the backends and keys that the test wants.
    #[track_caller]
    pub(crate) fn with(front: Front, more: impl FnOnce(Listener) -> Listener) -> Rig {
        let certificate = (front == Front::Tls).then(Certificate::localhost);
        let listener = match &certificate {
            Some(certificate) => Listener::h1s(&certificate.chain, &certificate.key),
            None => Listener::h2c(),
        };
        // The client does not repeat what a connection at its cap turns away.
        let config = Config::new().runtime("max_keepalive_requests", 0);
        let config = config.listener(more(listener.block("grpc", "", true)));
        Rig { gateway: Gateway::start(config), certificate }
    }

    /// Runs a scenario of the client.
    #[track_caller]
    pub(crate) fn call(&self, name: &str, args: &[&str]) -> Value {
        let ca = self.certificate.as_ref().map(|certificate| certificate.chain.display().to_string());
        let trust: Vec<&str> = ca.iter().flat_map(|path| ["--ca", path]).collect();
        scenario("grpc_client.py", self.gateway.front(), name, &[&trust[..], args].concat())
    }

    /// One raw HTTP/2 request with curl; head and body as curl prints them.
    #[track_caller]
    pub(crate) fn curl(&self, path: &str, args: &[&str]) -> Finished {
        let port = self.gateway.front().port();
        let ca = self.certificate.as_ref().map(|certificate| certificate.chain.display().to_string());
        let (url, how) = match &ca {
            Some(ca) => (format!("https://localhost:{port}{path}"), vec!["--http2", "--cacert", ca]),
            None => (format!("http://127.0.0.1:{port}{path}"), vec!["--http2-prior-knowledge"]),
        };
        let common = ["-D", "-", "-H", "content-type: application/grpc", "-H", "te: trailers", &url];
        curl(&[&how[..], &common, args].concat())
    }
}

/// The call ended so.
#[track_caller]
pub(crate) fn assert_code(seen: &Value, code: &str) {
    assert_eq!(seen["code"], code, "{seen}");
}
