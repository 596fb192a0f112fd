use std::net::SocketAddr;

use super::*;

fn networks(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| IpNetwork::parse(text).unwrap()).collect()
}

fn map(allow: &[&str], deny: &[&str]) -> AccessMap {
    AccessMap::new((!allow.is_empty()).then(|| networks(allow)), networks(deny))
}

fn client(ip: &str) -> ClientAddress {
    SocketAddr::new(ip.parse().unwrap(), 1).into()
}

#[test]
fn the_longest_prefix_decides_and_deny_on_ties() {
    let some = map(&["10.0.0.0/8", "10.1.2.3"], &["10.1.0.0/16", "10.2.0.0/16", "10.9.9.9"]);
    for (ip, expected) in [
        ("10.0.0.1", true),
        ("10.1.0.1", false),
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("10.2.3.4", false),
        ("10.9.9.9", false),
        ("11.0.0.1", false),
        ("2001:db8::1", false),
    ] {
        assert_eq!(some.lets_in(client(ip)), expected, "{ip}");
    }
    assert!(!some.lets_in(ClientAddress::Unix));
    let tie = map(&["10.0.0.0/8"], &["10.0.0.0/8"]);
    assert!(!tie.lets_in(client("10.0.0.1")));
    // Without anything that is let in, everything is that is not kept out.
    let others = map(&[], &["10.0.0.0/8"]);
    assert!(others.lets_in(client("11.0.0.1")) && !others.lets_in(client("10.0.0.1")));
    assert!(others.lets_in(ClientAddress::Unix));
}

#[test]
fn files_stand_beside_what_the_configuration_says() {
    let files = AccessFiles::new((networks(&["10.0.0.0/8"]), None), (Vec::new(), Some("/etc/deny".into())));
    let lists = [Arc::new(AccessList {
        policy: "office".into(),
        networks: AccessNetworks::Files(files),
        client_certificate: None,
        dry_run: false,
    })];
    let lets_in = |ip: &str| AccessVerdict::of(&lists, client(ip), false).lets_in();
    let files = lists[0].files().unwrap();
    assert!(!lets_in("10.0.0.1"), "its file has not been read");
    let live = LiveNetworks::new(files.map(Vec::new(), networks(&["10.1.0.0/16"])));
    files.bind(&live);
    assert!(lets_in("10.0.0.1") && !lets_in("10.1.0.1") && !lets_in("11.0.0.1"));
    live.replace(files.map(Vec::new(), networks(&["10.0.0.1"])));
    assert!(!lets_in("10.0.0.1") && lets_in("10.1.0.1"));

    // An empty list of who is let in lets nobody in; an empty one of who is not keeps nobody out.
    let only = AccessFiles::new((Vec::new(), Some("a".into())), (Vec::new(), Some("b".into())));
    assert!(!only.map(Vec::new(), Vec::new()).lets_in(client("10.0.0.1")));
    let only = AccessFiles::new((Vec::new(), None), (Vec::new(), Some("b".into())));
    assert!(only.map(Vec::new(), Vec::new()).lets_in(client("10.0.0.1")));
}

#[test]
fn certificates_count_beside_addresses_and_dry_runs_refuse_nobody() {
    let list = |allow: &[&str], client_certificate, dry_run| {
        let list = AccessList::fixed("p", map(allow, &[]));
        Arc::new(AccessList { client_certificate, dry_run, ..list })
    };
    let ten = client("10.0.0.1");
    let of = |lists: &[Arc<AccessList>], shown| AccessVerdict::of(lists, ten, shown);
    assert_eq!(of(&[list(&[], Some(true), false)], false).refused, Some(Reason::ClientCertificate));
    assert!(of(&[list(&[], Some(true), false)], true).lets_in());
    assert_eq!(of(&[list(&[], Some(false), false)], true).refused, Some(Reason::ClientCertificate));
    assert!(of(&[list(&[], Some(false), false)], false).lets_in());
    // Who has not the right address is told of that, whatever else is wrong.
    assert_eq!(of(&[list(&["11.0.0.0/8"], Some(true), false)], false).refused, Some(Reason::Access));
    let dry = [list(&["11.0.0.0/8"], None, true), list(&[], Some(true), true), list(&[], Some(true), true)];
    assert_eq!(of(&dry, false), AccessVerdict { refused: None, dry_addresses: 1, dry_certificates: 2 });
    let [dry, ..] = dry;
    let both = of(&[dry, list(&["12.0.0.0/8"], None, false)], false);
    assert_eq!((both.refused, both.dry_addresses), (Some(Reason::Access), 1));
}

#[test]
fn a_file_has_a_network_on_each_line() {
    let text = "# office\n10.0.0.0/8\n\n  192.0.2.1 # the printer\r\n2001:db8::/32";
    assert_eq!(parse_access_file(text).unwrap(), networks(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]));
    assert_eq!(parse_access_file("# nobody").unwrap(), []);
    for empty in ["", " \n\n"] {
        assert_eq!(parse_access_file(empty), Err(AccessFileFault::Empty));
    }
    for (text, number, value) in [
        ("10.0.0.0/8\n10.0.0.0/33", 2, "10.0.0.0/33"),
        ("10.0.0.1/8", 1, "10.0.0.1/8"),
        ("#\nexample.org", 2, "example.org"),
        ("10.0.0.0/8, 11.0.0.0/8", 1, "10.0.0.0/8, 11.0.0.0/8"),
        ("\0", 1, "\0"),
    ] {
        let fault = parse_access_file(text).unwrap_err();
        assert_eq!(fault, AccessFileFault::Line { number, value: value.to_owned() }, "{text:?}");
    }
    let fault = parse_access_file(&format!("\n{}", "1".repeat(500))).unwrap_err().to_string();
    assert!(fault.starts_with("line 2: \"1111") && fault.len() < 200, "{fault}");
    let many = "10.0.0.1\n".repeat(1_000_000);
    assert_eq!(parse_access_file(&many).unwrap().len(), 1_000_000);
    assert_eq!(parse_access_file(&(many + "10.0.0.2\n")), Err(AccessFileFault::TooMany));
}
