//! A gateway in front of a pool, `p`.

use std::fmt::Write;

use testkit::config::Toml;
use testkit::{Config, Gateway, Listener, seconds};

/// `[pools.p]` as text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pool {
    own: String,
    blocks: String,
    backends: String,
}

impl Pool {
    /// Probed often and judged soon, with these further lines.
    pub(crate) fn probed(kind: &str, lines: &str) -> Pool {
        let settings = "interval_ms = 200\ntimeout_ms = 200\nrise = 2\nfall = 2\n";
        Pool::with_health(&format!("type = \"{kind}\"\n{settings}{lines}"))
    }

    /// With these lines in `[pools.p.health]`.
    pub(crate) fn with_health(lines: &str) -> Pool {
        Pool { blocks: format!("[pools.p.health]\n{lines}\n"), ..Pool::default() }
    }

    /// Sets a key of the pool itself.
    pub(crate) fn key(mut self, key: &str, value: impl Toml) -> Pool {
        writeln!(self.own, "{key} = {}", value.toml()).unwrap();
        self
    }

    /// Adds a backend that speaks HTTP/1.1.
    pub(crate) fn h1(self, address: impl ToString) -> Pool {
        self.backend(address, "protocol = \"h1\"")
    }

    /// Adds a backend that speaks HTTP/2 by prior knowledge.
    pub(crate) fn h2(self, address: impl ToString) -> Pool {
        self.backend(address, "protocol = \"h2\"")
    }

    /// Adds a backend with further lines.
    pub(crate) fn backend(mut self, address: impl ToString, lines: &str) -> Pool {
        let address = address.to_string();
        write!(self.backends, "[[pools.p.backends]]\naddress = {address:?}\n{lines}\n").unwrap();
        self
    }

    fn text(&self) -> String {
        format!("[pools.p]\n{}{}{}", self.own, self.blocks, self.backends)
    }

    /// A listener that uses the pool, which is in the file behind it.
    pub(crate) fn behind(&self, listener: Listener) -> Listener {
        listener.key("pool", "p").text(&self.text())
    }

    /// A file with one HTTP/1.1 listener.
    pub(crate) fn config(&self) -> Config {
        Config::new().runtime("workers", 2).listener(self.behind(Listener::h1()))
    }

    /// The same, running.
    #[track_caller]
    pub(crate) fn gateway(&self) -> Gateway {
        Gateway::start(self.config())
    }
}

/// Waits until metrics say so of all addresses of a backend together.
#[track_caller]
pub(crate) fn wait_health(gateway: &Gateway, backend: impl ToString, healthy: bool) {
    let backend = backend.to_string();
    let labels = [("pool", "p"), ("backend", backend.as_str())];
    let wanted = f64::from(u8::from(healthy));
    let what = format!("backend_healthy of {backend} to be {wanted}");
    // There is no series before the first check has ended.
    let shown = || gateway.metrics().find("backend_healthy", &labels).map(|sample| sample.value).next();
    testkit::eventually(&what, seconds(30), || shown() == Some(wanted));
}

/// Probes of a backend that ended so.
pub(crate) fn probes(gateway: &Gateway, backend: impl ToString, result: &str) -> f64 {
    let labels = [("pool", "p"), ("backend", &*backend.to_string()), ("result", result)];
    gateway.metric("backend_health_probes_total", &labels)
}

/// Waits until so many more probes ended so.
#[track_caller]
pub(crate) fn wait_probes(gateway: &Gateway, backend: impl ToString, result: &str, more: f64) {
    let backend = backend.to_string();
    let before = probes(gateway, &backend, result);
    let what = format!("{more} more probes of {backend} that end as {result}");
    testkit::eventually(&what, seconds(30), || probes(gateway, &backend, result) >= before + more);
}
