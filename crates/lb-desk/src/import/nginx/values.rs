//! Variables of nginx in values of fields, and targets of redirects.

use std::fmt::Write;

/// A value with nginx's variables as one with ours; `None` where there is no counterpart.
pub(super) fn template(value: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, after) = match after.strip_prefix('{') {
            Some(inner) => inner.split_once('}')?,
            None => {
                let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
                after.split_at_checked(after.find(|char| !is_name(char)).unwrap_or(after.len()))?
            }
        };
        let ours = match name {
            "host" | "http_host" => "host".to_owned(),
            "remote_addr" | "realip_remote_addr" => "client_ip".to_owned(),
            "scheme" => "scheme".to_owned(),
            "request_method" => "method".to_owned(),
            "uri" | "document_uri" => "path".to_owned(),
            "args" | "query_string" => "query".to_owned(),
            "request_id" => "request_id".to_owned(),
            "ssl_server_name" => "server_name".to_owned(),
            "ssl_protocol" => "tls_version".to_owned(),
            _ => match (name.strip_prefix("http_"), name.strip_prefix("cookie_")) {
                (Some(field), _) => format!("header.{}", field.replace('_', "-")),
                (_, Some(cookie)) => format!("cookie.{cookie}"),
                _ if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) => {
                    format!("capture.{name}")
                }
                _ => return None,
            },
        };
        let _ = write!(out, "${{{ours}}}");
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// Where a redirect leads: keys and values of our `redirect`, without its status.
pub(super) fn redirect(target: &str) -> Option<Vec<(&'static str, String)>> {
    let mut keys = Vec::new();
    let rest = if let Some((scheme, rest)) = target.split_once("://") {
        match scheme {
            "$scheme" => {}
            "http" | "https" => keys.push(("scheme", scheme.to_owned())),
            _ => return None,
        }
        let (authority, path) = rest.split_at_checked(rest.find(['/', '$']).unwrap_or(rest.len()))?;
        let (authority, path) = match authority {
            // The authority is a variable.
            "" => {
                let end = rest.get(1..)?.find(['/', '$']).map_or(rest.len(), |at| at.saturating_add(1));
                rest.split_at_checked(end)?
            }
            _ => (authority, path),
        };
        match authority {
            "$host" | "$http_host" | "$server_name" => {}
            _ if authority.contains('$') => return None,
            _ => match authority.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => {
                    keys.push(("host", host.to_owned()));
                    keys.push(("port", port.parse::<u16>().ok()?.to_string()));
                }
                _ => keys.push(("host", authority.to_owned())),
            },
        }
        path
    } else {
        target
    };
    match rest {
        "$request_uri" | "/$1" | "$uri$is_args$args" | "$uri" => {}
        "" => keys.push(("path", "/".to_owned())),
        path if path.starts_with('/') && !path.contains(['$', '?', '#']) => {
            keys.push(("path", path.to_owned()));
            keys.push(("keep_query", "false".to_owned()));
        }
        _ => return None,
    }
    (!keys.is_empty()).then_some(keys)
}
