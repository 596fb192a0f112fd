"""What each proxy's file holds for each scenario of routes.py: one table, so that all are configured to do the same."""

import json

BACKEND, TLS_BACKEND, FRONT, SENDER = 19811, 19814, 19812, 19813
HOSTS, PATHS, REGEXES, KEYS = 1000, 1000, 32, 20_000
HERE = "test.example.com"

NGINX = """daemon off; worker_processes 1; pid {work}/{name}.pid; error_log {work}/{name}.log crit;
{modules}
events {{ worker_connections 4096; }}
{streams}
http {{
    access_log off; keepalive_requests 100000000; server_names_hash_max_size 16384; server_names_hash_bucket_size 128;
    upstream web {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 100000000; }}
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    {servers}
}}
"""
HAPROXY = """global
    nbthread 1
    maxconn 4096
defaults
    mode {mode}
    timeout client 60s
    timeout server 60s
    timeout connect 5s
{more}
"""
HAPROXY_FRONT = """    http-reuse always
frontend front
    bind 127.0.0.1:{front}
    {rules}
backend web
    server one 127.0.0.1:{backend}
"""
GATEWAY = """[runtime]
workers = 1
readiness_settle_ms = 0
drain_timeout_ms = 1000
[[pools.web.backends]]
address = "127.0.0.1:{backend}"
{more}
[[listeners]]
address = "127.0.0.1:{front}"
protocol = "{protocol}"
{listener}
"""


def servers(*blocks):
    """Server blocks of nginx with these names and locations."""
    return "\n".join(f"server {{ listen 127.0.0.1:{FRONT}; server_name {name}; {inside} }}" for name, inside in blocks)


def gateway(listener, more="", protocol="h1", backend=BACKEND):
    return GATEWAY.format(backend=backend, front=FRONT, listener=listener, more=more, protocol=protocol)


def routed(*lines):
    """A file of the gateway with these routes."""
    return gateway("\n".join(f"[[listeners.routes]]\n{line}" for line in lines))


def haproxy(rules):
    return HAPROXY.format(mode="http", more=HAPROXY_FRONT.format(front=FRONT, backend=BACKEND, rules=rules))


def envoy(hosts):
    """A file of Envoy with these virtual hosts, given as names and routes."""
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    virtual = [{"name": f"v{at}", "domains": names, "routes": routes} for at, (names, routes) in enumerate(hosts)]
    at = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": at(BACKEND)}}]}
    return json.dumps({"static_resources": {
        "listeners": [{"name": "front", "address": at(FRONT), "filter_chains": [{"filters": [{
            "name": "http", "typed_config": {
                "@type": manager, "stat_prefix": "front", "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
                "route_config": {"name": "all", "virtual_hosts": virtual}}}]}]}],
        "clusters": [{"name": "web", "type": "STATIC", "connect_timeout": "5s",
                      "load_assignment": {"cluster_name": "web", "endpoints": [endpoint]}}]}})


def to_web(match, **more):
    """A route of Envoy."""
    return {"match": match, "route": {"cluster": "web", **more.pop("route", {})}, **more}


def header_lines(names):
    return [{"header": {"key": f"X-{name}", "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for name, value in names]


def host(number):
    return f"h{number}.example.com"


def scenarios():
    """Of each name: requests as (host, path), and the files of the proxies that take part."""
    forward = "location / { proxy_pass http://web; }"
    everything = [(["*"], [to_web({"prefix": "/"})])]
    regex = [f"/r{number}/[a-z]+/[0-9]+" for number in range(REGEXES)]
    cells = [(at, path) for at in range(HOSTS) for path in range(10)]
    beta = 'headers = ["x-kind=beta"]\n'
    kind = [{"name": "x-kind", "string_match": {"exact": "beta"}}]
    guard = "if ($http_x_kind != beta) { return 404; } "
    edits = [("A", "1"), ("B", "2"), ("C", "3")]
    keyed = [(HERE, "/")]
    sides = ("request", "response")
    return {
        "h1": {
            "requests": [(HERE, "/")], "nginx": servers(("_", forward)), "haproxy": haproxy("default_backend web"),
            "gateway": gateway('pool = "web"'), "envoy": envoy(everything),
        },
        "r1k_host": {
            "requests": [(host(at), "/") for at in range(HOSTS)],
            "nginx": servers(*[(host(at), forward) for at in range(HOSTS)]),
            "haproxy": haproxy("use_backend %[req.hdr(host),lower,map(MAP)]"),
            "map": "".join(f"{host(at)} web\n" for at in range(HOSTS)),
            "gateway": routed(*[f'hosts = ["{host(at)}"]\npool = "web"' for at in range(HOSTS)]),
            "envoy": envoy([([host(at)], [to_web({"prefix": "/"})]) for at in range(HOSTS)]),
        },
        "r1k_path": {
            "requests": [(HERE, f"/p{at}/x") for at in range(PATHS)],
            "nginx": servers(("_", " ".join(f"location /p{at}/ {{ proxy_pass http://web; }}" for at in range(PATHS)))),
            "haproxy": haproxy("use_backend %[path,map_beg(MAP)]"),
            "map": "".join(f"/p{at}/ web\n" for at in range(PATHS)),
            "gateway": routed(*[f'path_prefix = "/p{at}"\npool = "web"' for at in range(PATHS)]),
            "envoy": envoy([(["*"], [to_web({"path_separated_prefix": f"/p{at}"}) for at in range(PATHS)])]),
        },
        "r10k": {
            "requests": [(host(at), f"/p{path}/x") for at, path in cells[:: len(cells) // 2000]],
            "nginx": servers(*[
                (host(at), " ".join(
                    f"location /p{path}/ {{ {guard if path == 0 else ''}proxy_pass http://web; }}" for path in range(10)))
                for at in range(HOSTS)]),
            "gateway": routed(*[
                f'hosts = ["{host(at)}"]\npath_prefix = "/p{path}"\n{beta if path == 0 else ""}pool = "web"' for at, path in cells]),
            "envoy": envoy([([host(at)], [
                to_web({"path_separated_prefix": f"/p{path}", **({"headers": kind} if path == 0 else {})}) for path in range(10)])
                for at in range(HOSTS)]),
        },
        "r_re": {
            "requests": [(HERE, f"/r{REGEXES - 1}/abc/{at}") for at in range(100)],
            "nginx": servers(("_", " ".join(f"location ~ ^{one}$ {{ proxy_pass http://web; }}" for one in regex))),
            "haproxy": haproxy("\n    ".join(f"use_backend web if {{ path_reg ^{one}$ }}" for one in regex)),
            "gateway": routed(*[f'path_regex = "{one}"\npool = "web"' for one in regex]),
            "envoy": envoy([(["*"], [to_web({"safe_regex": {"regex": one}}) for one in regex])]),
        },
        "r_edit": {
            "requests": [(HERE, f"/old/x{at}") for at in range(100)],
            "nginx": servers(("_", "location /old/ { proxy_pass http://web/; "
                              + " ".join(f"proxy_set_header X-{name} {value}; add_header X-{name} {value};" for name, value in edits)
                              + ' proxy_set_header X-Gone ""; proxy_set_header Connection ""; proxy_hide_header ETag; }')),
            "haproxy": haproxy("http-request replace-path /old(/.*) \\1\n    "
                               + "\n    ".join(f"http-{way} set-header X-{name} {value}" for way in sides for name, value in edits)
                               + "\n    http-request del-header X-Gone\n    http-response del-header ETag\n    default_backend web"),
            "gateway": routed('path_prefix = "/old"\npool = "web"\nrewrite = { prefix = "/" }\n' + "\n".join(
                f'{way}_headers = {{ remove = ["{gone}"], set = [{", ".join(f"{chr(34)}X-{name}: {value}{chr(34)}" for name, value in edits)}] }}'
                for way, gone in zip(sides, ("X-Gone", "ETag")))),
            "envoy": envoy([(["*"], [to_web(
                {"prefix": "/old/"}, route={"prefix_rewrite": "/"}, request_headers_to_add=header_lines(edits),
                request_headers_to_remove=["X-Gone"], response_headers_to_add=header_lines(edits),
                response_headers_to_remove=["ETag"])])]),
        },
        "r_redir": {
            "requests": [(HERE, f"/x{at}") for at in range(100)],
            "nginx": servers(("_", "return 308 https://$host$request_uri;")),
            "haproxy": haproxy("http-request redirect scheme https code 308"),
            "gateway": routed('redirect = { scheme = "https", status = 308 }'),
            "envoy": envoy([(["*"], [{"match": {"prefix": "/"},
                                      "redirect": {"https_redirect": True, "response_code": "PERMANENT_REDIRECT"}}])]),
        },
        "rl": {
            "requests": keyed, "keys": KEYS,
            "nginx": f"limit_req_zone $http_x_key zone=keys:16m rate=10000r/s;\n"
                     + servers(("_", "limit_req zone=keys burst=10000 nodelay; location / { proxy_pass http://web; }")),
            "haproxy": haproxy(
                f"stick-table type string len 32 size {4 * KEYS} expire 60s store http_req_rate(1s)\n"
                "    http-request track-sc0 req.hdr(x-key)\n    http-request deny deny_status 429 if { sc_http_req_rate(0) gt 10000 }\n"
                "    default_backend web"),
            "gateway": gateway('pool = "web"\npolicies = ["keys"]',
                               '[policies.keys.rate_limit]\nkey = "header:x-key"\nrequests = 10000\nburst = 10000\nfields = false\n'),
        },
        "snip": {
            "tls": True,
            "nginx": "", "streams": f"stream {{ map $ssl_preread_server_name $to {{ localhost 127.0.0.1:{TLS_BACKEND}; }} "
                                    f"server {{ listen 127.0.0.1:{FRONT}; ssl_preread on; proxy_pass $to; }} }}",
            "haproxy": HAPROXY.format(mode="tcp", more=f"frontend front\n    bind 127.0.0.1:{FRONT}\n"
                                      "    tcp-request inspect-delay 5s\n    tcp-request content accept if { req.ssl_hello_type 1 }\n"
                                      f"    use_backend web if {{ req.ssl_sni localhost }}\nbackend web\n    server one 127.0.0.1:{TLS_BACKEND}\n"),
            "gateway": gateway('[[listeners.routes]]\nserver_names = ["localhost"]\npool = "web"', protocol="tcp", backend=TLS_BACKEND),
        },
    }
