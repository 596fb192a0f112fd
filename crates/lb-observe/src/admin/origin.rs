//! Whether a request may come from a web page that is not the gateway's own.
//!
//! A browser says of each request from which site it comes (Fetch Metadata, `Sec-Fetch-Site`), and of those that change something from which
//! origin (RFC 6454). Both are fields that no script can set. Programs other than browsers send neither, and are let in (attack row D-02).

use hyper::header::{HOST, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Method, Request};

/// Whether a browser says that another site's page is behind the request. A link to here is followed: its page gets nothing of what is answered.
pub(super) fn is_foreign<B>(request: &Request<B>) -> bool {
    let fields = request.headers();
    let said = |name: &str| fields.get(name).map(HeaderValue::as_bytes);
    let is_link = request.method() == Method::GET
        && said("sec-fetch-mode") == Some(b"navigate")
        && said("sec-fetch-dest") == Some(b"document");
    let is_elsewhere = said("sec-fetch-site").is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    (is_elsewhere && !is_link) || has_foreign_origin(fields)
}

/// Whether the origin is another than the host that was asked.
fn has_foreign_origin(fields: &HeaderMap) -> bool {
    let host = fields.get(HOST).map(HeaderValue::as_bytes);
    fields.get_all(ORIGIN).iter().any(|origin| {
        let origin = origin.as_bytes();
        let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        authority.is_none()
            || !authority.zip(host).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(method: &str, fields: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri("/status").header(HOST, "127.0.0.1:9090");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        is_foreign(&request.body(()).unwrap())
    }

    #[test]
    fn d_02_pages_of_other_sites_are_told_apart() {
        let site = |site| ("sec-fetch-site", site);
        assert!(!foreign("GET", &[]), "programs that are no browsers say nothing");
        assert!(!foreign("GET", &[site("none")]));
        assert!(!foreign("POST", &[site("same-origin"), ("origin", "http://127.0.0.1:9090")]));
        assert!(!foreign("POST", &[("origin", "https://127.0.0.1:9090")]));
        for origin in
            ["http://evil.example", "null", "http://127.0.0.1:9091", "http://127.0.0.1:9090.evil", ""]
        {
            assert!(foreign("POST", &[("origin", origin)]), "{origin}");
        }
        for site_of_page in ["cross-site", "same-site", "anything"] {
            assert!(foreign("GET", &[site(site_of_page)]), "{site_of_page}");
            let link = [site(site_of_page), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
            assert!(!foreign("GET", &link));
            assert!(foreign("POST", &link), "a form is no link");
            let frame = [site(site_of_page), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
            assert!(foreign("GET", &frame));
        }
    }
}
