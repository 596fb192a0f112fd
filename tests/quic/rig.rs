//! A gateway that serves HTTP/3, with an origin behind it.

use testkit::quic::{QuicClient, QuicConnection};
use testkit::{Config, Exchange, Fault, Gateway, H3Client, Listener, Origin, Version};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) origin: Origin,
}

/// The usual configuration.
pub(crate) fn config() -> Config {
    Config::new().runtime("per_ip_connection_cap", 100_000)
}

impl Rig {
    /// A standard origin that speaks HTTP/1.1.
    #[track_caller]
    pub(crate) fn standard() -> Rig {
        Rig::with(|listener| listener)
    }

    #[track_caller]
    pub(crate) fn with(change: impl FnOnce(Listener) -> Listener) -> Rig {
        Rig::under(config().runtime("workers", 1), change)
    }

    #[track_caller]
    pub(crate) fn under(config: Config, change: impl FnOnce(Listener) -> Listener) -> Rig {
        Rig::of(Origin::standard(Version::H1, "one"), config, change)
    }

    /// An origin that does what the script says.
    #[track_caller]
    pub(crate) fn scripted(
        change: impl FnOnce(Listener) -> Listener,
        script: impl Fn(&mut dyn Exchange) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Rig {
        Rig::of(Origin::start(Version::H2, script), config().runtime("workers", 1), change)
    }

    #[track_caller]
    pub(crate) fn of(origin: Origin, config: Config, change: impl FnOnce(Listener) -> Listener) -> Rig {
        let listener = match &origin {
            Origin::H1(backend) => Listener::quic().backend(backend.address),
            Origin::H2(backend) => Listener::quic().h2_backend(backend.address),
        };
        Rig { gateway: Gateway::start(config.listener(change(listener))), origin }
    }

    #[track_caller]
    pub(crate) fn client(&self) -> H3Client {
        H3Client::connect(self.gateway.front()).expect("a connection")
    }

    #[track_caller]
    pub(crate) fn quic(&self) -> QuicConnection {
        QuicClient::default().connect(self.gateway.front()).expect("a connection")
    }

    /// The gateway still serves.
    #[track_caller]
    pub(crate) fn assert_serves(&self, case: &str) {
        let answer = self.client().get("/").unwrap_or_else(|e| panic!("after {case}: {e}"));
        assert_eq!((answer.status(), answer.text().as_str()), (200, "one"), "after {case}");
    }
}
