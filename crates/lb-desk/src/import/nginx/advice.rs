//! What operators are told of directives that have no counterpart.

/// Why nothing has to be done.
pub(super) fn needless(name: &str) -> Option<&'static str> {
    Some(match name {
        "user" | "pid" | "daemon" | "master_process" | "lock_file" | "load_module" => {
            "the process is run by its unit, and has no modules"
        }
        "events"
        | "worker_connections"
        | "use"
        | "multi_accept"
        | "accept_mutex"
        | "worker_cpu_affinity"
        | "worker_priority"
        | "pcre_jit"
        | "thread_pool"
        | "aio"
        | "worker_rlimit_core" => {
            "workers and their event loops need no settings; caps stand under [runtime]"
        }
        "worker_rlimit_nofile" => "the limit of descriptors is that of the unit (LimitNOFILE)",
        "error_log" | "log_not_found" | "rewrite_log" => {
            "the log of the process goes to standard error; RUST_LOG filters it"
        }
        "sendfile"
        | "tcp_nopush"
        | "tcp_nodelay"
        | "sendfile_max_chunk"
        | "directio"
        | "output_buffers"
        | "postpone_output"
        | "reset_timedout_connection" => "large bodies are moved without copying by themselves",
        "proxy_http_version" => "backends are spoken to by HTTP/1.1 with connections that are kept",
        "proxy_buffering"
        | "proxy_buffers"
        | "proxy_buffer_size"
        | "proxy_busy_buffers_size"
        | "proxy_max_temp_file_size"
        | "proxy_temp_file_write_size"
        | "proxy_temp_path"
        | "client_body_buffer_size"
        | "client_body_temp_path"
        | "proxy_headers_hash_max_size"
        | "proxy_headers_hash_bucket_size"
        | "client_body_in_file_only" => "bodies are streamed with bounded memory",
        "types_hash_max_size"
        | "types_hash_bucket_size"
        | "server_names_hash_bucket_size"
        | "server_names_hash_max_size"
        | "variables_hash_max_size"
        | "variables_hash_bucket_size"
        | "map_hash_bucket_size"
        | "map_hash_max_size"
        | "connection_pool_size"
        | "request_pool_size" => "there are no tables to size",
        "server_tokens" => "responses do not name the gateway's version",
        "keepalive" | "keepalive_requests" | "zone" | "resolver" | "resolver_timeout" => {
            "idle connections are kept by themselves ([pool]), names are asked for again by their TTL ([dns])"
        }
        "ssl_session_cache"
        | "ssl_session_timeout"
        | "ssl_session_tickets"
        | "ssl_buffer_size"
        | "ssl_ciphers"
        | "ssl_prefer_server_ciphers"
        | "ssl_ecdh_curve"
        | "ssl_dhparam"
        | "ssl_conf_command" => "TLS has safe ciphers, groups and tickets by itself",
        "ssl_protocols" => "TLS 1.2 and 1.3 are spoken; [runtime.tls] tls13_only leaves 1.3 alone",
        "http2" | "http2_max_concurrent_streams" => "HTTP/2 is offered inside TLS by itself",
        "proxy_redirect"
        | "proxy_pass_header"
        | "proxy_pass_request_headers"
        | "proxy_pass_request_body"
        | "proxy_intercept_errors"
        | "absolute_redirect"
        | "port_in_redirect"
        | "server_name_in_redirect"
        | "chunked_transfer_encoding"
        | "underscores_in_headers"
        | "ignore_invalid_headers"
        | "merge_slashes"
        | "recursive_error_pages"
        | "proxy_socket_keepalive"
        | "proxy_ssl_server_name"
        | "proxy_ssl_session_reuse"
        | "default_type"
        | "types"
        | "charset"
        | "mime.types" => "what passes is passed on as it is, unless a key says otherwise",
        _ => return None,
    })
}

/// What to do instead.
pub(super) fn instead(name: &str) -> Option<&'static str> {
    Some(match name {
        "root"
        | "alias"
        | "index"
        | "try_files"
        | "autoindex"
        | "internal"
        | "open_file_cache"
        | "open_file_cache_valid"
        | "open_file_cache_min_uses"
        | "open_file_cache_errors" => {
            "files are not served; leave them to a web server that is a backend here"
        }
        "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "memcached_pass" => {
            "only HTTP and raw bytes are spoken to backends; put a server that speaks HTTP in front of the application"
        }
        "gzip" | "gunzip" | "brotli" | "gzip_static" => "bodies are not compressed; let backends do it",
        "limit_req" | "limit_req_zone" | "limit_req_status" | "limit_req_log_level" => {
            "write [policies.NAME.rate_limit] and name it in `policies` of the route"
        }
        "limit_conn" | "limit_conn_zone" | "limit_conn_status" => {
            "write [policies.NAME.concurrency], or runtime.per_ip_connection_cap"
        }
        "auth_basic" | "auth_basic_user_file" | "auth_request" | "auth_jwt" => {
            "requests are not authenticated here; let the backend do it"
        }
        "error_page" => "write [policies.NAME.errors] with `pages`",
        "proxy_next_upstream" | "proxy_next_upstream_tries" | "proxy_next_upstream_timeout" => {
            "write [pools.NAME.retry] with `on` and `attempts`"
        }
        "set_real_ip_from" | "real_ip_header" | "real_ip_recursive" => {
            "write [listeners.client_address] with `trusted_proxies`, or [listeners.proxy_protocol]"
        }
        "if" => "conditions stand in routes: `methods`, `headers`, `query`, `cookies`, `sources`",
        "map" | "geo" | "split_clients" | "set" => {
            "there are no variables of one's own; routes have conditions, and `split` divides requests"
        }
        "rewrite" => "write `rewrite` (path, prefix) or `redirect` in a route with `path_regex`",
        "proxy_cache"
        | "proxy_cache_path"
        | "proxy_cache_valid"
        | "proxy_cache_key"
        | "proxy_cache_bypass"
        | "proxy_no_cache"
        | "proxy_cache_use_stale"
        | "proxy_cache_lock"
        | "proxy_store"
        | "expires"
        | "etag" => {
            "responses are not cached, and Cache-Control is the backend's or one of `response_headers`"
        }
        "log_format" => "write observability.access_log_format",
        "mirror" => "write `mirror` in the route",
        "sub_filter" | "sub_filter_once" | "addition_types" | "add_after_body" | "ssi" => {
            "bodies are not changed"
        }
        "ssl_stapling" | "ssl_stapling_verify" | "ssl_trusted_certificate" => {
            "OCSP responses are not stapled"
        }
        "ssl_client_certificate" | "ssl_verify_client" | "ssl_crl" | "ssl_verify_depth" => {
            "write `client_auth` and `client_ca_path` in [listeners.tls]"
        }
        "stub_status" => "the admin port has /metrics",
        "grpc_pass" => "write a route to a pool whose backends have protocol = \"h2\", and [listeners.grpc]",
        "server" => "a server without anything that is carried leaves nothing",
        "proxy_bind"
        | "proxy_ssl_certificate"
        | "proxy_ssl_certificate_key"
        | "proxy_ssl_verify"
        | "proxy_ssl_trusted_certificate"
        | "proxy_ssl_name" => {
            "write tls_ca_path, tls_verify_hostname and tls_client_cert_path at the backends"
        }
        _ => return None,
    })
}
