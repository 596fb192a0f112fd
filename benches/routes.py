#!/usr/bin/env python3
"""Routes through the gateway, nginx, HAProxy and Envoy: CPU microseconds of the proxy for each request, and the ratios.

usage: benches/routes.py [SCENARIO,...] [CONNECTIONS [SECONDS [ROUNDS]]]

The proxy has CPU 0, with one worker; load generator (wrk) and backend (nginx) share CPU 1. The peers take turns in each round, and medians count.
Requests go over all hosts or paths of a scenario by a fixed list. GATEWAY=path takes another binary of the gateway, and BESIDE=path a second one
that takes part as a peer; ENVOY=path has Envoy take part, NGINX=path takes another nginx.
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
import threading
import time

from route_peers import BACKEND, FRONT, HAPROXY, NGINX, SENDER, TLS_BACKEND, gateway, routed, scenarios

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
BINARY = os.environ.get("GATEWAY", os.path.join(TARGET, "release", "expressgateway"))
STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"


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
    for _ in range(400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    raise SystemExit(f"nobody serves on port {port}: {command}")


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def load(work, connections, seconds, url=f"http://127.0.0.1:{FRONT}/"):
    """Requests that were answered, those that failed or were refused, and the 99.9th percentile of latencies in milliseconds."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", f"{work}/list.lua", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = sum(int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", said))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    failed += sum(map(int, errors.groups())) if errors else 0
    return int(re.search(r"(\d+) requests in", said)[1]), failed, float(re.search(r"p999 ([\d.]+)", said)[1])


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def write_list(work, requests, keys=0, fields=""):
    """The script of the load generator: these requests one after the other, and each with a key of its own where there are keys."""
    rows = ",\n".join(
        f'wrk.format("GET", "{path}", {{Host = "{host}", ["X-Kind"] = "beta", ["X-Gone"] = "1"{key}{fields}}})'
        for host, path in requests for key in ([f', ["X-Key"] = "key-{at}"' for at in range(keys)] or [""]))
    write(f"{work}/list.lua", f"local all, at = nil, 0\ninit = function() all = {{\n{rows}}} end\n"
                              "request = function() at = at % #all + 1; return all[at] end\n"
                              'done = function(_, latency) print("p999 " .. latency:percentile(99.9) / 1000) end\n')


def nginx(work, name, text, streams=""):
    """Writes a file of nginx, and gives the command."""
    modules = f"load_module {STREAM_MODULE};" if streams else ""
    write(f"{work}/{name}.conf", NGINX.format(work=work, name=name, backend=BACKEND, servers=text, streams=streams, modules=modules))
    return [os.environ.get("NGINX", "nginx"), "-c", f"{work}/{name}.conf"]


def commands(work, scenario):
    """The proxies that take part, and how each is started."""
    write(f"{work}/gateway.toml", scenario["gateway"])
    found = {"gateway": [BINARY, f"{work}/gateway.toml"]}
    if "BESIDE" in os.environ:
        found["beside"] = [os.environ["BESIDE"], f"{work}/gateway.toml"]
    if "nginx" in scenario and (not scenario.get("streams") or os.path.exists(STREAM_MODULE)):
        found["nginx"] = nginx(work, "nginx", scenario["nginx"], scenario.get("streams", ""))
    if "haproxy" in scenario and shutil.which("haproxy"):
        write(f"{work}/map", scenario.get("map", ""))
        write(f"{work}/haproxy.cfg", scenario["haproxy"].replace("MAP", f"{work}/map"))
        found["haproxy"] = ["haproxy", "-db", "-f", f"{work}/haproxy.cfg"]
    if "envoy" in scenario and "ENVOY" in os.environ:
        write(f"{work}/envoy.json", scenario["envoy"])
        found["envoy"] = [os.environ["ENVOY"], "-c", f"{work}/envoy.json", "--concurrency", "1", "-l", "off"]
    return found


def measure(work, command, connections, seconds, url):
    """CPU microseconds for each request."""
    process = start("0", command, FRONT, work)
    try:
        load(work, connections, 1, url)
        before = ticks(process.pid)
        count, failed, _ = load(work, connections, seconds, url)
        spent = ticks(process.pid) - before
    finally:
        stop(process)
    if failed:
        raise SystemExit(f"{failed} of {count} requests failed: {command}")
    return spent / os.sysconf("SC_CLK_TCK") * 1e6 / count


def compare(work, name, own, sizes):
    """A scenario with all proxies; gives the figure of the gateway."""
    scenario, (connections, seconds, rounds) = scenarios()[name], sizes
    write_list(work, scenario.get("requests", [("localhost", "/")]), scenario.get("keys", 0))
    url = f"https://localhost:{FRONT}/" if scenario.get("tls") else f"http://127.0.0.1:{FRONT}/"
    figures = {}
    peers = commands(work, scenario)
    if name not in ("h1", "snip"):
        # The gateway without routes under the requests of this scenario, which cost the load generator more than those of `h1`.
        write(f"{work}/plain.toml", gateway('pool = "web"'))
        peers["plain"] = [BINARY, f"{work}/plain.toml"]
    for _ in range(rounds):
        for peer, command in peers.items():
            figures.setdefault(peer, []).append(measure(work, command, connections, seconds, url))
    medians = {peer: statistics.median(all_of) for peer, all_of in figures.items()}
    others = {peer: figure for peer, figure in medians.items() if peer not in ("gateway", "plain", "beside")}
    line = ", ".join(f"{peer} {figure:.2f}" for peer, figure in medians.items())
    if others:
        line += f"; {medians['gateway'] / min(others.values()):.2f} of the best"
    if own and name not in ("h1", "snip"):
        line += f", {medians['gateway'] / own:.2f} of h1"
    if "plain" in medians:
        paired = statistics.median(one / other for one, other in zip(figures["gateway"], figures["plain"]))
        line += f", {paired:.2f} of plain in pairs"
    print(f"{name:9} CPU us per request: {line}", flush=True)
    return medians["gateway"]


def proxy_header(work, sizes):
    """A connection for each request, which HAProxy makes, with the PROXY protocol and without."""
    connections, seconds, rounds = sizes
    write_list(work, [("localhost", "/")], fields=', Connection = "close"')
    figures = {}
    for _ in range(rounds):
        for name, server, listener in (
            ("without", "", ""),
            ("with", "send-proxy-v2", '[listeners.proxy_protocol]\nmode = "require"\ntrusted = ["127.0.0.0/8"]\n'),
        ):
            write(f"{work}/sender.cfg", HAPROXY.format(mode="tcp", more=(
                f"listen sender\n    bind 127.0.0.1:{SENDER}\n    server gateway 127.0.0.1:{FRONT} {server}\n")))
            write(f"{work}/gateway.toml", gateway('pool = "web"\n' + listener))
            sender = start("1", ["haproxy", "-db", "-f", f"{work}/sender.cfg"], SENDER, work)
            try:
                figure = measure(work, [BINARY, f"{work}/gateway.toml"], connections, seconds, f"http://127.0.0.1:{SENDER}/")
            finally:
                stop(sender)
            figures.setdefault(name, []).append(figure)
    paired = statistics.median(one / other for one, other in zip(figures["with"], figures["without"]))
    medians = ", ".join(f"{name} {statistics.median(all_of):.2f}" for name, all_of in figures.items())
    print(f"pp2       CPU us per request: {medians}; {paired:.2f} of without in pairs", flush=True)


def reloads(work, sizes):
    """10 000 routes, of which one changes each second, and the latencies beside those without a reload."""
    connections, seconds, _ = sizes
    hosts = [f"h{at}.example.com" for at in range(10_000)]
    write_list(work, [(host, "/") for host in hosts[::10]])
    text = lambda changed: routed(*[
        f'hosts = ["{host}"]\npool = "web"' + ('\nrequest_headers = { set = ["X-A: 1"] }' if at == changed else "")
        for at, host in enumerate(hosts)])
    write(f"{work}/gateway.toml", text(None))
    process = start("0", [BINARY, f"{work}/gateway.toml"], FRONT, work)
    try:
        load(work, connections, 2)
        _, failed, quiet = load(work, connections, seconds)
        done = threading.Event()

        def change():
            changed = 0
            while not done.wait(1):
                changed += 1
                write(f"{work}/next.toml", text(changed))
                os.replace(f"{work}/next.toml", f"{work}/gateway.toml")
                process.send_signal(signal.SIGHUP)

        changes = threading.Thread(target=change)
        changes.start()
        _, under, busy = load(work, connections, seconds)
        done.set()
        changes.join()
    finally:
        stop(process)
    print(f"r_reload  p99.9 {quiet:.2f} ms without reloads, {busy:.2f} ms with one each second; {failed + under} requests failed", flush=True)


def main():
    every = [*scenarios(), "pp2", "r_reload"]
    names = sys.argv[1].split(",") if len(sys.argv) > 1 else every
    sizes = [int(one) for one in (sys.argv[2:5] + ["64", "4", "3"][len(sys.argv[2:5]):])]
    work = tempfile.mkdtemp()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-keyout", f"{work}/key.pem", "-out", f"{work}/cert.pem"], check=True, capture_output=True)
    answer = (f'server {{ listen 127.0.0.1:{BACKEND}; listen 127.0.0.1:{TLS_BACKEND} ssl; ssl_certificate {work}/cert.pem; '
              f'ssl_certificate_key {work}/key.pem; etag on; location / {{ add_header ETag "a"; return 200 "ok\\n"; }} }}')
    backend = start("1", ["nginx", *nginx(work, "backend", answer)[1:]], BACKEND, work)
    own = None
    try:
        for name in names:
            if name == "pp2":
                proxy_header(work, sizes)
            elif name == "r_reload":
                reloads(work, sizes)
            else:
                figure = compare(work, name, own, sizes)
                own = figure if name == "h1" else own
    finally:
        stop(backend)
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
