//! Which files make a bundle, and which policy a name has.

use testkit::certificates::{Authority, write};

use super::Rig;
use crate::CertFailure;

fn refused(rig: &Rig, lines: &str, file: &str, reason: CertFailure) {
    let error = rig.load(lines).unwrap_err();
    assert_eq!(error.reason, reason, "{error}");
    assert_eq!(error.path(), Some(rig.file(file).as_path()), "{error}");
    assert!(!error.to_string().contains("PRIVATE"), "{error}");
}

#[test]
fn t_07_files_that_do_not_fit_are_refused_by_name() {
    let rig = Rig::new();
    let good = rig.load("").unwrap();
    assert_eq!(good.certificates().len(), 1);
    assert!(good.certificates()[0].not_after > good.loaded_at());
    let other = rig.authority.server(&["server.test"]);
    let whole = std::fs::read_to_string(rig.file("s.key")).unwrap();
    let cert = std::fs::read_to_string(rig.file("s.pem")).unwrap();

    write(&rig.file("s.key"), &other.key, 0o600);
    refused(&rig, "", "s.key", CertFailure::KeyMismatch);
    write(&rig.file("s.key"), &whole, 0o640);
    refused(&rig, "", "s.key", CertFailure::Permissions);
    write(&rig.file("s.key"), &whole[..whole.len() / 2], 0o600);
    refused(&rig, "", "s.key", CertFailure::KeyParse);
    write(&rig.file("s.key"), "", 0o600);
    refused(&rig, "", "s.key", CertFailure::NoKey);
    write(&rig.file("s.key"), "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", 0o600);
    refused(&rig, "", "s.key", CertFailure::KeyParse);
    std::fs::remove_file(rig.file("s.key")).unwrap();
    refused(&rig, "", "s.key", CertFailure::Io);
    write(&rig.file("s.key"), &whole, 0o600);

    write(&rig.file("s.pem"), &cert[..cert.len() / 2], 0o644);
    refused(&rig, "", "s.pem", CertFailure::CertParse);
    write(&rig.file("s.pem"), "", 0o644);
    refused(&rig, "", "s.pem", CertFailure::EmptyChain);
    write(&rig.file("s.pem"), format!("{cert}{}", rig.authority.expired(&["x"]).cert), 0o644);
    refused(&rig, "", "s.pem", CertFailure::Expired);
    write(&rig.file("s.pem"), rig.authority.of_the_future(&["x"]).cert, 0o644);
    refused(&rig, "", "s.pem", CertFailure::NotYetValid);
    write(&rig.file("s.pem"), &cert, 0o644);
    assert!(rig.load("").is_ok());
}

#[test]
fn t_09_a_chain_has_a_depth_and_a_size() {
    let rig = Rig::new();
    let cert = std::fs::read_to_string(rig.file("s.pem")).unwrap();
    write(&rig.file("s.pem"), cert.repeat(6), 0o644);
    assert!(rig.load("").is_ok());
    write(&rig.file("s.pem"), cert.repeat(7), 0o644);
    refused(&rig, "", "s.pem", CertFailure::ChainTooDeep);
    let names: Vec<String> = (0..2000).map(|n| format!("a-rather-long-name-{n}.example.org")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    rig.authority.server(&names).write(rig.path(), "s");
    refused(&rig, "", "s.pem", CertFailure::CertParse);
}

#[test]
fn t_03_equal_rules_are_one_policy_and_names_without_rules_have_the_listeners() {
    let rig = Rig::new();
    for name in ["open", "closed"] {
        rig.authority.server(&[&format!("{name}.test"), "*.shared.test"]).write(rig.path(), name);
    }
    let lines = "[[listeners.tls.certificates]]\ncert_path = \"DIR/open.pem\"\nkey_path = \"DIR/open.key\"\n\
         [[listeners.tls.certificates]]\ncert_path = \"DIR/closed.pem\"\nkey_path = \"DIR/closed.key\"\n\
         server_names = [\"closed.test\"]\nclient_auth = \"require\"\nclient_ca_path = \"DIR/ca.pem\"\n";
    let bundle = rig.load(lines).unwrap();
    let of = |name| bundle.policy_of(Some(name));
    assert_eq!(of("open.test"), bundle.policy_of(None));
    assert_eq!(of("elsewhere.test"), bundle.policy_of(None));
    assert_eq!(of("a.shared.test"), of("open.test"));
    assert_ne!(of("CLOSED.test."), of("open.test"));
    assert!(bundle.only_config().is_none());
    assert!(rig.load("").unwrap().only_config().is_some());
}

#[test]
fn authorities_and_revocation_lists_must_hold_what_they_are_for() {
    let rig = Rig::new();
    let lines =
        "client_auth = \"require\"\nclient_ca_path = \"DIR/ca.pem\"\nclient_crl_path = \"DIR/crl.pem\"\n";
    refused(&rig, lines, "crl.pem", CertFailure::Io);
    write(&rig.file("crl.pem"), "nothing", 0o644);
    refused(&rig, lines, "crl.pem", CertFailure::RevocationList);
    write(&rig.file("crl.pem"), "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n", 0o644);
    refused(&rig, lines, "crl.pem", CertFailure::RevocationList);
    write(&rig.file("crl.pem"), rig.authority.revocation_list(&[1]), 0o644);
    assert!(rig.load(lines).is_ok());
    write(&rig.file("ca.pem"), Authority::new("x").revocation_list(&[]), 0o644);
    refused(&rig, lines, "ca.pem", CertFailure::Authorities);
}
