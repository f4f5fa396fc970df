#!/bin/bash
# Tests the table "Rights" of Docs/Security.md: each command with each set of rights, on a process with the same rights
# ("own") and on another one ("foreign"). Compared are the exit code and the words.
#
#   rights.sh [PROGRAM]
#
# PROGRAM is static, because it runs in containers with an empty root. Without podman the rows of containers are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh

if [ -z "${RIGHTS_ROOM:-}" ]; then
    [ "$(id -u)" = 0 ] || skip "only root has rights to give up"
    work=$(mktemp -d)
    chmod 755 "$work"
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/rootfs"
    cp "${1:-$(static_program)}" "$work/rootfs/sockalive"
    Tests/Programs/build.sh "$work/programs"
    cp "$work/programs/self-connected" "$work/rootfs/agent-own"
    cp "$work/programs/self-connected" "$work/rootfs/agent-foreign"
    RIGHTS_ROOM=$work unshare --mount --net --pid --fork --kill-child --mount-proc bash "$0"
    exit
fi

# --- from here on in its own namespaces ---

room=$RIGHTS_ROOM
program=$room/rootfs/sockalive
ip link set lo up
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run

# --- environments: each name is a function that runs a command there ---

nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all)
docker_set=chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod
docker_set=${docker_set//,/,+},+audit_write,+setfcap

root() { "$@"; }
no-sys_ptrace() { setpriv --bounding-set=-sys_ptrace --inh-caps=-all "$@"; }
no-dac() { setpriv --bounding-set=-dac_read_search,-dac_override --inh-caps=-all "$@"; }
no-sys_admin() { setpriv --bounding-set=-sys_admin --inh-caps=-all "$@"; }
docker-set() { setpriv "--bounding-set=-all,+$docker_set" --inh-caps=-all "$@"; }
user-namespace() { nsenter --target "$holder" --user "$@"; }
user() { "${nobody[@]}" "$@"; }
user-hidepid() { unshare --mount sh -c 'mount -t proc -o hidepid=2 proc /proc; exec "$@"' sh "${nobody[@]}" "$@"; }
podman-root() { podman_as root exec own "/${1##*/}" "${@:2}"; }
podman-rootless() { podman_as nobody exec own "/${1##*/}" "${@:2}"; }
podman-sidecar() { podman_as root exec own "/${1##*/}" "${@:2}"; }

# podman_as USER WORD…: podman with storage of its own
podman_as() {
    local become=(env)
    [ "$1" = root ] || become=("${nobody[@]}" env)
    (cd "$room/$1" && "${become[@]}" "HOME=$room/$1" "XDG_RUNTIME_DIR=$room/$1" podman --root "$room/$1/storage" \
        --runroot "$room/$1/run" --storage-driver vfs --events-backend none --cgroup-manager cgroupfs "${runtime[@]}" \
        "${@:2}" </dev/null)
}

# contain USER NAME WORD…: starts a container whose program is agent-NAME. The limits are those that any machine allows.
contain() {
    podman_as "$1" run --detach --name "$2" --rootfs --network none --log-driver none --pids-limit -1 \
        --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --ulimit memlock=8192:8192 "${@:3}" \
        "$room/rootfs" "/agent-$2" "$port" >"$room/podman.log" 2>&1 || { cat "$room/podman.log" >&2; fail "no container $2"; }
    sleep 0.5
}

prepare_podman() {
    local user
    # Containers want cgroup version 2 alone.
    umount -R /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 none /sys/fs/cgroup || return 1
    mount --make-rshared /
    runtime=()
    command -v runc >/dev/null && runtime=(--runtime runc)
    for user in root nobody; do mkdir -m 700 "$room/$user"; done
    chown 65534 "$room/nobody"
    # Rootless containers need more users than one.
    for user in subuid subgid; do
        echo "nobody:100000:65536" >"$room/$user"
        [ -e "/etc/$user" ] || return 1
        mount --bind "$room/$user" "/etc/$user"
    done
}

# --- agents ---

# agent NAME COMMAND…: starts agent-NAME in COMMAND's environment, until it has its connection
agent() {
    local name=$1
    shift
    rm -f "/run/agent-$name"
    "$@" "$room/rootfs/agent-$name" "$port" >"/run/agent-$name" &
    port=$((port + 1))
    until grep -qs ready "/run/agent-$name"; do sleep 0.05; done
    agents+=("$(cut -d' ' -f2 "/run/agent-$name")")
}

start_agents() {
    agents=()
    port=$((port + 10))
    case $1 in
    user | user-hidepid)
        agent own "${nobody[@]}"
        agent foreign env
        ;;
    user-namespace)
        rm -f /run/holder
        unshare --user --map-root-user sh -c 'echo ready >/run/holder; exec sleep infinity' &
        holder=$!
        agents=("$holder")
        until grep -qs ready /run/holder; do sleep 0.05; done
        agent own user-namespace
        agent foreign env
        ;;
    podman-root | podman-rootless)
        owner=root
        [ "$1" = podman-root ] || owner=nobody
        contain "$owner" own
        agent foreign env
        ;;
    podman-sidecar)
        owner=root
        contain root foreign
        contain root own --pid container:foreign
        ;;
    *)
        agent own "$1"
        agent foreign "${nobody[@]}"
        ;;
    esac
}

stop_agents() {
    case $1 in podman-*) podman_as "$owner" rm --force --time 0 --all >/dev/null 2>&1 || true ;; esac
    # bash reports each of its children that a signal ends, except this signal.
    [ ${#agents[@]} -eq 0 ] || kill -PIPE "${agents[@]}"
    wait
}

# --- the table ---

declare -A environment=(
    ["root"]=root ["root without CAP_SYS_PTRACE"]=no-sys_ptrace
    ["root without CAP_DAC_READ_SEARCH and CAP_DAC_OVERRIDE"]=no-dac ["root without CAP_SYS_ADMIN"]=no-sys_admin
    ["root with docker's default set"]=docker-set ["podman, rootful"]=podman-root ["podman, rootless"]=podman-rootless
    ["podman, sidecar with the PID namespace"]=podman-sidecar ["root of a user namespace"]=user-namespace
    ["ordinary user"]=user ["ordinary user, hidepid=2"]=user-hidepid
)
commands=(list inject probe doctor)
bad=0 cells=0 skipped=()

# check ROW: list, inject, probe, doctor on one target, and what they say
check() {
    local cell command name said status target words
    IFS='|' read -ra cell <<<"$1"
    name=${cell[0]} target=${cell[1]}
    for i in 0 1 2 3; do
        command=${commands[i]} words=${cell[6]:-}
        [ "$command" = doctor ] && words=${cell[7]:-}
        local arguments=("$command" --process "agent-$target" --any-port)
        case $command in
        inject | probe) arguments+=(--no-lock) ;;
        esac
        status=0
        said=$("${environment[$name]}" "$program" "${arguments[@]}" 2>&1) || status=$?
        said=$(tr -s '\n ' '  ' <<<"$said")
        judge "${environment[$name]}/$target/$command" "$status" "${cell[i + 2]}" "$words" "$said"
    done
}

# judge CELL STATUS WANTED WORDS SAID
judge() {
    cells=$((cells + 1))
    if [ "$2" = "$3" ] && [[ $5 == *"$4"* ]]; then return 0; fi
    bad=$((bad + 1))
    echo "WRONG: $1 ended with $2 instead of $3, or without the words \"$4\":"
    echo "    ${5:0:600}"
}

mapfile -t rows < <(sed -n '/^| where | target |/,/^$/p' Docs/Security.md | tail -n +3 |
    sed 's/^| *//; s/ *|$//; s/ *| */|/g; s/`//g' | grep .)
[ ${#rows[@]} -gt 0 ] || fail "Docs/Security.md has no table of rights"

port=5600 last=
has_podman=false
if ! command -v podman >/dev/null; then
    reason="podman is not installed"
elif ! prepare_podman; then
    reason="no cgroup version 2, or no /etc/subuid"
else
    has_podman=true
fi
for row in "${rows[@]}"; do
    name=${row%%|*}
    [ -n "${environment[$name]:-}" ] || fail "no such environment: $name"
    case ${environment[$name]} in
    podman-*) $has_podman || { skipped+=("$name"); continue; } ;;
    esac
    if [ "$name" != "$last" ]; then
        [ -z "$last" ] || stop_agents "${environment[$last]}"
        start_agents "${environment[$name]}"
        last=$name
    fi
    check "$row"
done
stop_agents "${environment[$last]}"
rmdir /sys/fs/cgroup/libpod_parent 2>/dev/null || true
[ ${#skipped[@]} -eq 0 ] || echo "skipped: ${#skipped[@]} rows in containers: $reason"
[ $bad = 0 ] || fail "$bad of $cells cells are wrong"
echo "ok  $cells cells"
