use super::*;
use crate::rng::SplitMix64;
use crate::route::IpNetwork;

fn policy(source: AddressSource, trusted: &[&str]) -> TrustPolicy {
    let trusted = trusted.iter().map(|text| (IpNetwork::parse(text).unwrap(), ()));
    TrustPolicy {
        trusted: NetworkMap::new(trusted),
        source,
        appends: false,
        max_hops: 32,
        sends_forwarded: false,
    }
}

fn fields(lines: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in lines {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

fn peer(ip: &str) -> ClientAddress {
    ClientAddress::from((ip.parse::<IpAddr>().unwrap(), 4711))
}

const TRUSTED: &[&str] = &["10.0.0.0/8", "2001:db8::/32"];

/// The client's address by these lines of a field.
fn client(source: &AddressSource, values: &[&str]) -> String {
    let lines: Vec<_> = values.iter().map(|value| (source.field(), *value)).collect();
    let policy = policy(source.clone(), TRUSTED);
    policy.origin(&fields(&lines), peer("10.0.0.1"), Scheme::Http).client.to_string()
}

#[test]
fn c_09_a_list_is_read_from_its_end_past_trusted_proxies() {
    let of = |values: &[&str]| client(&AddressSource::XForwardedFor, values);
    for (values, expected) in [
        (&["192.0.2.1"][..], "192.0.2.1:0"),
        (&["203.0.113.9, 192.0.2.1"], "192.0.2.1:0"),
        (&["192.0.2.1, 10.0.0.7"], "192.0.2.1:0"),
        (&["192.0.2.1 ,\t10.0.0.7 , 2001:db8::7"], "192.0.2.1:0"),
        (&["203.0.113.9", "192.0.2.1,10.0.0.7", "10.0.0.8"], "192.0.2.1:0"),
        (&["192.0.2.1:4000, [2001:db8::7]:80"], "192.0.2.1:4000"),
        (&["10.0.0.9, 10.0.0.7"], "10.0.0.9:0"),
        (&["::ffff:192.0.2.1"], "192.0.2.1:0"),
        // What is no address ends the walk at the last good hop.
        (&["192.0.2.1, x, 10.0.0.7"], "10.0.0.7:0"),
        (&["192.0.2.1, , 10.0.0.7"], "10.0.0.7:0"),
        (&["192.0.2.1, unknown"], "10.0.0.1:4711"),
        (&["192.0.2.1,"], "10.0.0.1:4711"),
        (&["fe80::1%eth0"], "10.0.0.1:4711"),
        (&["192.0.2.1:99999"], "10.0.0.1:4711"),
        (&["0192.0.2.1"], "10.0.0.1:4711"),
        (&[], "10.0.0.1:4711"),
    ] {
        assert_eq!(of(values), expected, "{values:?}");
    }
    let from_another = policy(AddressSource::XForwardedFor, TRUSTED).origin(
        &fields(&[("X-Forwarded-For", "192.0.2.1")]),
        peer("192.0.2.99"),
        Scheme::Http,
    );
    assert_eq!(from_another, RequestOrigin::of_connection(peer("192.0.2.99"), Scheme::Http));
    let at_socket = policy(AddressSource::XForwardedFor, &["0.0.0.0/0", "::/0"]);
    assert!(!at_socket.trusts(ClientAddress::Unix));
}

#[test]
fn c_09_hops_and_bytes_are_bounded() {
    let of = |values: &[&str]| client(&AddressSource::XForwardedFor, values);
    let hops = "192.0.2.1".to_owned() + &", 10.0.0.7".repeat(31);
    assert_eq!(of(&[&hops]), "192.0.2.1:0");
    let hops = "192.0.2.1".to_owned() + &", 10.0.0.7".repeat(32);
    assert_eq!(of(&[&hops]), "10.0.0.7:0");
    let long = format!("192.0.2.1, {}10.0.0.7", " ".repeat(5000));
    assert_eq!(of(&[&long]), "192.0.2.1:0", "white space around elements does not count");
    let long = format!("192.0.2.1, {}, 10.0.0.7", "1".repeat(5000));
    assert_eq!(of(&[&long]), "10.0.0.7:0");
    let mut all = policy(AddressSource::XForwardedFor, TRUSTED);
    all.max_hops = usize::MAX;
    let hops = "192.0.2.1".to_owned() + &", 10.0.0.7".repeat(1000);
    let origin = all.origin(&fields(&[("x-forwarded-for", &hops)]), peer("10.0.0.1"), Scheme::Http);
    assert_eq!((origin.told.unwrap().hops.len(), origin.client.to_string().as_str()), (455, "10.0.0.7:0"));
}

#[test]
fn r_16_what_a_client_writes_cannot_hide_what_a_proxy_adds() {
    let of = |values: &[&str]| client(&AddressSource::Forwarded, values);
    for (values, expected) in [
        (&["for=192.0.2.1"][..], "192.0.2.1:0"),
        (&["For=\"192.0.2.1:80\";Proto=https;host=a"], "192.0.2.1:80"),
        (&["for=192.0.2.1, for=\"[2001:db8::7]\"; proto=http"], "192.0.2.1:0"),
        (&["for=192.0.2.1;host=\"a,b;c\", for=10.0.0.7"], "192.0.2.1:0"),
        // Quotes that a client leaves open.
        (&["for=\"192.0.2.9, for=192.0.2.1"], "192.0.2.1:0"),
        (&["for=\"192.0.2.9;a=\\\", for=192.0.2.1, for=10.0.0.7"], "192.0.2.1:0"),
        (&["\", for=192.0.2.1"], "192.0.2.1:0"),
        (&["for=\"", "for=192.0.2.1"], "192.0.2.1:0"),
        // What is no address ends the walk.
        (&["for=192.0.2.1, for=unknown, for=10.0.0.7"], "10.0.0.7:0"),
        (&["for=192.0.2.1, for=_hidden"], "10.0.0.1:4711"),
        (&["for=192.0.2.1;for=192.0.2.2"], "10.0.0.1:4711"),
        (&["for=192.0.2.1;proto"], "10.0.0.1:4711"),
        (&["for=\"192.0.2.1"], "10.0.0.1:4711"),
        (&["for=\"192.0\\.2.1\""], "10.0.0.1:4711"),
        (&["for = 192.0.2.1"], "10.0.0.1:4711"),
        (&["proto=https"], "10.0.0.1:4711"),
        (&[""], "10.0.0.1:4711"),
    ] {
        assert_eq!(of(values), expected, "{values:?}");
    }
    let policy = policy(AddressSource::Forwarded, TRUSTED);
    let lines = [
        ("Forwarded", "for=203.0.113.1;proto=http;host=evil.example"),
        (
            "Forwarded",
            "for=192.0.2.1;proto=https;host=\"shop.example:8443\", for=10.0.0.7;proto=http;host=inner",
        ),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "evil.example"),
    ];
    let origin = policy.origin(&fields(&lines), peer("10.0.0.1"), Scheme::Http);
    assert_eq!(origin.scheme, Scheme::Https);
    assert_eq!(origin.authority().as_deref(), Some(&b"shop.example:8443"[..]));
    let hops: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "10.0.0.7".parse().unwrap()];
    assert_eq!(origin.told.unwrap().hops, hops);
}

#[test]
fn scheme_and_host_are_those_that_the_client_used() {
    let policy = policy(AddressSource::XForwardedFor, TRUSTED);
    let of = |lines: &[(&str, &str)]| {
        let origin = policy.origin(&fields(lines), peer("10.0.0.1"), Scheme::Http);
        let authority = origin.authority().map(|authority| String::from_utf8(authority).unwrap());
        (origin.scheme, authority.unwrap_or_default())
    };
    let two_hops = ("X-Forwarded-For", "203.0.113.1, 192.0.2.1, 10.0.0.7");
    for (lines, scheme, authority) in [
        (&[("X-Forwarded-Proto", "https")][..], Scheme::Https, ""),
        (&[("X-Forwarded-Proto", "WSS"), ("X-Forwarded-Host", "a.example")], Scheme::Https, "a.example"),
        (&[("X-Forwarded-Proto", "ftp")], Scheme::Http, ""),
        // The element of the hop that the client has asked; a list that is shorter was begun by it.
        (&[two_hops, ("X-Forwarded-Proto", "http, https, http")], Scheme::Https, ""),
        (&[two_hops, ("X-Forwarded-Proto", "https")], Scheme::Https, ""),
        (&[("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https, http")], Scheme::Http, ""),
        (&[("X-Forwarded-Host", "a:80"), ("X-Forwarded-Port", "8080")], Scheme::Http, "a:80"),
        (&[("X-Forwarded-Host", "[::1]"), ("X-Forwarded-Port", "8080")], Scheme::Http, "[::1]:8080"),
        (&[("X-Forwarded-Host", "a"), ("X-Forwarded-Port", "80")], Scheme::Http, "a"),
        (&[("X-Forwarded-Host", "a"), ("X-Forwarded-Port", "+81")], Scheme::Http, "a"),
        (&[("X-Forwarded-Host", "a/b")], Scheme::Http, ""),
        (&[("X-Forwarded-Host", "a:b")], Scheme::Http, ""),
        (&[("X-Forwarded-Host", "a@b")], Scheme::Http, ""),
        (&[("X-Forwarded-Host", "[::1]x")], Scheme::Http, ""),
        (&[("X-Forwarded-Host", "")], Scheme::Http, ""),
    ] {
        assert_eq!(of(lines), (scheme, authority.to_owned()), "{lines:?}");
    }
}

#[test]
fn a_field_of_another_name_tells_the_client() {
    let source = AddressSource::parse("header:CF-Connecting-IP").unwrap();
    assert_eq!(client(&source, &["192.0.2.1"]), "192.0.2.1:0");
    assert_eq!(client(&source, &["203.0.113.1", "192.0.2.1"]), "192.0.2.1:0", "the last line is the proxy's");
    assert_eq!(AddressSource::parse("header:Forwarded"), Some(AddressSource::Forwarded));
    assert_eq!(AddressSource::parse("x_forwarded_for"), AddressSource::parse("header:X-Forwarded-For"));
    assert_eq!(AddressSource::parse("cf"), None);
}

/// Whatever stands before what a trusted proxy has added, the client is who that proxy says.
#[test]
fn c_09_nothing_that_a_client_sends_changes_who_it_is() {
    let mut rng = SplitMix64::new(11);
    let alphabet = b"for=,;\"\\ :[]_1.0unkow\t";
    for round in 0..20_000 {
        let forged: Vec<u8> = (0..rng.next_u64() % 24)
            .filter_map(|_| alphabet.get((rng.next_u64() % alphabet.len() as u64) as usize).copied())
            .collect();
        let forged = String::from_utf8(forged).unwrap();
        for (source, added) in [
            (AddressSource::XForwardedFor, "192.0.2.1"),
            (AddressSource::Forwarded, "for=192.0.2.1;proto=https"),
        ] {
            let values = match round % 2 {
                0 => vec![format!("{forged}, {added}")],
                _ => vec![forged.clone(), added.to_owned()],
            };
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            assert_eq!(client(&source, &values), "192.0.2.1:0", "{values:?}");
        }
    }
}

#[test]
fn names_are_read_as_backends_read_them() {
    assert!(
        is_x_forwarded(b"X_Forwarded-For")
            && is_x_forwarded(b"x-forwarded-")
            && !is_x_forwarded(b"x-forwarded")
    );
}
