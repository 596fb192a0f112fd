#!/usr/bin/env bash
# Installs what a fresh Debian or Ubuntu lacks to build ExpressGateway; with --tests also what its tests use.
# Installs only what is missing, and does nothing the second time.
set -euo pipefail

usage() {
    echo "usage: $0 [--tests]"
    echo "  (nothing)  what a build needs: a C linker and pkg-config"
    echo "  --tests    also what the tests use: nginx, nghttp2, curl, python3"
}

tests=no
for argument in "$@"; do
    case "$argument" in
        --tests) tests=yes ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done

# nginx lives in /usr/sbin, which is not on every user's path.
has() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null 2>&1; }

missing=()
need() { has "$1" || missing+=("$2"); }

need cc build-essential
need pkg-config pkg-config
if [ "$tests" = yes ]; then
    need nginx nginx-light
    need curl curl
    need nghttp nghttp2-client
    need nghttpd nghttp2-server
    need python3 python3
    need ip iproute2
fi

if [ "${#missing[@]}" -gt 0 ]; then
    echo "missing: ${missing[*]}"
    if ! has apt-get; then
        echo "error: no apt-get here; install the equivalent of: ${missing[*]}" >&2
        exit 1
    fi
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! has sudo; then
            echo "error: neither root nor sudo; run as root: apt-get install ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    had_nginx=no
    if has nginx; then had_nginx=yes; fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q </dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null
    # The tests start nginx themselves; the package's own service would only occupy port 80.
    if [ "$had_nginx" = no ] && has nginx && [ -d /run/systemd/system ]; then
        "${as_root[@]}" systemctl disable --now nginx || true
    fi
fi

if ! has cargo && [ ! -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    echo "error: no Rust toolchain; install a stable one (1.88 or newer) with rustup" >&2
    exit 1
fi
echo "ready"
