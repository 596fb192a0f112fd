//! Addresses, as ours are written.

/// An address with a port: `port` where it has none.
pub(super) fn address(text: &str, port: u16) -> String {
    let text = ["ipv4@", "ipv6@", "tcp4@", "tcp6@", "udp4@"]
        .into_iter()
        .find_map(|kind| text.strip_prefix(kind))
        .unwrap_or(text);
    if text.starts_with('/') {
        return format!("unix:{text}");
    }
    if let Some(socket) = text.strip_prefix("unix@").or_else(|| text.strip_prefix("unix:")) {
        return format!("unix:{socket}");
    }
    let (host, own) = match text.rsplit_once(':') {
        Some((host, own))
            if own.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']') || host == "::") =>
        {
            (host, own.to_owned())
        }
        _ => (text, port.to_string()),
    };
    match host {
        "" | "*" => format!("0.0.0.0:{own}"),
        "::" => format!("[::]:{own}"),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{own}"),
        host => format!("{host}:{own}"),
    }
}
