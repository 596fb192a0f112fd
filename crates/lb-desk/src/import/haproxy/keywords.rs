//! What operators are told of lines that have no counterpart, and which words of servers take a value.

/// Whether a word of a server or of a bind takes one.
pub(super) fn takes_value(word: &str) -> bool {
    matches!(
        word,
        "weight"
            | "ca-file"
            | "sni"
            | "verifyhost"
            | "verify"
            | "crt"
            | "proto"
            | "inter"
            | "cookie"
            | "id"
            | "init-addr"
            | "resolvers"
            | "resolve-prefer"
            | "rise"
            | "fall"
            | "maxconn"
            | "port"
            | "slowstart"
            | "observe"
            | "on-error"
            | "on-marked-down"
            | "alpn"
            | "fastinter"
            | "downinter"
            | "addr"
            | "minconn"
            | "maxqueue"
            | "error-limit"
            | "source"
            | "track"
            | "check-sni"
            | "ciphers"
            | "ciphersuites"
            | "ssl-min-ver"
            | "ssl-max-ver"
            | "pool-max-conn"
            | "pool-purge-delay"
            | "redir"
            | "namespace"
            | "agent-port"
            | "agent-inter"
            | "agent-addr"
            | "curves"
            | "ecdhe"
            | "crt-list"
            | "crl-file"
            | "mode"
            | "user"
            | "group"
            | "uid"
            | "gid"
            | "interface"
            | "backlog"
            | "level"
            | "name"
            | "nice"
            | "process"
            | "thread"
            | "tcp-ut"
            | "mss"
            | "tls-ticket-keys"
            | "shards"
    )
}

/// Why nothing has to be done.
pub(super) fn needless(first: &str, second: &str) -> Option<&'static str> {
    Some(match (first, second) {
        (
            "daemon"
            | "chroot"
            | "user"
            | "group"
            | "pidfile"
            | "nbproc"
            | "cpu-map"
            | "stats"
            | "master-worker"
            | "node"
            | "description"
            | "uid"
            | "gid"
            | "ulimit-n"
            | "localpeer"
            | "set-dumpable"
            | "unix-bind"
            | "external-check"
            | "h1-case-adjust-file",
            _,
        ) => "the process is run by its unit; what goes on is told by the admin port",
        ("log" | "log-format" | "log-tag" | "unique-id-format" | "log-send-hostname", _)
        | (
            "option",
            "httplog"
            | "tcplog"
            | "dontlognull"
            | "dontlog-normal"
            | "logasap"
            | "log-separate-errors"
            | "log-health-checks",
        ) => "the log goes to standard error, and that of requests where observability.access_log says",
        ("option", "forwardfor") => "backends are told the client in X-Forwarded-For by themselves",
        (
            "option",
            "http-server-close"
            | "httpclose"
            | "http-keep-alive"
            | "forceclose"
            | "prefer-last-server"
            | "http-tunnel"
            | "http-pretend-keepalive",
        )
        | ("http-reuse", _) => "connections are kept on both sides by themselves",
        ("option", "redispatch" | "abortonclose" | "allbackups") => {
            "a connect that fails goes to another backend by itself"
        }
        (
            "option",
            "splice-auto"
            | "splice-request"
            | "splice-response"
            | "tcp-smart-accept"
            | "tcp-smart-connect"
            | "tcpka"
            | "clitcpka"
            | "srvtcpka"
            | "contstats"
            | "socket-stats"
            | "nolinger"
            | "http-use-htx"
            | "http-no-delay"
            | "http-ignore-probes"
            | "http-buffer-request"
            | "originalto"
            | "tcp-check"
            | "independent-streams",
        ) => "this is done by itself, or nothing depends on it",
        (
            "ssl-default-bind-ciphers"
            | "ssl-default-bind-options"
            | "ssl-default-bind-ciphersuites"
            | "ssl-default-server-ciphers"
            | "ssl-default-server-options"
            | "ssl-default-server-ciphersuites"
            | "ssl-dh-param-file"
            | "ssl-server-verify"
            | "ca-base"
            | "ssl-default-bind-curves",
            _,
        )
        | ("tune.ssl.default-dh-param", _) => "TLS has safe versions, ciphers and groups by itself",
        ("nbthread", "") => "there is a worker for each core",
        ("timeout", "check" | "tunnel" | "client-fin" | "server-fin" | "tarpit" | "http-request")
            if second == "client-fin" || second == "server-fin" =>
        {
            "connections that are half closed have the idle timeout"
        }
        (first, _) if first.starts_with("tune.") => "there is nothing to tune so",
        ("hash-type", _) => "hashing policies are consistent by themselves",
        ("fullconn" | "id" | "enabled" | "maxconnrate", _) => "nothing depends on it",
        _ => return None,
    })
}

/// What to do instead.
pub(super) fn instead(first: &str, second: &str) -> &'static str {
    match (first, second) {
        ("maxconn", _) => "write runtime.max_inflight_connections, which holds for each listener",
        ("stick-table" | "stick", _) | ("http-request", "track-sc0" | "track-sc1" | "sc-inc-gpc0") => {
            "write [pools.NAME.sticky] or a hashing policy; for rates [policies.NAME.rate_limit]"
        }
        ("errorfile" | "errorloc" | "errorloc302" | "errorloc303" | "http-error", _) => {
            "write [policies.NAME.errors] with `pages`"
        }
        ("compression", _) => "bodies are not compressed; let backends do it",
        ("acl", _) => "no line that is carried uses it",
        ("http-request", "auth") => "requests are not authenticated here; let the backend do it",
        ("http-request" | "reqrep" | "reqirep", "set-path" | "replace-path" | "set-uri" | "replace-uri") => {
            "write `rewrite` (path, prefix) in the route"
        }
        ("http-request" | "http-response", _) => {
            "write `request_headers`, `response_headers`, `redirect` or `respond` in a route"
        }
        ("tcp-request", _) => {
            "write [policies.NAME.access], or routes with `tls_passthrough` and `server_names`"
        }
        ("capture", _) => "write observability.access_log_fields",
        ("stats", _) => "the admin port has /backends and /metrics",
        ("timeout", _) => "write the times of [listeners.http], [listeners.tcp] or [pools.NAME.health]",
        ("use-server" | "http-send-name-header" | "dispatch", _) => "write routes to pools of their own",
        (
            "email-alert"
            | "lua-load"
            | "lua-load-per-thread"
            | "filter"
            | "server-state-file"
            | "load-server-state-from-file",
            _,
        ) => "there is no counterpart",
        ("retry-on", _) => "write [pools.NAME.retry] with `on`",
        ("source", _) => "the address that backends are connected from is the system's choice",
        _ => "the import does not know it; CONFIG.md says what there is",
    }
}
