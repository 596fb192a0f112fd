#!/bin/sh
# WebSocket echo through nginx and through the gateway: CPU microseconds of the proxy for each round trip, and the ratio.
# usage: benches/websocket.sh [CONNECTIONS [SECONDS [ROUNDS]]]
#
# The proxy has CPU 0, with one worker; load generator and server share CPU 1. The rounds of the two alternate, and medians count.
# GATEWAY=path takes another binary of the gateway, TOOLS=directory other builds of ws_load and ws_echo.
set -eu

connections=${1:-50} seconds=${2:-5} rounds=${3:-3}
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
gateway=${GATEWAY:-$target/release/expressgateway}
tools=${TOOLS:-$target/release/examples}
for program in "$gateway" "$tools/ws_load" "$tools/ws_echo"; do
    [ -x "$program" ] || { echo "$program is missing: see benches/README.md" >&2; exit 1; }
done
nginx=$(command -v nginx) || { echo "nginx is not installed" >&2; exit 1; }

echo_port=${ECHO_PORT:-19801} nginx_port=${NGINX_PORT:-19802} gateway_port=${GATEWAY_PORT:-19803}
work=$(mktemp -d)
server='' proxy=''
cleanup() {
    for pid in $proxy $server; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT INT TERM

cat >"$work/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 4096; }
http {
    access_log off;
    server {
        listen 127.0.0.1:$nginx_port;
        location / {
            proxy_pass http://127.0.0.1:$echo_port;
            proxy_http_version 1.1;
            proxy_set_header Host \$host;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection "Upgrade";
        }
    }
}
CONF
cat >"$work/gateway.toml" <<CONF
[runtime]
workers = 1
readiness_settle_ms = 0
drain_timeout_ms = 1000

[[listeners]]
address = "127.0.0.1:$gateway_port"
protocol = "h1"

[listeners.websocket]

[[listeners.backends]]
address = "127.0.0.1:$echo_port"
CONF

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
    until "$tools/ws_load" "127.0.0.1:$1" 1 0 >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "nobody serves on port $1" >&2; exit 1; }
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
    taskset -c 1 "$tools/ws_load" "127.0.0.1:$port" "$connections" 1 >/dev/null
    before=$(ticks "$proxy")
    seen=$(taskset -c 1 "$tools/ws_load" "127.0.0.1:$port" "$connections" "$seconds")
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

taskset -c 1 "$tools/ws_echo" "127.0.0.1:$echo_port" &
server=$!
wait_for "$echo_port"
for _ in $(seq "$rounds"); do
    round nginx "$nginx_port" "$nginx" -p "$work" -c "$work/nginx.conf"
    round gateway "$gateway_port" "$gateway" "$work/gateway.toml"
done
awk -v ours="$(median "$work/gateway.figures")" -v theirs="$(median "$work/nginx.figures")" \
    'BEGIN { printf "median: gateway %.2f, nginx %.2f CPU us per round trip, ratio %.2f\n", ours, theirs, ours / theirs }'
