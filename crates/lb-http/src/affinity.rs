//! What of a request its backend is chosen by, under the policies that follow a key.

use lb_config::HashKey;
use lb_core::address::ClientAddress;
use lb_core::balance::hash;
use lb_core::head::{FieldName, RequestHead};

/// The key of a request over a connection from `client` which may have an ID; `None` when it does not have what the key is made of, and
/// a member is taken by chance.
pub(crate) fn key(
    of: &HashKey,
    request: &RequestHead,
    client: ClientAddress,
    connection_id: Option<&[u8]>,
) -> Option<u64> {
    let found = match of {
        HashKey::SourceAddress => return Some(hash::client(client)),
        HashKey::Header(name) => header(request, name)?,
        HashKey::Cookie(name) => cookie(request, name.as_bytes())?,
        HashKey::Path => path_and_query(request).0,
        HashKey::Query(name) => parameter(path_and_query(request).1?, name.as_bytes())?,
        HashKey::ConnectionId => return Some(hash::connection(connection_id, client)),
    };
    Some(hash::bytes(found))
}

/// The first line of that name. `name` is in lower case.
fn header<'a>(request: &'a RequestHead, name: &str) -> Option<&'a [u8]> {
    if name == "host" {
        return Some(request.authority());
    }
    let mut fields = request.fields.iter();
    fields.find(|field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
}

/// The value of a cookie (RFC 6265 §4.2.1). HTTP/2 may bring each in a line of its own.
pub(crate) fn cookie<'a>(request: &'a RequestHead, name: &[u8]) -> Option<&'a [u8]> {
    let pairs = request.fields.values(FieldName::Cookie).flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

fn path_and_query(request: &RequestHead) -> (&[u8], Option<&[u8]>) {
    let target = request.target();
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (target.get(..at).unwrap_or(target), target.get(at.saturating_add(1)..)),
        None => (target, None),
    }
}

/// The value of a parameter as it stands in the query, not decoded.
fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use lb_core::head::Span;

    use super::*;

    fn request(target: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        for (name, value) in fields {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        let start = head.fields.append_text(target.as_bytes());
        head.target = Span::new(start, start + target.len());
        head
    }

    #[test]
    fn each_key_is_found_where_it_stands_and_nowhere_else() {
        let fields = [("X-User", "ann"), ("Cookie", "a=1; sid=abc"), ("Cookie", "xsid=no")];
        let request = request("/a/b?sid=q&user=joe", &fields);
        let client = ([192, 0, 2, 7], 4711).into();
        let key = |of: HashKey| key(&of, &request, client, None);
        assert_eq!(key(HashKey::Header("x-user".into())), Some(hash::bytes(b"ann")));
        assert_eq!(key(HashKey::Cookie("sid".into())), Some(hash::bytes(b"abc")));
        assert_eq!(key(HashKey::Query("user".into())), Some(hash::bytes(b"joe")));
        assert_eq!(key(HashKey::Path), Some(hash::bytes(b"/a/b")));
        assert_eq!(key(HashKey::SourceAddress), Some(hash::client(client)));
        assert_eq!(key(HashKey::ConnectionId), Some(hash::client(client)), "it has none");
        assert_eq!(key(HashKey::Header("x-other".into())), None);
        assert_eq!(key(HashKey::Cookie("id".into())), None);
        assert_eq!(key(HashKey::Query("use".into())), None);
        let over_quic = super::key(&HashKey::ConnectionId, &request, client, Some(b"\x01\x02\x03"));
        assert_eq!(over_quic, Some(hash::bytes(b"\x01\x02\x03")));
    }
}
