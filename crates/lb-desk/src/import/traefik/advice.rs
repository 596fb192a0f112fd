//! What operators are told of keys that have no counterpart.

use super::super::ledger::Ledger;
use super::yaml::Node;

/// What becomes of keys below a path, where nothing else has settled it.
const ADVICE: &[(&str, bool, &str)] = &[
    ("api", false, "the admin port shows what goes on (observability.metrics_bind)"),
    ("ping", false, "the admin port has /readyz and /livez"),
    ("metrics", false, "the admin port has /metrics"),
    ("log", false, "the log goes to standard error; RUST_LOG filters it"),
    ("accesslog", true, "write observability.access_log"),
    ("tracing", true, "write [tracing], where there is one"),
    (
        "certificatesresolvers",
        true,
        "certificates are not requested; have a program write them, and name them in [listeners.tls]",
    ),
    ("providers.file.watch", false, "a changed file is put in force by SIGHUP"),
    ("providers.file", false, "the files that it names are read with this one"),
    (
        "providers",
        true,
        "backends come from the file, from lists and SRV records ([pools.NAME.discovery]), and by the admin port",
    ),
    ("global", false, "nothing is reported to anybody"),
    ("experimental", true, "there are no plugins"),
    ("serverstransport", true, "write tls_ca_path, tls_verify_peer and runtime.connect_timeout_ms"),
    (
        "http.serverstransports",
        true,
        "write tls_ca_path, tls_verify_hostname and tls_client_cert_path at the backends",
    ),
    (
        "http.middlewares",
        true,
        "it has no counterpart, or no router that is carried names it: filters stand in routes and in [policies.NAME]",
    ),
    (
        "http.services",
        true,
        "no router that is carried leads to it, or the key has no counterpart: see [pools.NAME]",
    ),
    ("http.routers", true, "routes have conditions, one target, and filters"),
    ("tcp", true, "write a tcp or tls listener with a pool"),
    ("udp", true, "write a udp listener with a pool"),
    (
        "tls.options",
        true,
        "TLS has safe versions and ciphers by itself; client certificates are asked for by `client_auth`",
    ),
    ("tls", true, "write [listeners.tls] with its certificates"),
    ("entrypoints", true, "write the keys of the listener and of [listeners.http]"),
];

/// Settles what nothing has settled below a node.
pub(super) fn settle(node: &Node, path: &str, ledger: &mut Ledger) {
    if let Node::Leaf(_, id) = node
        && !ledger.is_settled(*id)
    {
        let path = path.to_ascii_lowercase();
        let is_below = |start: &str| {
            path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if let Some((_, is_lost, what)) = ADVICE.iter().find(|(start, ..)| is_below(start)) {
            if *is_lost { ledger.lost(*id, *what) } else { ledger.needless(*id, what) }
        }
    }
    node.items().iter().for_each(|item| settle(item, path, ledger));
    for (key, inner) in node.entries() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        settle(inner, &path, ledger);
    }
}
