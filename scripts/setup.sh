#!/usr/bin/env bash
# Installs what a fresh Debian or Ubuntu lacks to build ExpressGateway; with --tests also what its tests use.
# Installs only what is missing, and does nothing the second time.
set -euo pipefail

usage() {
    echo "usage: $0 [--tests] [--autobahn]"
    echo "  (nothing)  what a build needs: C and C++ compilers, pkg-config, cmake, libclang"
    echo "  --tests    also what the tests use: nginx, HAProxy, curl, openssl, nghttp2, Chromium, and Python with the"
    echo "             packages of tests/peers/requirements.txt in an environment of its own"
    echo "  --autobahn also the Autobahn suite for WebSocket, which needs a Python 2.7 with pip, on the path or of pyenv"
}

tests=no
autobahn=no
for argument in "$@"; do
    case "$argument" in
        --tests) tests=yes ;;
        --autobahn) autobahn=yes ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done

# nginx lives in /usr/sbin, which is not on every user's path.
has() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null 2>&1; }

missing=()
optional=()
need() { has "$1" || missing+=("$2"); }

need cc build-essential
need c++ build-essential
need pkg-config pkg-config
# BoringSSL is built by cmake, and its headers are read by libclang.
need cmake cmake
# libclang-cpp, which other packages bring, is another library.
has_libclang() {
    local at
    for at in '/usr/lib/llvm-*/lib' '/usr/lib/*'; do
        compgen -G "$at/libclang.so*" >/dev/null || compgen -G "$at/libclang-[0-9]*.so*" >/dev/null || continue
        return 0
    done
    return 1
}
has_libclang || missing+=(libclang-dev)
if [ "$tests" = yes ]; then
    need nginx nginx-light
    need haproxy haproxy
    need curl curl
    need nghttp nghttp2-client
    need nghttpd nghttp2-server
    need h2load nghttp2-client
    need openssl openssl
    need python3 python3
    # Debian's Python lacks what makes a virtual environment.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    need ip iproute2
    # Not every distribution has this package: without it the tests of a browser are ignored.
    has chromium || optional+=(chromium)
fi

if [ "${#missing[@]}" -gt 0 ] || [ "${#optional[@]}" -gt 0 ]; then
    echo "missing: ${missing[*]} ${optional[*]}"
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
    # The tests start servers themselves; the services of the packages would only occupy ports.
    services=()
    for service in nginx haproxy; do
        has "$service" || services+=("$service")
    done
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q </dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null
    for package in "${optional[@]}"; do
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -q --no-install-recommends "$package" </dev/null ||
            echo "no $package to be had: the tests that need it are ignored"
    done
    for service in "${services[@]}"; do
        if has "$service" && [ -d /run/systemd/system ]; then
            "${as_root[@]}" systemctl disable --now "$service" || true
        fi
    done
fi

cache="${XDG_CACHE_HOME:-$HOME/.cache}/expressgateway"

# The programs in tests/peers run in an environment that nothing else uses. testkit/src/peers.rs looks for it here.
if [ "$tests" = yes ]; then
    wanted="$(dirname "$0")/../tests/peers/requirements.txt"
    peers="$cache/test-peers"
    # The list is copied last, so that an environment that was left half done is made anew.
    # The Python that it was made from may be gone since.
    if ! cmp -s "$wanted" "$peers/requirements.txt" || ! "$peers/bin/python" -c '' 2>/dev/null; then
        echo "installing the packages of tests/peers into $peers"
        python3 -m venv --clear "$peers"
        "$peers/bin/python" -m pip install -q --disable-pip-version-check --no-input --only-binary :all: -r "$wanted"
        cp "$wanted" "$peers/requirements.txt"
    fi
fi

# The checker of rules comes with the whole server, which would be started if it were installed, and so is unpacked only.
if [ "$tests" = yes ] && has dpkg-deb && [ ! -x /usr/bin/promtool ] && [ ! -x "$cache/prometheus/usr/bin/promtool" ]; then
    echo "unpacking promtool into $cache/prometheus"
    downloads="$(mktemp -d)"
    if (cd "$downloads" && apt-get download -q prometheus </dev/null >/dev/null 2>&1); then
        mkdir -p "$cache/prometheus"
        dpkg-deb --fsys-tarfile "$downloads"/prometheus_*.deb | tar -x -C "$cache/prometheus" ./usr/bin/promtool
    else
        echo "promtool cannot be had; its test is ignored"
    fi
    rm -rf "$downloads"
fi

if [ "$autobahn" = yes ]; then
    wanted="$(dirname "$0")/../tests/peers/autobahn.txt"
    if ! cmp -s "$wanted" "$cache/autobahn/requirements.txt"; then
        old_python=
        # A shim of pyenv may be on the path and lead nowhere.
        for candidate in python2.7 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python2.7; do
            if [ -z "$old_python" ] && "$candidate" -m pip --version >/dev/null 2>&1; then old_python="$candidate"; fi
        done
        if [ -z "$old_python" ]; then
            echo "error: no python2.7 with pip, on the path or of pyenv; without it the tests of the Autobahn suite are ignored" >&2
            exit 1
        fi
        echo "installing the Autobahn suite into $cache/autobahn"
        maker="$(mktemp -d)"
        trap 'rm -rf "$maker"' EXIT
        "$old_python" -m pip install -q --disable-pip-version-check --target "$maker" virtualenv==20.15.1
        PYTHONPATH="$maker" "$old_python" -m virtualenv -q --clear "$cache/autobahn"
        "$cache/autobahn/bin/python" -m pip install -q --disable-pip-version-check --no-input -r "$wanted"
        cp "$wanted" "$cache/autobahn/requirements.txt"
    fi
fi

if ! has cargo && [ ! -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    echo "error: no Rust toolchain; install a stable one (1.88 or newer) with rustup" >&2
    exit 1
fi
echo "ready"
