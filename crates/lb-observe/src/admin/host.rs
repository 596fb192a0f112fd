//! Whether a request may come from a web page that rebinds its own name to this port.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::HOST;
use hyper::http::uri::Authority;

/// Whether every host that the request names is an IP address or `localhost`. A browser always names the host
/// of the page's address, which an attacker's page cannot make either of them.
pub(super) fn is_local<B>(request: &Request<B>) -> bool {
    let fields = request.headers().get_all(HOST).iter();
    request.uri().host().is_none_or(is_local_name)
        && fields.map(|field| field.as_bytes()).all(|host| {
            // Empty is how a client says that it has no name.
            host.is_empty()
                || Authority::try_from(host).is_ok_and(|authority| {
                    // A user before the host is none of a host's parts (RFC 9110 §7.2).
                    !authority.as_str().contains('@') && is_local_name(authority.host())
                })
        })
}

fn is_local_name(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    address.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(target: &str, hosts: &[&str]) -> bool {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        is_local(&request.body(()).unwrap())
    }

    #[test]
    fn c_08_only_addresses_and_localhost_are_local() {
        for host in
            ["127.0.0.1:9090", "10.1.2.3", "[::1]:9090", "[2001:db8::1]", "localhost", "LocalHost:9090", ""]
        {
            assert!(local("/metrics", &[host]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "a b",
            "[::1",
            "a@127.0.0.1",
        ] {
            assert!(!local("/metrics", &[host]), "{host}");
        }
        assert!(local("/metrics", &[]));
        assert!(!local("/metrics", &["localhost", "evil.example"]));
        assert!(!local("http://evil.example/metrics", &["localhost"]));
        assert!(local("http://127.0.0.1:9090/metrics", &["127.0.0.1:9090"]));
    }
}
