#!/bin/bash
# Tests the systemd units. systemd-analyze finds no error. Under their restrictions the program works on processes of
# other users, in its own network namespace and in another one. If any capability is left out, it must fail.
#
#   units.sh [PROGRAM]
#
# No systemd is started. Tests/Packaging/under-unit.py applies the restrictions in private namespaces.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh

verify() {
    local unit score
    install_missing systemd python3 gcc libc6-dev iproute2 util-linux
    for unit in sockalive.service sockalive-watch.service sockalive-guard.service sockalive.timer; do
        # The program need not be installed on this machine.
        sed 's|/usr/local/sbin/sockalive|/bin/true|' "cron/systemd/$unit" >"$work/$unit"
    done
    [ -z "$(cd "$work" && systemd-analyze verify --man=no ./*.service ./*.timer 2>&1 | tee /dev/stderr)" ] ||
        fail "systemd-analyze verify is not content"
    for unit in sockalive.service sockalive-watch.service sockalive-guard.service; do
        score=$(cd "$work" && systemd-analyze security --offline=true --threshold=30 "./$unit" | tail -1) ||
            fail "$unit: the exposure is above 3.0"
        echo "ok  $unit: ${score#*: }"
    done
}

if [ -z "${UNITS_ROOM:-}" ]; then
    [ "$(id -u)" = 0 ] || skip "needs root, as the units do"
    work=$(mktemp -d)
    chmod 755 "$work"
    trap 'rm -rf "$work"' EXIT
    verify
    program=${1:-$(built_program)}
    cp "$program" "$work/sockalive"
    Tests/Programs/build.sh "$work"
    mv "$work/victim-echo" "$work/beremote"
    UNITS_ROOM=$work unshare --mount --net --pid --fork --kill-child --mount-proc bash "$0"
    exit
fi

# --- from here on in its own namespaces ---

# session NAME [COMMAND]…: starts a beremote of user nobody with one session, in the network that COMMAND enters
session() {
    local name=$1
    shift
    mkfifo "/run/to-$name"
    "$@" bash -c "ip link set lo up; exec 3<>/run/to-$name
        $UNITS_ROOM/echo-peer listen 127.0.0.1 5633 1 <&3 >/run/peer-$name &
        until grep -qs listening /run/peer-$name; do sleep 0.05; done
        exec setpriv --reuid 65534 --clear-groups $UNITS_ROOM/beremote connect 127.0.0.1 5633 1 >/run/agent-$name" &
    until grep -qs ready "/run/agent-$name"; do sleep 0.05; done
}

mount --make-rprivate /
mount -t tmpfs tmpfs /run
session here env
session there unshare --net
# ProtectSystem=strict
mount -o remount,bind,ro /

# attempt [OPTION OF under-unit.py]…: prints how many sockets were set to a new value
echo 100 >/run/idle
attempt() {
    local idle
    idle=$(($(cat /run/idle) + 1))
    echo "$idle" >/run/idle
    python3 Tests/Packaging/under-unit.py "cron/systemd/$unit" "$@" -- "$UNITS_ROOM/sockalive" \
        inject --idle "$idle" --method "$method" --json >/run/answer 2>/run/errors || true
    python3 -c '
import json
answer = json.load(open("/run/answer"))
print(sum(s["action"] == "set" for s in answer["sockets"]))' 2>>/run/errors || echo none
}

# expect_rights RIGHTS [OPTION OF under-unit.py]…: both sockets are set, and accessed with these rights
expect_rights() {
    local wanted="$1 $1" found
    shift
    [ "$(attempt "$@")" = 2 ] || fail "$unit, $method, $*: $(cat /run/errors)"
    found=$(python3 -c '
import json
print(*(socket["rights"] for socket in json.load(open("/run/answer"))["sockets"]))')
    [ "$found" = "$wanted" ] || fail "$unit, $method, $*: rights $found, not $wanted"
}

# guarded [OPTION OF under-unit.py]…: whether guard on works under its unit
guarded() {
    python3 Tests/Packaging/under-unit.py cron/systemd/sockalive-guard.service "$@" -- "$UNITS_ROOM/sockalive" \
        guard on --quiet --cgroup "/$cgroup" --port "$((port += 1))" 2>/run/errors
}

cgroup=sockalive-units-$$-$RANDOM port=7000 mount=$(cgroup_mount)
if [ -n "$mount" ] && mount -t bpf bpf /sys/fs/bpf && mkdir "$mount/$cgroup" 2>/dev/null; then
    for capability in CAP_BPF CAP_NET_ADMIN; do
        ! guarded --without $capability || fail "sockalive-guard.service: $capability is not needed"
    done
    guarded || fail "sockalive-guard.service: $(cat /run/errors)"
    [ "$("$UNITS_ROOM/sockalive" guard status --json | grep -c '"active" : true')" = 1 ] || fail "nothing is guarded"
    "$UNITS_ROOM/sockalive" guard off --quiet --all
    rmdir "$mount/$cgroup"
    echo "ok  sockalive-guard.service: guarded; not without CAP_BPF, not without CAP_NET_ADMIN"
else
    echo "skipped: sockalive-guard.service: no cgroup2, or no BPF file system, can be had here"
fi

for unit in sockalive.service sockalive-watch.service; do
    for method in pidfd ptrace; do
        [ "$(attempt)" = 2 ] || fail "$unit, $method: $(cat /run/errors /run/answer)"
        echo "ok  $unit, $method: both sockets set"
        for capability in CAP_SYS_PTRACE CAP_DAC_READ_SEARCH; do
            [ "$(attempt --without $capability)" = 0 ] || fail "$unit, $method: $capability is not needed"
        done
        echo "ok  $unit, $method: nothing without CAP_SYS_PTRACE, nothing without CAP_DAC_READ_SEARCH"
        # Only sock_diag in another network namespace needs it. Without it /proc is used, which is slower.
        echo "    without CAP_SYS_ADMIN: $(attempt --without CAP_SYS_ADMIN) of 2 set"
        # Processes of nobody are accessed as nobody; without the right to become that user, with all rights.
        [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" = 0 ] || continue
        expect_rights owner
        expect_rights kept --without CAP_SETUID
        expect_rights kept --without CAP_SETGID
        echo "ok  $unit, $method: with the rights of nobody"
    done
done
