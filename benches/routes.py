#!/usr/bin/env python3
"""Routes through the gateway, nginx and HAProxy: CPU microseconds of the proxy for each request, and the ratios.

usage: benches/routes.py [SCENARIO,...] [CONNECTIONS [SECONDS [ROUNDS]]]

The proxy has CPU 0, with one worker; load generator (wrk) and backend (nginx) share CPU 1. The peers take turns in each round, and medians count.
Requests go over all hosts or paths of a scenario by a fixed list. GATEWAY=path takes another binary of the gateway.
"""

import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
GATEWAY = os.environ.get("GATEWAY", os.path.join(TARGET, "release", "expressgateway"))
BACKEND, FRONT = 19811, 19812
HOSTS, PATHS, REGEXES = 1000, 1000, 32

NGINX = """daemon off; worker_processes 1; pid {work}/{name}.pid; error_log {work}/{name}.log crit;
events {{ worker_connections 4096; }}
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
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
    http-reuse always
frontend front
    bind 127.0.0.1:{front}
    {rules}
backend web
    {edits}
    server one 127.0.0.1:{backend}
"""
GATEWAY_FILE = """[runtime]
workers = 1
readiness_settle_ms = 0
drain_timeout_ms = 1000
[[pools.web.backends]]
address = "127.0.0.1:{backend}"
[[listeners]]
address = "127.0.0.1:{front}"
protocol = "h1"
{listener}
"""


def servers(*blocks):
    """Server blocks of nginx with these names and locations."""
    return "\n".join(f"server {{ listen 127.0.0.1:{FRONT}; server_name {name}; {inside} }}" for name, inside in blocks)


def routes(*lines):
    """Routes of the gateway."""
    return "\n".join(f"[[listeners.routes]]\n{line}" for line in lines)


def host(number):
    return f"h{number}.example.com"


def scenarios():
    """Of each name: requests as (host, path), and what each proxy's file holds."""
    here, all_of = "test.example.com", 'pool = "web"'
    forward = "location / { proxy_pass http://web; }"
    regex = [f"/r{number}/[a-z]+/[0-9]+" for number in range(REGEXES)]
    cells = [(at, path) for at in range(HOSTS) for path in range(10)]
    beta = 'headers = ["x-kind=beta"]\n'
    guard = "if ($http_x_kind != beta) { return 404; } "
    return {
        "h1": ([(here, "/")], servers(("_", forward)), ("default_backend web", ""), 'pool = "web"'),
        "r1k_host": (
            [(host(at), "/") for at in range(HOSTS)],
            servers(*[(host(at), forward) for at in range(HOSTS)]),
            ("use_backend %[req.hdr(host),lower,map(MAP)]", "".join(f"{host(at)} web\n" for at in range(HOSTS))),
            routes(*[f'hosts = ["{host(at)}"]\n{all_of}' for at in range(HOSTS)]),
        ),
        "r1k_path": (
            [(here, f"/p{at}/x") for at in range(PATHS)],
            servers(("_", " ".join(f"location /p{at}/ {{ proxy_pass http://web; }}" for at in range(PATHS)))),
            ("use_backend %[path,map_beg(MAP)]", "".join(f"/p{at}/ web\n" for at in range(PATHS))),
            routes(*[f'path_prefix = "/p{at}"\n{all_of}' for at in range(PATHS)]),
        ),
        "r10k": (
            [(host(at), f"/p{path}/x") for at, path in cells[:: len(cells) // 2000]],
            servers(*[
                (host(at), " ".join(
                    f"location /p{path}/ {{ {guard if path == 0 else ''}proxy_pass http://web; }}" for path in range(10)))
                for at in range(HOSTS)
            ]),
            None,
            routes(*[
                f'hosts = ["{host(at)}"]\npath_prefix = "/p{path}"\n{beta if path == 0 else ""}{all_of}' for at, path in cells
            ]),
        ),
        "r_re": (
            [(here, f"/r{REGEXES - 1}/abc/{at}") for at in range(100)],
            servers(("_", " ".join(f"location ~ ^{one}$ {{ proxy_pass http://web; }}" for one in regex))),
            ("\n    ".join(f"use_backend web if {{ path_reg ^{one}$ }}" for one in regex), ""),
            routes(*[f'path_regex = "{one}"\n{all_of}' for one in regex]),
        ),
        "r_edit": (
            [(here, f"/old/x{at}") for at in range(100)],
            servers(("_", "location /old/ { proxy_pass http://web/; proxy_set_header X-A 1; proxy_set_header X-B 2; "
                          "proxy_set_header X-C 3; proxy_set_header X-Gone \"\"; proxy_set_header Connection \"\"; "
                          "add_header X-A 1; add_header X-B 2; add_header X-C 3; proxy_hide_header ETag; }")),
            ("http-request replace-path /old(/.*) \\1\n    " + "\n    ".join(
                f"http-{way} set-header X-{name} {value}"
                for way in ("request", "response") for name, value in (("A", 1), ("B", 2), ("C", 3)))
             + "\n    http-request del-header X-Gone\n    http-response del-header ETag\n    default_backend web", ""),
            routes('path_prefix = "/old"\npool = "web"\nrewrite = { prefix = "/" }\n'
                   'request_headers = { remove = ["X-Gone"], set = ["X-A: 1", "X-B: 2", "X-C: 3"] }\n'
                   'response_headers = { remove = ["ETag"], set = ["X-A: 1", "X-B: 2", "X-C: 3"] }'),
        ),
        "r_redir": (
            [(here, f"/x{at}") for at in range(100)],
            servers(("_", "return 308 https://$host$request_uri;")),
            ("http-request redirect scheme https code 308", ""),
            routes('redirect = { scheme = "https", status = 308 }'),
        ),
    }


def ticks(pid):
    """User and system time of a process and its children, in clock ticks."""
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        pids = [pid, *map(int, children.read().split())]
    total = 0
    for one in pids:
        with open(f"/proc/{one}/stat") as stat:
            fields = stat.read().rsplit(") ", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total


def start(cpu, command, port, work):
    with open(os.path.join(work, "out"), "a") as out:
        process = subprocess.Popen(["taskset", "-c", cpu, *command], stdout=out, stderr=out)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    raise SystemExit(f"nobody serves on port {port}: {command}")


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def load(work, connections, seconds):
    """Requests that were answered, those that were refused, and those a second."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", f"{work}/list.lua",
               f"http://127.0.0.1:{FRONT}/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return int(re.search(r"(\d+) requests in", said)[1]), int(refused[1]) if refused else 0


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def main():
    names = sys.argv[1].split(",") if len(sys.argv) > 1 else list(scenarios())
    connections, seconds, rounds = [int(one) for one in (sys.argv[2:5] + ["64", "4", "3"][len(sys.argv[2:5]):])]
    work = tempfile.mkdtemp()
    peers = {"gateway": [GATEWAY, f"{work}/gateway.toml"], "nginx": [os.environ.get("NGINX", "nginx"), "-c", f"{work}/nginx.conf"]}
    if shutil.which("haproxy"):
        peers["haproxy"] = ["haproxy", "-db", "-f", f"{work}/haproxy.cfg"]
    answer = f'server {{ listen 127.0.0.1:{BACKEND}; etag on; location / {{ add_header ETag "a"; return 200 "ok\\n"; }} }}'
    write(f"{work}/backend.conf", NGINX.format(work=work, name="backend", backend=1, servers=answer))
    backend = start("1", ["nginx", "-c", f"{work}/backend.conf"], BACKEND, work)
    own = None
    try:
        for name in names:
            requests, nginx, haproxy, listener = scenarios()[name]
            rows = ",\n".join(f'wrk.format("GET", "{path}", {{Host = "{host}", ["X-Kind"] = "beta", ["X-Gone"] = "1"}})' for host, path in requests)
            write(f"{work}/list.lua", f"local all, at = nil, 0\ninit = function() all = {{\n{rows}}} end\n"
                                      "request = function() at = at % #all + 1; return all[at] end\n")
            write(f"{work}/nginx.conf", NGINX.format(work=work, name="nginx", backend=BACKEND, servers=nginx))
            write(f"{work}/gateway.toml", GATEWAY_FILE.format(backend=BACKEND, front=FRONT, listener=listener))
            if haproxy:
                write(f"{work}/map", haproxy[1])
                rules = haproxy[0].replace("MAP", f"{work}/map")
                write(f"{work}/haproxy.cfg", HAPROXY.format(front=FRONT, backend=BACKEND, rules=rules, edits=""))
            figures = {}
            for _ in range(rounds):
                for peer, command in peers.items():
                    if peer == "haproxy" and not haproxy:
                        continue
                    process = start("0", command, FRONT, work)
                    load(work, connections, 1)
                    before = ticks(process.pid)
                    count, refused = load(work, connections, seconds)
                    spent = ticks(process.pid) - before
                    stop(process)
                    if refused:
                        raise SystemExit(f"{name}: {peer} refused {refused} of {count} requests")
                    figures.setdefault(peer, []).append(spent / os.sysconf("SC_CLK_TCK") * 1e6 / count)
            medians = {peer: statistics.median(all_of) for peer, all_of in figures.items()}
            own = own or (medians["gateway"] if name == "h1" else None)
            others = {peer: figure for peer, figure in medians.items() if peer != "gateway"}
            line = ", ".join(f"{peer} {figure:.2f}" for peer, figure in medians.items())
            ratios = f"{medians['gateway'] / min(others.values()):.2f} of the best"
            if own and name != "h1":
                ratios += f", {medians['gateway'] / own:.2f} of h1"
            print(f"{name:9} CPU us per request: {line}; {ratios}", flush=True)
    finally:
        stop(backend)
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
