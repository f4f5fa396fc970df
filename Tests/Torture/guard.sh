#!/bin/bash
# Kills "guard on" with SIGKILL at its system calls, N times (200) or once at each: where a guard is made, where one gets
# new values, and where one gets another program. After each kill a connection has the settings of before or of after,
# "guard status" tells which, and the next "guard on" works.
# Needs root, Linux 5.9 and cgroup v2.
# Usage: Tests/Torture/guard.sh [N]; SOCKALIVE=PATH uses a built program, VICTIMS=FOLDER the output of build.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh
number=${1:-200}
mount=$(cgroup_mount)
[ "$(id -u)" = 0 ] || skip "guards take root"
[ -n "$mount" ] || skip "no cgroup2 file system is mounted here"
if [ -z "${GUARD_TORTURE_INSIDE:-}" ]; then
    # What is pinned here ends with this mount namespace.
    GUARD_TORTURE_INSIDE=1 exec unshare --mount --net "$0" "$@"
fi
umount -l /sys/fs/bpf 2>/dev/null || true
ip link set lo up
SOCKALIVE=${SOCKALIVE:-$(built_program -c release)}
programs=${VICTIMS:-${TMPDIR:-/tmp}/sockalive-torture.$(id -u)}
Tests/Programs/build.sh "$programs"
name=/sockalive-torture-$$
cgroup=$mount$name
mkdir "$cgroup"
trap 'rmdir "$cgroup"' EXIT
"$SOCKALIVE" guard on --quiet --cgroup "$name" || skip "no BPF program can be attached to a cgroup here"

on() { "$SOCKALIVE" guard on --quiet --cgroup "$name" --any-port --firewall-timeout "$1"; }

# The settings that a new connection gets, and those that status tells: IDLE/INTERVAL/COUNT, or none.
real() {
    "$programs/connect-pair" "$cgroup" ipv4 0 0 none |
        awk '$1 == "client" { print $2 ? $3 "/" $4 "/" $5 : "none" }'
}
told() {
    local line
    line=$("$SOCKALIVE" guard status 2>/dev/null | tail -n +2)
    [ -n "$line" ] || line='- - - none'
    [[ $line != *"another version"* ]] || line='- - - ?'
    awk '{ print $4 }' <<<"$line"
}

before() { # KIND
    case $1 in
    make) "$SOCKALIVE" guard off --quiet --all ;;
    values) on 5m ;;
    # Without its maps, another program takes its place: as after an update of sockalive.
    program) on 5m && rm -f /sys/fs/bpf/sockalive/*/settings_* ;;
    esac
}

wrong=0 old=0 new=0 kills=0
new_values=70/7/50
for kind in make values program; do
    old_values=50/5/50
    [ "$kind" != make ] || old_values=none
    before "$kind"
    read -r stops first < <("$programs/kill-at" 0 "$SOCKALIVE" guard on --quiet --cgroup "$name" --any-port \
        --firewall-timeout 7m)
    # Before its first bpf(2) a run only reads: the last 40 of those stops, and all from there on.
    share=$((number / 3 + 1)) span=$((stops - first + 40)) done=0
    for ((i = 0; done < share && i < 2 * share; i++)); do
        at=$((first - 40 + i % share * span / share))
        before "$kind"
        if ! "$programs/kill-at" "$at" "$SOCKALIVE" guard on --quiet --cgroup "$name" --any-port \
            --firewall-timeout 7m 2>/dev/null; then
            continue
        fi
        kills=$((kills + 1)) done=$((done + 1))
        is=$(real) says=$(told)
        # The maps of this guard were taken away, so nobody can read its values.
        [ "$kind" != program ] || [ "$says" != '?' ] || says=$old_values
        if [ "$is" != "$says" ] || { [ "$is" != "$old_values" ] && [ "$is" != $new_values ]; }; then
            echo "$kind, killed at $at: a connection has $is, status says $says"
            wrong=$((wrong + 1))
        fi
        [ "$is" != "$old_values" ] || old=$((old + 1))
        [ "$is" != $new_values ] || new=$((new + 1))
        if ! on 9m || [ "$(real)" != 90/9/50 ]; then
            echo "$kind, killed at $at: it cannot be guarded again"
            wrong=$((wrong + 1))
        fi
        if [ "$(find /sys/fs/bpf/sockalive -type f | wc -l)" != 3 ]; then
            echo "$kind, killed at $at: left over: $(find /sys/fs/bpf/sockalive -type f)"
            wrong=$((wrong + 1))
        fi
    done
done
"$SOCKALIVE" guard off --quiet --all
[ "$(real)" = none ] || { echo "after the end: $(real)"; wrong=$((wrong + 1)); }
echo "guard on: $kills kills, $old left the old state, $new the new one, $wrong wrong"
[ "$wrong" = 0 ] && [ "$old" -gt 0 ] && [ "$new" -gt 0 ]
