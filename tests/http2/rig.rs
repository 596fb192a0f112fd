//! A gateway in one cell of the matrix of versions.

use testkit::{Config, Exchange, Fault, Front, Gateway, H2Client, Listener, Origin, Version};

/// Front and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) front: Version,
    pub(crate) back: Version,
}

/// Those with backends over TCP.
pub(crate) const CELLS: [Cell; 6] = [
    Cell { front: Version::H1, back: Version::H1 },
    Cell { front: Version::H1, back: Version::H2 },
    Cell { front: Version::H2, back: Version::H1 },
    Cell { front: Version::H2, back: Version::H2 },
    Cell { front: Version::H3, back: Version::H1 },
    Cell { front: Version::H3, back: Version::H2 },
];

/// Those with backends over QUIC.
pub(crate) const CELLS_TO_H3: [Cell; 3] = [
    Cell { front: Version::H1, back: Version::H3 },
    Cell { front: Version::H2, back: Version::H3 },
    Cell { front: Version::H3, back: Version::H3 },
];

impl Cell {
    /// Whether requests of one connection are apart from each other.
    pub(crate) fn has_streams(self) -> bool {
        self.front != Version::H1
    }

    /// The scheme by which clients come.
    pub(crate) fn scheme(self) -> &'static str {
        if self.front == Version::H3 { "https" } else { "http" }
    }

    /// A listener for the clients of this cell, without backends.
    pub(crate) fn bare_listener(self) -> Listener {
        if self.front == Version::H3 { Listener::quic() } else { Listener::h2c() }
    }

    /// A listener for the clients of this cell, with that origin behind it.
    pub(crate) fn listener(self, origin: &Origin) -> Listener {
        with_origin(self.bare_listener(), origin)
    }
}

/// Both versions of backends.
pub(crate) const BOTH: [Version; 2] = [Version::H1, Version::H2];

pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) origin: Origin,
    pub(crate) cell: Cell,
    /// Speaks HTTP/3 before an origin that does not.
    _between: Option<Gateway>,
}

/// A listener that serves both versions over TCP, with that origin behind it.
pub(crate) fn listener(origin: &Origin) -> Listener {
    with_origin(Listener::h2c(), origin)
}

/// One more backend.
pub(crate) fn with_origin(listener: Listener, origin: &Origin) -> Listener {
    match origin {
        Origin::H1(backend) => listener.backend(backend.address),
        Origin::H2(backend) => listener.h2_backend(backend.address),
    }
}

/// The usual configuration, without a cap on the requests of a connection.
pub(crate) fn config() -> Config {
    Config::new().runtime("max_keepalive_requests", 0)
}

impl Rig {
    /// A standard origin.
    pub(crate) fn standard(cell: Cell) -> Rig {
        Rig::on(cell, Origin::standard(cell.back, "one"), |listener| listener)
    }

    /// An origin that does what the script says.
    pub(crate) fn scripted(
        cell: Cell,
        script: impl Fn(&mut dyn Exchange) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Rig {
        // One worker: backend connections are counted, and each worker has its own.
        let config = || config().runtime("workers", 1);
        let (origin, between) = match cell.back {
            Version::H3 => {
                let origin = Origin::start(Version::H2, script);
                let between = Gateway::start(config().listener(with_origin(Listener::quic(), &origin)));
                (origin, Some(between))
            }
            version => (Origin::start(version, script), None),
        };
        let listener = match &between {
            Some(between) => cell.bare_listener().h3_backend(between.front()),
            None => cell.listener(&origin),
        };
        Rig { gateway: Gateway::start(config().listener(listener)), origin, cell, _between: between }
    }

    pub(crate) fn on(cell: Cell, origin: Origin, change: impl FnOnce(Listener) -> Listener) -> Rig {
        let listener = change(cell.listener(&origin));
        Rig { gateway: Gateway::start(config().listener(listener)), origin, cell, _between: None }
    }

    #[track_caller]
    pub(crate) fn front(&self) -> Front {
        Front::connect(self.cell.front, self.gateway.front()).expect("a connection")
    }

    #[track_caller]
    pub(crate) fn h2(&self) -> H2Client {
        H2Client::connect(self.gateway.front()).expect("HTTP/2 by prior knowledge")
    }
}
