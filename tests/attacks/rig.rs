//! A gateway with one backend, and the verdicts that most attacks share.

use testkit::{Backend, Config, Gateway, Listener, Response, seconds};

/// What every attack appends: if it ever arrives at the backend as a request of its own, the attack has worked.
pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n";

pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) backend: Backend,
}

impl Rig {
    /// A standard backend behind an HTTP/1.1 listener.
    pub(crate) fn standard() -> Rig {
        Rig::with(Backend::standard("origin"), |config| config, |listener| listener)
    }

    pub(crate) fn with(
        backend: Backend,
        config: impl FnOnce(Config) -> Config,
        listener: impl FnOnce(Listener) -> Listener,
    ) -> Rig {
        let listener = listener(Listener::h1()).backend(backend.address);
        let gateway = Gateway::start(config(Config::new()).listener(listener));
        Rig { gateway, backend }
    }

    /// Others are still served, and the backend saw nothing odd.
    #[track_caller]
    pub(crate) fn assert_unharmed(&self, case: &str) {
        let response = self.gateway.get("/well-behaved");
        assert_eq!(response.status, 200, "{case}: a well-behaved request afterwards");
        let faults = self.backend.faults();
        assert!(faults.is_empty(), "{case}: the backend received {faults:#?}");
        assert!(!self.backend.saw(b"/smuggled"), "{case}: the smuggled request arrived");
    }

    /// `bytes` are refused with one of the statuses, the connection ends, and no backend hears of them.
    #[track_caller]
    pub(crate) fn assert_refused(&self, case: &str, bytes: impl AsRef<[u8]>, statuses: &[u16]) {
        let before = self.backend.request_count();
        self.refuse(case, bytes.as_ref(), statuses);
        assert_eq!(self.backend.request_count(), before + 1, "{case}: it was forwarded");
    }

    /// The same for an attack inside a body: its head may have been forwarded, its end not.
    #[track_caller]
    pub(crate) fn assert_body_refused(&self, case: &str, bytes: impl AsRef<[u8]>, statuses: &[u16]) {
        self.backend.forget();
        self.refuse(case, bytes.as_ref(), statuses);
        let whole: Vec<_> = self.backend.requests().into_iter().filter(|r| r.complete).collect();
        let targets: Vec<_> = whole.iter().map(|r| r.target()).collect();
        assert_eq!(targets, ["/well-behaved"], "{case}: requests that arrived whole");
    }

    #[track_caller]
    fn refuse(&self, case: &str, bytes: &[u8], statuses: &[u16]) {
        let mut client = self.gateway.client();
        client.set_timeout(seconds(5));
        client.send_anyway([bytes, SMUGGLED.as_bytes()].concat());
        let response = client.response("GET").unwrap_or_else(|e| panic!("{case}: no answer: {e}"));
        assert!(statuses.contains(&response.status), "{case}: {} {:?}", response.status, response.text());
        assert_error(case, &response);
        client.closed(seconds(3)).unwrap_or_else(|e| panic!("{case}: after the answer: {e}"));
        self.assert_unharmed(case);
    }
}

/// An answer made by the gateway: short text that says so, and the end of the connection announced.
#[track_caller]
pub(crate) fn assert_error(case: &str, response: &Response) {
    let kind = response.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{case}: content type {kind:?}");
    assert!((1..=1024).contains(&response.body.len()), "{case}: body {:?}", response.text());
    assert!(response.head.headers.lists("connection", "close"), "{case}: the end is not announced");
}
