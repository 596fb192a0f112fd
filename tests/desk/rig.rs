//! A gateway with something of everything that the status shows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use tempfile::TempDir;
use testkit::backend::Conn;
use testkit::certificates::Authority;
use testkit::{Backend, Config, Gateway, Listener, Pool};

pub(crate) const TOKEN: &str = "secret-token";

/// SHA-256 of the token.
pub(crate) const HASH: &str = "930bbdc51b6aed5c2a5678fd6e28dee7a05e8a4b643cfc0b4427c3efb86c0d94";

/// Two pools, two routes with names, a listener inside TLS; `bad` fails when it is told to.
pub(crate) struct Desk {
    pub(crate) gateway: Gateway,
    pub(crate) good: Backend,
    pub(crate) bad: Backend,
    pub(crate) api: Backend,
    status: Arc<AtomicU16>,
    _certificates: TempDir,
}

impl Desk {
    #[track_caller]
    pub(crate) fn start(change: impl FnOnce(Config) -> Config) -> Desk {
        let status = Arc::new(AtomicU16::new(200));
        let answer = Arc::clone(&status);
        let bad = Backend::start(move |conn: &mut Conn| {
            loop {
                conn.request()?;
                conn.respond(answer.load(Ordering::SeqCst), &[], b"bad")?;
            }
        });
        let (good, api) = (Backend::standard("good"), Backend::standard("api"));
        let certificates = tempfile::tempdir().unwrap();
        let (certificate, key) = certificate(&certificates);
        let routes = "[[listeners.routes]]\nname = \"api\"\npool = \"api\"\nhosts = [\"api.example\"]\n\
                      [[listeners.routes]]\nname = \"old\"\nredirect = { status = 301, path = \"/new\" }\n\
                      path_prefix = \"/old\"\n";
        let web = Pool::named("web")
            .backend(good.address)
            .backend(bad.address)
            .block("outlier", "consecutive_5xx", 3)
            .block("outlier", "base_ejection_ms", 60_000);
        let config = Config::new()
            .runtime("workers", 2)
            .block("admin", "page", true)
            .block("admin", "api_token_hash", HASH)
            .listener(Listener::h1().key("pool", "web").text(routes))
            .listener(Listener::h1s(&certificate, &key).key("pool", "web"))
            .pool(web)
            .pool(Pool::named("api").backend(api.address));
        let gateway = Gateway::start(change(config));
        Desk { gateway, good, bad, api, status, _certificates: certificates }
    }

    /// Has `bad` answer with this status from now on.
    pub(crate) fn fail_with(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// So many requests of each kind, one of which is refused.
    pub(crate) fn traffic(&self, count: usize) {
        let mut client = self.gateway.client();
        for _ in 0..count {
            client.get("/").unwrap();
            client.request("GET", "/", &[("Host", "api.example")], b"").unwrap();
            client.get("/old/x").unwrap();
        }
        let mut rude = self.gateway.client();
        rude.send_anyway("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
        let _ = rude.response("GET");
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.gateway.admin())
    }

    /// The status now.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        status_of(&self.gateway)
    }
}

impl Desk {
    /// The status once so many requests are counted, which is when their responses have left.
    #[track_caller]
    pub(crate) fn status_after(&self, requests: u64) -> Value {
        let mut last = Value::Null;
        let found = testkit::poll(testkit::seconds(10), || {
            last = self.status();
            (last["process"]["requests_total"] == requests).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("not {requests} requests: {:#}", last["process"]))
    }
}

#[track_caller]
pub(crate) fn status_of(gateway: &Gateway) -> Value {
    let response = gateway.admin_get("/status");
    assert_eq!(response.status, 200, "{}", response.text());
    serde_json::from_str(&response.text()).unwrap()
}

/// A certificate for `localhost` and its key.
fn certificate(directory: &TempDir) -> (PathBuf, PathBuf) {
    Authority::new("desk").server(&["localhost"]).write(directory.path(), "desk")
}

/// The row whose member `key` is `value`.
#[track_caller]
pub(crate) fn row<'a>(rows: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = rows.as_array().unwrap().iter().find(|row| row[key] == value);
    found.unwrap_or_else(|| panic!("no row with {key} = {value} in {rows:#}"))
}
