//! A gateway's configuration file, put together from what a test cares about.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// A value as TOML writes it.
pub trait Toml {
    /// The text of the value.
    fn toml(&self) -> String;
}

macro_rules! plain {
    ($($kind:ty),*) => {$(impl Toml for $kind { fn toml(&self) -> String { self.to_string() } })*};
}
plain!(i32, i64, u16, u32, u64, usize, bool);

impl Toml for &str {
    fn toml(&self) -> String {
        format!("{:?}", self)
    }
}

impl Toml for String {
    fn toml(&self) -> String {
        self.as_str().toml()
    }
}

impl Toml for Vec<String> {
    fn toml(&self) -> String {
        let items: Vec<_> = self.iter().map(Toml::toml).collect();
        format!("[{}]", items.join(", "))
    }
}

type Keys = BTreeMap<String, String>;

fn write_keys(out: &mut String, keys: &Keys) {
    for (key, value) in keys {
        writeln!(out, "{key} = {value}").unwrap();
    }
}

/// One `[[listeners]]` block.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    keys: Keys,
    blocks: BTreeMap<&'static str, Keys>,
    text: String,
    backends: Vec<Keys>,
}

impl Listener {
    fn new(protocol: &str) -> Self {
        let address = crate::ports::reserve();
        let keys = Keys::from([
            ("address".to_owned(), address.to_string().toml()),
            ("protocol".to_owned(), protocol.toml()),
        ]);
        Listener { address, keys, blocks: BTreeMap::new(), text: String::new(), backends: Vec::new() }
    }

    /// An HTTP/1.1 listener on a free port.
    pub fn h1() -> Self {
        Listener::new("h1")
    }

    /// A listener on a free port that serves HTTP/1.1, and HTTP/2 by prior knowledge.
    pub fn h2c() -> Self {
        Listener::h1().key("h2c", true)
    }

    /// A TCP listener on a free port.
    pub fn tcp() -> Self {
        Listener::new("tcp")
    }

    /// A listener for datagrams on a free port.
    pub fn udp() -> Self {
        Listener::new("udp")
    }

    /// A listener for raw bytes inside TLS on a free port, with the certificate `name`.pem of a directory.
    pub fn tls(directory: &Path, name: &str) -> Self {
        let file = |end| directory.join(format!("{name}.{end}")).display().to_string();
        Listener::new("tls").block("tls", "cert_path", file("pem")).block("tls", "key_path", file("key"))
    }

    /// A listener on a free port that serves HTTP/2 and HTTP/1.1 inside TLS.
    pub fn h1s(certificate: &Path, key: &Path) -> Self {
        let text = |path: &Path| path.display().to_string();
        Listener::new("h1s").block("tls", "cert_path", text(certificate)).block("tls", "key_path", text(key))
    }

    /// A listener on a free port that serves HTTP/3, with the certificate of [`crate::quic::site`].
    pub fn quic() -> Self {
        let directory = crate::quic::site().directory();
        let listener = Listener::new("quic")
            .quic_key("retry_secret_path", directory.join("retry.secret").display().to_string());
        listener.certificate(&directory.join("quic.pem"), &directory.join("quic.key"))
    }

    /// A listener on a free port that relays QUIC to this backend, which shows the certificate of [`crate::quic::site`].
    pub fn quic_relay(backend: impl ToString) -> Self {
        let ca = crate::quic::site().directory().join("ca.pem").display().to_string();
        Listener::quic()
            .block("quic.raw_proxy", "backend_addr", backend.to_string())
            .block("quic.raw_proxy", "sni", crate::quic::NAME)
            .block("quic.raw_proxy", "backend_ca_path", ca)
    }

    /// Sets a key of `[listeners.quic.raw_proxy]`.
    pub fn raw_key(self, key: &str, value: impl Toml) -> Self {
        self.block("quic.raw_proxy", key, value)
    }

    /// Sets a key of `[listeners.quic]`.
    pub fn quic_key(self, key: &str, value: impl Toml) -> Self {
        self.block("quic", key, value)
    }

    /// Has a QUIC listener show this certificate.
    pub fn certificate(self, certificate: &Path, key: &Path) -> Self {
        let text = |path: &Path| path.display().to_string();
        self.quic_key("cert_path", text(certificate)).quic_key("key_path", text(key))
    }

    /// Adds lines of TOML behind the blocks.
    pub fn text(mut self, lines: &str) -> Self {
        self.text.push_str(lines);
        self
    }

    /// Adds a backend inside TLS, verified as `name` by the authority in the file `ca`.
    pub fn backend_tls(self, address: impl ToString, name: &str, ca: &Path) -> Self {
        let keys = [
            ("tls", true.toml()),
            ("tls_verify_hostname", name.toml()),
            ("tls_ca_path", ca.display().to_string().toml()),
        ];
        self.backend_with(address, &keys)
    }

    /// Adds a backend that speaks HTTP/2 inside TLS, verified as `name` by the authority in the file `ca`.
    pub fn h2_backend_tls(self, address: impl ToString, name: &str, ca: &Path) -> Self {
        self.backend_tls(address, name, ca).backend_key("protocol", "h2")
    }

    /// Adds a backend that speaks HTTP/3 and shows the certificate of [`crate::quic::site`].
    pub fn h3_backend(self, address: impl ToString) -> Self {
        let ca = crate::quic::site().directory().join("ca.pem").display().to_string();
        let keys = [
            ("protocol", "h3".toml()),
            ("tls_verify_hostname", crate::quic::NAME.toml()),
            ("tls_ca_path", ca.toml()),
        ];
        self.backend_with(address, &keys)
    }

    /// Sets a key of the backend that was added last.
    pub fn backend_key(mut self, key: &str, value: impl Toml) -> Self {
        self.backends.last_mut().expect("a backend").insert(key.to_owned(), value.toml());
        self
    }

    /// This listener at another address.
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self.key("address", address.to_string())
    }

    /// This listener at the Unix socket `path`.
    pub fn at_unix(self, path: &str) -> Self {
        self.key("address", format!("unix:{path}"))
    }

    /// Sets a key of the listener itself.
    pub fn key(mut self, key: &str, value: impl Toml) -> Self {
        self.keys.insert(key.to_owned(), value.toml());
        self
    }

    /// Sets a key of a sub-block such as `http`; an empty key only makes the block appear.
    pub fn block(mut self, block: &'static str, key: &str, value: impl Toml) -> Self {
        let keys = self.blocks.entry(block).or_default();
        if !key.is_empty() {
            keys.insert(key.to_owned(), value.toml());
        }
        self
    }

    /// Sets a key of `[listeners.http]`.
    pub fn http(self, key: &str, value: impl Toml) -> Self {
        self.block("http", key, value)
    }

    /// Sets a key of `[listeners.h2_security]`.
    pub fn h2(self, key: &str, value: impl Toml) -> Self {
        self.block("h2_security", key, value)
    }

    /// Allows WebSocket upgrades.
    pub fn websocket(self) -> Self {
        self.block("websocket", "", true)
    }

    /// Adds a backend.
    pub fn backend(self, address: impl ToString) -> Self {
        self.backend_with(address, &[])
    }

    /// Adds a backend that speaks HTTP/2 by prior knowledge.
    pub fn h2_backend(self, address: impl ToString) -> Self {
        self.backend_with(address, &[("protocol", "h2".toml())])
    }

    /// Adds a backend with a weight.
    pub fn weighted(self, address: impl ToString, weight: u32) -> Self {
        self.backend_with(address, &[("weight", weight.toml())])
    }

    fn backend_with(mut self, address: impl ToString, extra: &[(&str, String)]) -> Self {
        let mut keys = Keys::from([("address".to_owned(), address.to_string().toml())]);
        if matches!(&*self.keys["protocol"], "\"h1\"" | "\"h1s\"" | "\"quic\"") {
            keys.insert("protocol".to_owned(), "h1".toml());
        }
        keys.extend(extra.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        self.backends.push(keys);
        self
    }

    /// Sends the traffic to a pool with a name, which [`Config::pool`] adds.
    pub fn pool(self, name: &str) -> Self {
        self.key("pool", name)
    }

    /// Takes all backends away.
    pub fn without_backends(mut self) -> Self {
        self.backends.clear();
        self
    }

    fn render(&self, out: &mut String) {
        out.push_str("\n[[listeners]]\n");
        write_keys(out, &self.keys);
        for (name, keys) in &self.blocks {
            writeln!(out, "[listeners.{name}]").unwrap();
            write_keys(out, keys);
        }
        out.push_str(&self.text);
        for backend in &self.backends {
            out.push_str("[[listeners.backends]]\n");
            write_keys(out, backend);
        }
    }
}

/// One `[pools.NAME]` block with the blocks inside it.
#[derive(Debug, Clone)]
pub struct Pool {
    name: String,
    keys: Keys,
    blocks: BTreeMap<&'static str, Keys>,
    backends: Vec<Keys>,
}

impl Pool {
    /// A pool without backends. Listeners refer to it by [`Listener::pool`].
    pub fn named(name: &str) -> Self {
        Pool { name: name.to_owned(), keys: Keys::new(), blocks: BTreeMap::new(), backends: Vec::new() }
    }

    /// Sets a key of the pool.
    pub fn key(mut self, key: &str, value: impl Toml) -> Self {
        self.keys.insert(key.to_owned(), value.toml());
        self
    }

    /// Sets a key of a block of the pool such as `health`.
    pub fn block(mut self, block: &'static str, key: &str, value: impl Toml) -> Self {
        self.blocks.entry(block).or_default().insert(key.to_owned(), value.toml());
        self
    }

    /// Adds a backend.
    pub fn backend(self, address: impl ToString) -> Self {
        self.backend_with(address, &[])
    }

    /// Adds a backend with a weight.
    pub fn weighted(self, address: impl ToString, weight: u32) -> Self {
        self.backend_with(address, &[("weight", weight.toml())])
    }

    /// Adds a backend with more keys, whose values are TOML.
    pub fn backend_with(mut self, address: impl ToString, extra: &[(&str, String)]) -> Self {
        let mut keys = Keys::from([("address".to_owned(), address.to_string().toml())]);
        keys.extend(extra.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
        self.backends.push(keys);
        self
    }

    fn render(&self, out: &mut String) {
        let name = &self.name;
        writeln!(out, "\n[pools.{name}]").unwrap();
        write_keys(out, &self.keys);
        for (block, keys) in &self.blocks {
            writeln!(out, "[pools.{name}.{block}]").unwrap();
            write_keys(out, keys);
        }
        for backend in &self.backends {
            writeln!(out, "[[pools.{name}.backends]]").unwrap();
            write_keys(out, backend);
        }
    }
}

/// A whole file. Starts with a short drain, no settling and an admin port, which nearly every test wants.
#[derive(Debug, Clone)]
pub struct Config {
    /// The admin address.
    pub admin: SocketAddr,
    text: String,
    blocks: BTreeMap<String, Keys>,
    listeners: Vec<Listener>,
    pools: Vec<Pool>,
}

impl Config {
    /// A file without listeners.
    pub fn new() -> Self {
        let admin = crate::ports::reserve();
        let config = Config {
            admin,
            text: String::new(),
            blocks: BTreeMap::new(),
            listeners: Vec::new(),
            pools: Vec::new(),
        };
        let config = match crate::io::Driver::current() {
            Some(driver) => config.runtime("io_backend", driver.name()),
            None => config,
        };
        config
            .block("observability", "metrics_bind", admin.to_string())
            .runtime("drain_timeout_ms", 500)
            .runtime("readiness_settle_ms", 0)
            .runtime("drain_jitter_ms", 0)
    }

    /// Adds a listener.
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// This file with other listeners.
    pub fn with_listener(mut self, listener: Listener) -> Self {
        self.listeners = vec![listener];
        self
    }

    /// Adds lines of TOML before everything else.
    pub fn text(mut self, lines: &str) -> Self {
        self.text.push_str(lines);
        self
    }

    /// Adds a pool, in place of an earlier one of that name.
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pools.retain(|known| known.name != pool.name);
        self.pools.push(pool);
        self
    }

    /// Sets a key of a top-level block such as `runtime.watchdog`.
    pub fn block(mut self, block: &str, key: &str, value: impl Toml) -> Self {
        self.blocks.entry(block.to_owned()).or_default().insert(key.to_owned(), value.toml());
        self
    }

    /// Sets a key of `[runtime]`.
    pub fn runtime(self, key: &str, value: impl Toml) -> Self {
        self.block("runtime", key, value)
    }

    /// Where the first listener listens.
    pub fn front(&self) -> SocketAddr {
        self.listeners[0].address
    }

    /// Where the listener at this position listens.
    pub fn address(&self, at: usize) -> SocketAddr {
        self.listeners[at].address
    }

    /// The text of the file.
    pub fn render(&self) -> String {
        let mut out = self.text.clone();
        for (name, keys) in &self.blocks {
            writeln!(out, "[{name}]").unwrap();
            write_keys(&mut out, keys);
        }
        for listener in &self.listeners {
            listener.render(&mut out);
        }
        for pool in &self.pools {
            pool.render(&mut out);
        }
        out
    }
}

impl Default for Config {
    fn default() -> Self {
        Config::new()
    }
}
