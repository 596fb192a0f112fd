#!/bin/sh
# UDP echo through nginx's stream proxy and through the gateway: CPU microseconds of the proxy for each round trip, and the ratio.
# usage: benches/udp.sh [FLOWS [SECONDS [ROUNDS [AT_ONCE [quic]]]]]
#
# With "quic" the datagrams look like QUIC, and the gateway's [passthrough] stands in place of its udp listener.
# The proxy has CPU 0, with one worker; load generator and servers share CPU 1. The rounds of the two alternate; what counts is the median of the
# ratios, each of two rounds that follow each other.
# GATEWAY=path and NGINX=path take other binaries, TOOLS=directory other builds of udp_load and udp_echo.
set -eu

flows=${1:-100} seconds=${2:-5} rounds=${3:-3} at_once=${4:-64} kind=${5:-plain}
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
gateway=${GATEWAY:-$target/release/expressgateway}
tools=${TOOLS:-$target/release/examples}
for program in "$gateway" "$tools/udp_load" "$tools/udp_echo"; do
    [ -x "$program" ] || { echo "$program is missing: see benches/README.md" >&2; exit 1; }
done
nginx=${NGINX:-$(command -v nginx)} || { echo "nginx is not installed" >&2; exit 1; }

echo_port=${ECHO_PORT:-19821} nginx_port=${NGINX_PORT:-19822} gateway_port=${GATEWAY_PORT:-19823}
# Flows to one backend take a socket each, those to different backends share them, and the gateway gives half of its descriptors to those: with
# two backends a limit of 20,000 is enough for 10,000 flows.
other_echo_port=${OTHER_ECHO_PORT:-19824}
ulimit -n 65536 2>/dev/null || true
work=$(mktemp -d)
servers='' proxy=''
cleanup() {
    for pid in $proxy $servers; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT INT TERM

# Where the stream module is a file of its own.
module=
if "$nginx" -V 2>&1 | grep -q 'with-stream=dynamic'; then
    module="load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
fi
cat >"$work/nginx.conf" <<CONF
$module
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid $work/nginx.pid;
error_log $work/nginx.log crit;
events { worker_connections 40000; }
stream {
    server {
        listen 127.0.0.1:$nginx_port udp;
        proxy_pass backends;
        proxy_timeout 60s;
    }
    upstream backends {
        server 127.0.0.1:$echo_port;
        server 127.0.0.1:$other_echo_port;
    }
}
CONF
cat >"$work/gateway.toml" <<CONF
[runtime]
workers = 1
readiness_settle_ms = 0
drain_timeout_ms = 100
per_ip_connection_cap = 100000

CONF
if [ "$kind" = quic ]; then
    cat >>"$work/gateway.toml" <<CONF
[passthrough]
bind_addr = "127.0.0.1:$gateway_port"
backends = ["127.0.0.1:$echo_port", "127.0.0.1:$other_echo_port"]
retry_secret_path = "$work/secret"
new_connections_per_source = 0
CONF
else
    cat >>"$work/gateway.toml" <<CONF
[[listeners]]
address = "127.0.0.1:$gateway_port"
protocol = "udp"

[[listeners.backends]]
address = "127.0.0.1:$echo_port"

[[listeners.backends]]
address = "127.0.0.1:$other_echo_port"
CONF
fi

# User and system time of a process and its children, in clock ticks.
ticks() {
    total=0
    for pid in $1 $(cat "/proc/$1/task/$1/children"); do
        set -- "$1" $(sed 's/.*) //' "/proc/$pid/stat")
        total=$((total + ${13} + ${14}))
    done
    echo "$total"
}

wait_for() {
    tries=0
    until "$tools/udp_load" "127.0.0.1:$1" 1 0 1 "$kind" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "nothing answers on port $1" >&2; exit 1; }
        sleep 0.1
    done
}

# One round: starts the proxy, warms it up, loads it.
round() {
    name=$1 port=$2
    shift 2
    taskset -c 0 "$@" >"$work/$name.out" 2>&1 &
    proxy=$!
    wait_for "$port"
    # Its flows live for a while beside those that are measured, and the machine has no ports for twice as many of those.
    taskset -c 1 "$tools/udp_load" "127.0.0.1:$port" 100 1 "$at_once" "$kind" >/dev/null
    before=$(ticks "$proxy")
    seen=$(taskset -c 1 "$tools/udp_load" "127.0.0.1:$port" "$flows" "$seconds" "$at_once" "$kind")
    after=$(ticks "$proxy")
    kill "$proxy"
    wait "$proxy" || true
    proxy=''
    trips=${seen%% *}
    awk -v ticks="$((after - before))" -v hertz="$(getconf CLK_TCK)" -v trips="$trips" \
        'BEGIN { printf "%.3f\n", ticks / hertz * 1e6 / trips }' | tee -a "$work/$name.figures" |
        sed "s/.*/$name: & CPU us per round trip ($seen)/"
}

median() { sort -n "$1" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

for port in "$echo_port" "$other_echo_port"; do
    taskset -c 1 "$tools/udp_echo" "127.0.0.1:$port" &
    servers="$servers $!"
    wait_for "$port"
done
for _ in $(seq "$rounds"); do
    round nginx "$nginx_port" "$nginx" -p "$work" -c "$work/nginx.conf"
    round gateway "$gateway_port" "$gateway" "$work/gateway.toml"
done
paste "$work/gateway.figures" "$work/nginx.figures" | awk '{ printf "%.4f\n", $1 / $2 }' >"$work/ratios"
awk -v ours="$(median "$work/gateway.figures")" -v theirs="$(median "$work/nginx.figures")" -v ratio="$(median "$work/ratios")" \
    'BEGIN { printf "median: gateway %.2f, nginx %.2f CPU us per round trip, ratio %.2f\n", ours, theirs, ratio }'
