#!/usr/bin/env bash
# Makes a Debian package of the release binary: expressgateway_VERSION_ARCHITECTURE.deb in the output directory.
# The same sources and binary make the same package where SOURCE_DATE_EPOCH is the same (by default the time of the last commit).
set -euo pipefail

usage() {
    echo "usage: $0 [--binary FILE] [--output DIRECTORY]"
    echo "  --binary  a binary that is built already; without it a release build makes one"
    echo "  --output  where the package goes [default: target/debian]"
}

cd "$(dirname "$0")/.."
binary=
output=target/debian
while [ $# -gt 0 ]; do
    case "$1" in
        --binary) binary="${2:?--binary needs a file}"; shift 2 ;;
        --output) output="${2:?--output needs a directory}"; shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
if ! command -v dpkg-deb >/dev/null; then
    echo "error: no dpkg-deb here; Debian and Ubuntu have it" >&2
    exit 1
fi
if [ -z "$binary" ]; then
    cargo build --release --locked -p lb --bin expressgateway
    binary="${CARGO_TARGET_DIR:-target}/release/expressgateway"
fi
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH

tree="$(mktemp -d)"
trap 'rm -rf "$tree"' EXIT
chmod 0755 "$tree"
umask 022
put() { install -D -m "$1" "$2" "$tree/$3"; }

put 0755 "$binary" usr/bin/expressgateway
put 0644 config/examples/h1.toml etc/expressgateway/lb.toml
put 0644 packaging/sysctl.d/90-expressgateway.conf usr/lib/sysctl.d/90-expressgateway.conf
mkdir -p "$tree/lib/systemd/system"
sed 's|/usr/local/bin/|/usr/bin/|' packaging/systemd/expressgateway.service >"$tree/lib/systemd/system/expressgateway.service"

documents=usr/share/doc/expressgateway
for page in README.md RUNBOOK.md CONFIG.md METRICS.md DEPLOYMENT.md SECURITY.md CHANGELOG.md; do put 0644 "$page" "$documents/$page"; done
put 0644 LICENSE "$documents/copyright"
for example in config/examples/*.toml; do put 0644 "$example" "$documents/examples/$(basename "$example")"; done
put 0644 packaging/prometheus/alerts.yml "$documents/examples/prometheus-alerts.yml"
put 0644 packaging/grafana/expressgateway.json "$documents/examples/grafana-dashboard.json"

# What the binary says of itself.
program="$tree/usr/bin/expressgateway"
mkdir -p "$tree/usr/share/expressgateway" "$tree/usr/share/bash-completion/completions" \
    "$tree/usr/share/zsh/vendor-completions" "$tree/usr/share/fish/vendor_completions.d"
"$program" schema >"$tree/usr/share/expressgateway/schema.json"
"$program" completions bash >"$tree/usr/share/bash-completion/completions/expressgateway"
"$program" completions zsh >"$tree/usr/share/zsh/vendor-completions/_expressgateway"
"$program" completions fish >"$tree/usr/share/fish/vendor_completions.d/expressgateway.fish"
"$program" man "$tree/usr/share/man/man1"
gzip -9n "$tree"/usr/share/man/man1/*.1

version="$("$program" --version | cut -d' ' -f2)"
architecture="$(dpkg --print-architecture)"
mkdir -p "$tree/DEBIAN"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$tree" | cut -f1)/" \
    packaging/debian/control.in >"$tree/DEBIAN/control"
echo /etc/expressgateway/lb.toml >"$tree/DEBIAN/conffiles"
for script in postinst prerm postrm; do install -m 0755 "packaging/debian/$script" "$tree/DEBIAN/$script"; done

mkdir -p "$output"
dpkg-deb --root-owner-group --build "$tree" "$output/expressgateway_${version}_${architecture}.deb"
