#!/usr/bin/env bash
# Builds crates/lb-l4-xdp/src/lb_xdp.bin from crates/lb-l4-xdp/{ebpf,layout} on a Debian with rustc 1.96 in `rustc-web`.
#
# The toolchain is unpacked beside the system, never installed into it, under ${EXPRESSGATEWAY_XDP_CACHE:-~/.cache/expressgateway-xdp}.
# The first run downloads 230 MB and compiles a linker and Rust's core: 10 to 25 minutes on two cores. Later runs take seconds.
# --check builds and compares with the object that is there.
set -euo pipefail

repository="$(cd "$(dirname "$0")/.." && pwd)"
crate="$repository/crates/lb-l4-xdp"
object="$crate/src/lb_xdp.bin"
cache="${EXPRESSGATEWAY_XDP_CACHE:-$HOME/.cache/expressgateway-xdp}"
root="$cache/root"
libraries="$cache/lib"
linker_version=0.10.3

check=no
case "${1:-}" in
    --check) check=yes ;;
    "") ;;
    *) echo "usage: $0 [--check]" >&2; exit 2 ;;
esac

mkdir -p "$cache/debs" "$root" "$libraries"

# rustc with the sources of its library, and the LLVM that it was built with. The packages conflict with other Rust toolchains, and so are
# unpacked and not installed.
if [ ! -e "$cache/unpacked" ]; then
    (
        cd "$cache/debs"
        apt-get download rustc-web cargo-web rust-web-src rust-web-llvm libstd-rust-web-1.96 libstd-rust-web-dev \
            libgit2-1.5 libhttp-parser2.9 libmbedcrypto7 libmbedx509-1 libmbedtls14 \
            libllvm22 llvm-22 llvm-22-dev llvm-22-runtime llvm-22-linker-tools libz3-4
        for package in *.deb; do dpkg-deb -x "$package" "$root"; done
    )
    touch "$cache/unpacked"
fi

# Only these libraries: the linker opens the first LLVM that it finds, and another version cannot read what this rustc writes.
find "$root/usr/lib" \( -name 'librustc_driver*' -o -name 'libLLVM*22*' -o -name 'libgit2*' -o -name 'libhttp_parser*' \
    -o -name 'libmbed*' -o -name 'libz3*' -o -name 'libstd-*' \) \( -type f -o -type l \) -name '*.so*' \
    -exec ln -sf {} "$libraries/" \;

if [ ! -x "$cache/linker/bin/bpf-linker" ]; then
    CARGO_TARGET_DIR="$cache/linker-target" cargo install "bpf-linker@$linker_version" --locked --root "$cache/linker"
fi

# What the object is made of. tests/object.rs computes the same.
sources_hash() {
    cd "$crate"
    find ebpf/src ebpf/Cargo.toml ebpf/Cargo.lock ebpf/.cargo/config.toml layout/src layout/Cargo.toml -type f \
        | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1
}

export RUSTC_BOOTSTRAP=1
export PATH="$root/usr/bin:$cache/linker/bin:$PATH"
export LD_LIBRARY_PATH="$libraries"
export CARGO_TARGET_DIR="$cache/target"
export RUSTC="$root/usr/bin/rustc"
unset RUSTUP_TOOLCHAIN RUSTFLAGS
# The same sources give the same object wherever they stand.
registry="$(cd "${CARGO_HOME:-$HOME/.cargo}" && pwd)"
export CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS="--remap-path-prefix=$repository=/expressgateway --remap-path-prefix=$registry=/cargo --remap-path-prefix=$root=/rust"
(cd "$crate/ebpf" && "$root/usr/bin/cargo" build --release --ignore-rust-version)

printf "lb_xdp sources sha256 %s" "$(sources_hash)" > "$cache/sources"
# The lines of the sources would be two thirds of the object, and differ by where it was built.
take() {
    "$root/usr/bin/llvm-objcopy-22" --strip-debug --remove-section=.BTF.ext --remove-section=.rel.BTF.ext \
        --add-section=.lb_sources="$cache/sources" "$cache/target/bpfel-unknown-none/release/$1" "$cache/$1.bin"
    if [ "$check" = yes ]; then
        cmp "$cache/$1.bin" "$2"
        echo "$2 is that of its sources"
    else
        cp "$cache/$1.bin" "$2"
        ls -l "$2"
    fi
}
take lb_xdp "$object"
# What the benchmark runs the programs through.
take wrap "$crate/benches/wrap.bin"
