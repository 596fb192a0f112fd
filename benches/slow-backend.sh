#!/bin/sh
# One of four backends is 50 ms slower than the others: the latencies that clients see through the gateway (p2c_ewma, and round_robin for
# comparison) and through nginx and HAProxy with least connections.
# usage: benches/slow-backend.sh [CONNECTIONS [SECONDS [ROUNDS]]]
#
# The proxy has CPU 0, with one worker; wrk and the backends share CPU 1. Rounds alternate, and medians count.
# GATEWAY=path takes another binary of the gateway, TOOLS=directory another build of `delayed`.
set -eu

connections=${1:-64} seconds=${2:-5} rounds=${3:-3}
root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
gateway=${GATEWAY:-$target/release/expressgateway}
tools=${TOOLS:-$target/release/examples}
for program in "$gateway" "$tools/delayed"; do
    [ -x "$program" ] || { echo "$program is missing: see benches/README.md" >&2; exit 1; }
done
for program in wrk nginx haproxy; do
    command -v "$program" >/dev/null || { echo "$program is not installed" >&2; exit 1; }
done

base=${BASE_PORT:-19820}
front=$((base + 9))
work=$(mktemp -d)
servers='' proxy=''
cleanup() {
    for pid in $proxy $servers; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT INT TERM

for number in 1 2 3 4; do
    delay=5
    [ "$number" -lt 4 ] || delay=55
    taskset -c 1 "$tools/delayed" "127.0.0.1:$((base + number))" "$delay" &
    servers="$servers $!"
done

{
    printf 'daemon off;\nworker_processes 1;\npid %s/nginx.pid;\nerror_log %s/nginx.log;\n' "$work" "$work"
    printf 'events { worker_connections 4096; }\nhttp {\naccess_log off;\nupstream b {\nleast_conn;\nkeepalive 256;\n'
    for number in 1 2 3 4; do printf 'server 127.0.0.1:%s;\n' $((base + number)); done
    printf '}\nserver { listen 127.0.0.1:%s; keepalive_requests 1000000000; location / {\n' "$front"
    printf 'proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; } } }\n'
} >"$work/nginx.conf"
{
    printf 'global\nnbthread 1\ndefaults\nmode http\ntimeout connect 5s\ntimeout client 60s\ntimeout server 60s\n'
    printf 'listen l\nbind 127.0.0.1:%s\nbalance leastconn\nhttp-reuse always\n' "$front"
    for number in 1 2 3 4; do printf 'server s%s 127.0.0.1:%s\n' "$number" $((base + number)); done
} >"$work/haproxy.cfg"
for policy in p2c_ewma round_robin; do
    {
        printf '[runtime]\nworkers = 1\nreadiness_settle_ms = 0\ndrain_timeout_ms = 1000\nmax_keepalive_requests = 0\n'
        printf '[observability]\nmetrics_bind = "off"\n'
        printf '[[listeners]]\naddress = "127.0.0.1:%s"\nprotocol = "h1"\npool = "b"\n' "$front"
        printf '[pools.b]\npolicy = "%s"\n' "$policy"
        for number in 1 2 3 4; do printf '[[pools.b.backends]]\naddress = "127.0.0.1:%s"\n' $((base + number)); done
    } >"$work/$policy.toml"
done

# One round: starts the proxy, warms it up, loads it, and keeps the 99th percentile in milliseconds.
round() {
    name=$1
    shift
    taskset -c 0 "$@" >"$work/$name.out" 2>&1 &
    proxy=$!
    tries=0
    until wrk -t1 -c1 -d1s "http://127.0.0.1:$front/" 2>/dev/null | grep -q Requests/sec; do
        tries=$((tries + 1))
        [ "$tries" -lt 20 ] || { echo "$name does not serve" >&2; exit 1; }
        sleep 0.1
    done
    taskset -c 1 wrk -t1 -c"$connections" -d1s "http://127.0.0.1:$front/" >/dev/null
    taskset -c 1 wrk -t1 -c"$connections" -d"${seconds}s" --latency "http://127.0.0.1:$front/" >"$work/$name.wrk"
    kill "$proxy"
    wait "$proxy" || true
    proxy=''
    awk -v name="$name" -v file="$work/$name.figures" '
        function ms(text) { return text ~ /us$/ ? text / 1000 : text ~ /ms$/ ? text + 0 : text * 1000 }
        $1 == "50%" { p50 = ms($2) }
        $1 == "99%" { p99 = ms($2) }
        $1 == "Requests/sec:" { rate = $2 }
        END { print p99 >> file; printf "%-22s p50 %6.2f ms  p99 %6.2f ms  %8.0f requests/s\n", name, p50, p99, rate }
    ' "$work/$name.wrk"
}

for _ in $(seq "$rounds"); do
    round gateway-p2c_ewma "$gateway" "$work/p2c_ewma.toml"
    round gateway-round_robin "$gateway" "$work/round_robin.toml"
    round nginx-least_conn nginx -p "$work" -c "$work/nginx.conf"
    round haproxy-leastconn haproxy -q -f "$work/haproxy.cfg"
done
median() { sort -n "$work/$1.figures" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
ours=$(median gateway-p2c_ewma)
for other in gateway-round_robin nginx-least_conn haproxy-leastconn; do
    awk -v ours="$ours" -v theirs="$(median "$other")" -v other="$other" \
        'BEGIN { printf "p99: p2c_ewma %.2f ms, %s %.2f ms, ratio %.2f\n", ours, other, theirs, ours / theirs }'
done
