//! The conformance suite h2spec against the gateway. Without h2spec on the PATH the test is ignored, never passed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use testkit::harness::Case;
use testkit::process::run;
use testkit::tools::Tool;
use testkit::{Config, Gateway, Listener, Origin, Version, seconds};

/// Every case of h2spec, generic and by section, behind each kind of backend.
fn h2spec_finds_nothing() {
    for back in [Version::H1, Version::H2] {
        let origin = Origin::standard(back, "origin");
        let listener = match &origin {
            Origin::H1(backend) => Listener::h2c().backend(backend.address),
            Origin::H2(backend) => Listener::h2c().h2_backend(backend.address),
        };
        let config = Config::new().runtime("max_keepalive_requests", 0).listener(listener);
        let gateway = Gateway::start(config);
        let port = gateway.front().port().to_string();
        let arguments = ["-h", "127.0.0.1", "-p", &port, "--timeout", "5", "--max-header-length", "4000"];
        let said = run(Tool::H2spec.path().unwrap(), arguments, seconds(280));
        assert_eq!(said.code, 0, "{back:?}:\n{}\n{}", said.stdout, said.stderr);
        assert!(said.stdout.contains(" 0 failed"), "{back:?}:\n{}", said.stdout);
        assert_eq!(gateway.get("/").status, 200, "{back:?}: afterwards");
        origin.assert_clean();
    }
}

fn main() {
    let case = Case::new("h2spec_finds_nothing", h2spec_finds_nothing);
    let cases = vec![case.needs(&[Tool::H2spec]).guard(seconds(600))];
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
