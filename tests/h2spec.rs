//! The conformance suite h2spec against the gateway. Without h2spec on the PATH the test is ignored, never passed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use testkit::certificates::Authority;
use testkit::harness::Case;
use testkit::process::run;
use testkit::tools::Tool;
use testkit::{Config, Gateway, Listener, Origin, Version, seconds};

/// The one case that a port fails on which clients may speak HTTP/1.1 as well: what is no preface is answered there as a bad request.
const BAD_PREFACE: &str = "2: Sends invalid connection preface";

/// Every case of h2spec, generic and by section, inside TLS and without, behind each kind of backend.
fn h2spec_finds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("h2spec");
    let (certificate, key) = authority.server(&["127.0.0.1"]).write(directory.path(), "front");
    for back in [Version::H1, Version::H2] {
        for is_sealed in [true, false] {
            let origin = Origin::standard(back, "origin");
            let listener = if is_sealed { Listener::h1s(&certificate, &key) } else { Listener::h2c() };
            let listener = match &origin {
                Origin::H1(backend) => listener.backend(backend.address),
                Origin::H2(backend) => listener.h2_backend(backend.address),
            };
            let gateway =
                Gateway::start(Config::new().runtime("max_keepalive_requests", 0).listener(listener));
            let port = gateway.front().port().to_string();
            let mut arguments =
                vec!["-h", "127.0.0.1", "-p", &port, "--timeout", "5", "--max-header-length", "4000"];
            arguments.extend(is_sealed.then_some(["-t", "-k"]).into_iter().flatten());
            let said = run(Tool::H2spec.path().unwrap(), arguments, seconds(280));
            let failures = said.stdout.split_once("Failures:").map_or("", |(_, failures)| failures);
            let failed: Vec<_> = failures.lines().filter_map(|line| line.trim().strip_prefix("× ")).collect();
            let known: &[&str] = if is_sealed { &[] } else { &[BAD_PREFACE] };
            assert_eq!(failed, known, "{back:?}, sealed {is_sealed}:\n{}\n{}", said.stdout, said.stderr);
            assert!(said.stdout.contains(" tests, "), "{}\n{}", said.stdout, said.stderr);
            origin.assert_clean();
        }
    }
}

fn main() {
    let case = Case::new("h2spec_finds_nothing", h2spec_finds_nothing);
    let cases = vec![case.needs(&[Tool::H2spec]).guard(seconds(600))];
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
