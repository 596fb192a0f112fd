use super::*;

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family][..], &length, rest].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 9, 0xc3, 0x50, 1, 0xbb];

fn told(bytes: &[u8]) -> Option<(String, String)> {
    match read(bytes) {
        Ok(Reading::Header(header, _)) => {
            header.addresses.map(|(from, to)| (from.to_string(), to.to_string()))
        }
        other => panic!("{other:?}"),
    }
}

fn pair(from: &str, to: &str) -> Option<(String, String)> {
    Some((from.to_owned(), to.to_owned()))
}

/// However few bytes have come, no beginning of a header is taken for anything else.
fn assert_grows(bytes: &[u8]) {
    for length in 0..bytes.len() {
        assert_eq!(read(&bytes[..length]), Ok(Reading::More), "{length} bytes of {bytes:?}");
    }
    let longer = [bytes, b"GET / HTTP/1.1\r\n"].concat();
    assert!(matches!(read(&longer), Ok(Reading::Header(_, length)) if length == bytes.len()), "{bytes:?}");
}

#[test]
fn lines_of_version_1() {
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.9 50000 443\r\n";
    assert_eq!(told(line), pair("192.0.2.1:50000", "192.0.2.9:443"));
    assert_grows(line);
    let line = b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.9 0 65535\r\n";
    assert_eq!(told(line), pair("[2001:db8::1]:0", "192.0.2.9:65535"));
    assert_grows(line);
    for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ffff::1 whatever 1 2 3\r\n"] {
        assert_eq!(told(line), None);
        assert_grows(line);
    }
    for odd in [
        "TCP4 192.0.2.1 192.0.2.9 50000 443\n",
        "TCP4 192.0.2.1 192.0.2.9 50000\r\n",
        "TCP4 192.0.2.1 192.0.2.9 50000 443 1\r\n",
        "TCP4 192.0.2.1 192.0.2.9 50000 443 \r\n",
        "TCP4  192.0.2.1 192.0.2.9 50000 443\r\n",
        "TCP4 192.0.2.1 192.0.2.9 050000 443\r\n",
        "TCP4 192.0.2.1 192.0.2.9 65536 443\r\n",
        "TCP4 192.0.2.1 192.0.2.9 +1 443\r\n",
        "TCP4 192.0.2.01 192.0.2.9 1 443\r\n",
        "TCP4 2001:db8::1 192.0.2.9 1 443\r\n",
        "TCP6 192.0.2.1 192.0.2.9 1 443\r\n",
        "UDP4 192.0.2.1 192.0.2.9 1 443\r\n",
        "UNKNOWNS\r\n",
        "tcp4 192.0.2.1 192.0.2.9 1 443\r\n",
        "\r\n",
        "TCP4 192.0.2.1\t192.0.2.9 1 443\r\n",
        "TCP4 192.0.2.1\0 192.0.2.9 1 443\r\n",
    ] {
        assert_eq!(read(format!("PROXY {odd}").as_bytes()), Err(HeaderFault::Malformed), "{odd:?}");
    }
}

#[test]
fn r_17_a_line_ends_within_107_bytes() {
    let of = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
    assert!(matches!(read(of(107).as_bytes()), Ok(Reading::Header(_, 107))));
    assert_eq!(read(of(108).as_bytes()), Err(HeaderFault::TooLarge));
    assert_eq!(read(&of(400).as_bytes()[..106]), Ok(Reading::More));
    assert_eq!(read(&of(400).as_bytes()[..107]), Err(HeaderFault::TooLarge));
}

#[test]
fn what_is_no_header_is_told_at_its_first_other_byte() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n"[..], b"POST", b"PRI * HTTP/2.0", b"\r\n\r\n\r", b"\x16\x03\x01", b"proxy "]
    {
        let length = bytes.iter().zip(V1_START).take_while(|(a, b)| a == b).count();
        let length = length.max(bytes.iter().zip(V2_SIGNATURE).take_while(|(a, b)| a == b).count());
        assert_eq!(read(&bytes[..length]), Ok(Reading::More));
        assert_eq!(read(&bytes[..=length]), Ok(Reading::Absent));
    }
}

#[test]
fn headers_of_version_2() {
    let v4 = v2(0x21, 0x11, &V4);
    assert_eq!(told(&v4), pair("192.0.2.1:50000", "192.0.2.9:443"));
    assert_grows(&v4);
    let (from, to) =
        ("2001:db8::1".parse::<std::net::Ipv6Addr>(), "::ffff:192.0.2.9".parse::<std::net::Ipv6Addr>());
    let v6 = [&from.unwrap().octets()[..], &to.unwrap().octets(), &[0, 1, 0, 2]].concat();
    assert_eq!(told(&v2(0x21, 0x21, &v6)), pair("[2001:db8::1]:1", "192.0.2.9:2"));
    assert_grows(&v2(0x21, 0x21, &v6));
    // A peer that speaks for itself, or of a client without an address.
    for none in [
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, b"short"),
        v2(0x20, 0xff, &[0xff; 40]),
        v2(0x21, 0x00, &[0xff; 40]),
        v2(0x21, 0x31, &[0; 216]),
    ] {
        assert_eq!(told(&none), None);
        assert_grows(&none);
    }
    for odd in [
        v2(0x11, 0x11, &V4),
        v2(0x22, 0x11, &V4),
        v2(0x21, 0x11, &V4[..11]),
        v2(0x21, 0x21, &v6[..35]),
        v2(0x21, 0x31, &[0; 215]),
        v2(0x21, 0x12, &V4),
        v2(0x21, 0x22, &v6),
        v2(0x21, 0x41, &V4),
        v2(0x21, 0x13, &V4),
    ] {
        assert_eq!(read(&odd), Err(HeaderFault::Malformed), "{odd:?}");
    }
}

#[test]
fn r_17_a_header_has_at_most_4096_bytes() {
    let of = |length: usize| v2(0x20, 0, &vec![0; length - 16]);
    assert!(matches!(read(&of(4096)), Ok(Reading::Header(_, 4096))));
    // Known from its first 16 bytes: nothing of it is waited for.
    assert_eq!(read(&of(4097)[..16]), Err(HeaderFault::TooLarge));
}

#[test]
fn tlvs_are_read_and_no_further_than_the_header() {
    let ssl =
        [&[7, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, b"client"), &tlv(0x23, b"x")].concat();
    let tlvs = [
        tlv(1, b"h2"),
        tlv(2, b"a.example"),
        tlv(4, &[0; 9]),
        tlv(5, b"id"),
        tlv(0x20, &ssl),
        tlv(0xea, b"vpce"),
    ];
    let bytes = v2(0x21, 0x11, &[&V4[..], &tlvs.concat()].concat());
    let Ok(Reading::Header(header, _)) = read(&bytes) else { panic!() };
    let facts = SslFacts { client: 7, verify: 0, version: Some(b"TLSv1.3"), common_name: Some(b"client") };
    let expected =
        Tlvs { alpn: Some(b"h2"), authority: Some(b"a.example"), unique_id: Some(b"id"), ssl: Some(facts) };
    assert_eq!(header.tlvs, expected);
    assert_grows(&bytes);
    for odd in [
        &[1][..],
        &[1, 0],
        &[1, 0, 1],
        &[1, 0xff, 0xff, 0],
        &tlv(5, &[0; 129]),
        &tlv(0x20, &[1, 0, 0, 0]),
        &tlv(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 2, 0]),
        &tlv(3, &[0; 3]),
    ] {
        let bytes = v2(0x21, 0x11, &[&V4[..], odd].concat());
        assert_eq!(read(&[&bytes[..], b"more"].concat()), Err(HeaderFault::Malformed), "{odd:?}");
    }
}

#[test]
fn checksums_are_compared() {
    assert_eq!(crc32c(&[b"1234", b"56789"]), 0xe306_9283);
    let with = |crc: [u8; 4]| v2(0x21, 0x11, &[&V4[..], &tlv(3, &crc), &tlv(2, b"a.example")].concat());
    let right = crc32c(&[&with([0; 4])]).to_be_bytes();
    assert_eq!(told(&with(right)), pair("192.0.2.1:50000", "192.0.2.9:443"));
    let mut wrong = with(right);
    wrong[16] ^= 1;
    assert_eq!(read(&wrong), Err(HeaderFault::Checksum));
}

#[test]
fn what_is_sent_is_what_is_read() {
    let tls = ProxyTls { version: "TLSv1.3", certificate: Some("client") };
    let facts = |from: &str, to: Option<&str>| ProxyClient {
        from: from.parse::<SocketAddr>().unwrap().into(),
        to: to.map(|to| to.parse().unwrap()),
        authority: Some(b"a.example"),
        alpn: Some(b"h2"),
        tls: Some(tls),
        unique_id: b"id",
    };
    let bare = ProxySends {
        version: HeaderVersion::V1,
        authority: false,
        alpn: false,
        ssl: false,
        unique_id: false,
    };
    let full =
        ProxySends { version: HeaderVersion::V2, authority: true, alpn: true, ssl: true, unique_id: true };
    for (from, to, expected) in [
        ("192.0.2.1:50000", Some("192.0.2.9:443"), ("192.0.2.1:50000", "192.0.2.9:443")),
        ("[2001:db8::1]:1", Some("[2001:db8::2]:2"), ("[2001:db8::1]:1", "[2001:db8::2]:2")),
        ("[::ffff:192.0.2.1]:1", Some("192.0.2.9:2"), ("192.0.2.1:1", "192.0.2.9:2")),
        // Of two families: both as IPv6, which reads as IPv4 again.
        ("192.0.2.1:1", Some("[2001:db8::2]:2"), ("192.0.2.1:1", "[2001:db8::2]:2")),
        ("[2001:db8::1]:0", Some("192.0.2.9:2"), ("[2001:db8::1]:0", "192.0.2.9:2")),
        ("192.0.2.1:1", None, ("192.0.2.1:1", "0.0.0.0:0")),
        ("[2001:db8::1]:1", None, ("[2001:db8::1]:1", "[::]:0")),
    ] {
        for sends in [bare, full] {
            let header = sends.header(&facts(from, to));
            assert_eq!(told(&header), pair(expected.0, expected.1), "{sends:?}");
            assert_grows(&header);
        }
    }
    let header = full.header(&facts("192.0.2.1:1", None));
    let Ok(Reading::Header(header, _)) = read(&header) else { panic!() };
    let ssl = SslFacts { client: 3, verify: 0, version: Some(b"TLSv1.3"), common_name: Some(b"client") };
    let expected =
        Tlvs { alpn: Some(b"h2"), authority: Some(b"a.example"), unique_id: Some(b"id"), ssl: Some(ssl) };
    assert_eq!(header.tlvs, expected);
    let plain = ProxyClient { tls: None, alpn: None, authority: None, ..facts("192.0.2.1:1", None) };
    let header = full.header(&plain);
    let Ok(Reading::Header(header, _)) = read(&header) else { panic!() };
    let ssl = SslFacts { client: 0, verify: 1, version: None, common_name: None };
    assert_eq!(header.tlvs, Tlvs { unique_id: Some(b"id"), ssl: Some(ssl), ..Tlvs::default() });
    for sends in [bare, full] {
        assert_eq!(told(&sends.local()), None);
        let client = ProxyClient { from: ClientAddress::Unix, ..plain };
        assert_eq!(told(&sends.header(&client)), None);
    }
}
