#!/usr/bin/env bash
# Installs what a build (with the word `tests`: also the tests) needs and is missing. Quiet when nothing is; changes nothing twice.
set -euo pipefail

missing=()
need() { # command or file, package
    command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing+=("$2")
}
need clang clang
need mold mold
need cmake cmake
need pkg-config pkg-config
# The tests run the Python example client, part networks, turn clocks and mount a faulty disk.
if [ "${1:-}" = tests ]; then
    PATH="$PATH:/usr/sbin:/sbin"
    need ip iproute2
    need nft nftables
    need fusermount3 fuse3
    compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
fi
compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib*/libclang*.so*' >/dev/null ||
    compgen -G '/usr/lib/*/libclang*.so*' >/dev/null || missing+=(libclang-dev)

if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "Missing: ${missing[*]} (names of the Debian packages). Please install them, then run make again." >&2
        exit 1
    fi
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || {
            echo "Missing Debian packages: ${missing[*]}. Install them as root: apt-get install ${missing[*]}" >&2
            exit 1
        }
        as_root=(sudo)
    fi
    echo "Installing Debian packages: ${missing[*]}" >&2
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "Rust is missing. Install it from https://rustup.rs (1.95 or newer), then run make again." >&2
    exit 1
fi
