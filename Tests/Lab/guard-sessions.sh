#!/bin/bash
# The results of sessions behind a firewall that forgets after 5 s. One line for each kind of program, in this order:
# dynamic, static, 32-bit (left out without gcc-multilib), set-user-ID and started by another user. Each is idle for 9 s.
#
#   guard-sessions.sh none|on|off CGROUP   started without a guard, after "guard on", or after "guard on" and "guard off"
#
# CGROUP is the name of a folder in the cgroup2 hierarchy. It is made, and is the caller's to remove.
set -eu
# shellcheck source=Tests/Lab/lab.sh
. "$(dirname "$0")/lab.sh"
lab_enter "$@"
scene=$1 cgroup=$2
mount=$(cgroup_mount)

lab_build 5
# What is pinned here ends with this script.
mount -t bpf bpf /sys/fs/bpf
mkdir "$mount/$cgroup"
[ "$scene" = none ] || lab_sockalive guard on --cgroup "/$cgroup" --firewall-timeout 5s >&2
[ "$scene" != off ] || lab_sockalive guard off --cgroup "/$cgroup" >&2
lab_on server "$LAB_PROGRAMS/programs/idle-client-64" serve 192.0.2.2 5633 >&2 &

# session NAME PROGRAM [LAUNCHER]…: the client starts in the cgroup.
session() {
    local name=$1 program=$2
    shift 2
    [ -x "$program" ] || return 0
    # shellcheck disable=SC2016 # the inner shell expands these
    sh -c 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"' sh "$mount/$cgroup" "$@" \
        "$program" 192.0.2.2 5633 9 >"/run/$name.outcome" &
    sessions+=("$name") processes+=($!)
}

cp "$LAB_PROGRAMS/programs/idle-client-64" /run/set-user-id
chmod 4755 /run/set-user-id
sessions=() processes=()
for ((i = 0; i < 100; i++)); do
    [ -z "$(lab_on server ss -Hltn 'sport = :5633')" ] || break
    sleep 0.1
done
session dynamic "$LAB_PROGRAMS/programs/idle-client-64"
session static "$LAB_PROGRAMS/programs/idle-client-64-static"
session 32-bit "$LAB_PROGRAMS/programs/idle-client-32"
session set-user-id /run/set-user-id setpriv --reuid 65534 --regid 65534 --clear-groups
for i in "${!sessions[@]}"; do
    wait "${processes[i]}" || true
    # "lost (silence)"
    outcome=$(tail -n 1 "/run/${sessions[i]}.outcome")
    echo "${sessions[i]} ${outcome%% *}"
done
