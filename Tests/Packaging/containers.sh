#!/bin/bash
# Tests the selectors by unit, container, pod, cgroup and command with real ones: podman's containers (two of one image,
# a pod of two, a rootless one), a unit's cgroup, two JVMs and two Python scripts. Each selector finds exactly its own:
# by itself, in one file of rules by cron's command, and by the image of cron/image.sh, rootful and rootless. Then the
# manifests of cron/kubernetes run by podman kube play.
#
#   containers.sh [PROGRAM]
#
# PROGRAM is static. The script installs podman, buildah, bpftool and a JRE, and is skipped where they cannot be had.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh

if [ -z "${CONTAINERS_ROOM:-}" ]; then
    [ "$(id -u)" = 0 ] || skip "only root has rootful containers"
    [ -e /etc/subuid ] || skip "no /etc/subuid: rootless containers have no users"
    # The images of other systems have their own.
    (install_missing podman buildah runc uidmap bpftool default-jre-headless python3) >/dev/null 2>&1 ||
        skip "podman, buildah, runc, bpftool or a JRE cannot be installed"
    work=$(mktemp -d /var/tmp/sockalive-containers.XXXXXX)
    chmod 755 "$work"
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/bin" "$work/classes" "$work/root" "$work/nobody"
    chown 65534 "$work/nobody"
    cp "${1:-$(static_program)}" "$work/bin/sockalive"
    Tests/Programs/build.sh "$work/programs"
    cp "$work/programs/self-connected" "$work/bin/agent"
    python3 Tests/Packaging/jvm-class.py "$work/classes" Idle Orders
    CONTAINERS_ROOM=$work unshare --mount --net --pid --fork --kill-child --mount-proc bash "$0"
    exit
fi

# --- from here on in its own namespaces ---

room=$CONTAINERS_ROOM
sockalive=$room/bin/sockalive
ip link set lo up
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
# Containers want cgroup version 2 alone.
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup || skip "no cgroup version 2"
mount --make-rshared /
cgroups=/sys/fs/cgroup
user_cgroup=$cgroups/user.slice/user-65534.slice/user@65534.service
for kind in subuid subgid; do
    echo "nobody:100000:65536" >"/run/$kind"
    mount --bind "/run/$kind" "/etc/$kind"
done
# The limits are those that any machine allows.
cat >/run/containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000", "memlock=8192:8192"]
pids_limit = 0
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
END
# podman 4.3 does not know hostPID of a pod.
sed '/^default_ulimits/i pidns = "host"' /run/containers.conf >/run/host-pid.conf

# podman_as USER WORD…: podman with storage of its own. A rootless one is started in its user's part of the cgroups, as
# systemd would start it, and makes those of its containers there.
podman_as() {
    local user=$1 become=() inside=()
    shift
    if [ "$user" = nobody ]; then
        become=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all)
        # shellcheck disable=SC2016 # the inner shell expands them
        inside=(sh -c 'echo $$ >"$0" && exec "$@"' "$user_cgroup/app.slice/cgroup.procs")
    fi
    (cd "$room/$user" && "${inside[@]}" "${become[@]}" env "HOME=$room/$user" "XDG_RUNTIME_DIR=$room/$user" \
        "CONTAINERS_CONF=${containers_conf:-/run/containers.conf}" podman --root "$room/$user/storage" \
        --runroot "$room/$user/run" --storage-driver vfs "$@" </dev/null)
}

finish() {
    local user
    for user in root nobody; do podman_as "$user" pod rm --force --time 0 --all || true; done >/dev/null 2>&1
    for user in root nobody; do podman_as "$user" rm --force --time 0 --all || true; done >/dev/null 2>&1
    [ ${#agents[@]} -eq 0 ] || kill -KILL "${agents[@]}" 2>/dev/null || true
    sleep 0.2
    for folder in system.slice/sockalive-lab.service libpod_parent user.slice; do
        find "$cgroups/$folder" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}
agents=()
trap finish EXIT
mkdir -p "$user_cgroup/app.slice" "$cgroups/system.slice/sockalive-lab.service"
chown -R 65534 "$user_cgroup"

# make_image USER NAME FILE: an image from one program
make_image() {
    local container options=(--root "$room/$1/storage" --runroot "$room/$1/run" --storage-driver vfs)
    container=$(buildah "${options[@]}" from scratch)
    buildah "${options[@]}" copy --quiet "$container" "$3" / >/dev/null
    buildah "${options[@]}" commit --quiet "$container" "$2" >/dev/null
    buildah "${options[@]}" rm "$container" >/dev/null
}

# own_image: the image of cron/image.sh, twice the same
own_image() {
    local first second
    export BUILDAH_OPTIONS="--root $room/root/storage --runroot $room/root/run --storage-driver vfs"
    first=$(cron/image.sh --program "$sockalive" --name localhost/sockalive:test --archive "$room/sockalive.tar")
    sleep 1
    second=$(cron/image.sh --program "$sockalive" --name localhost/sockalive:test)
    if [ -z "$first" ] || [ "$first" != "$second" ]; then fail "two images: $first, $second"; fi
    unset BUILDAH_OPTIONS
    chmod 644 "$room/sockalive.tar"
    echo "ok  one image: $first"
}

# allow_devices: podman's driver cgroupfs denies every device to a pod, /dev/null, too, which runc then cannot open.
allow_devices() {
    local folder id
    for folder in "$cgroups"/libpod_parent/*/; do
        for id in $(bpftool cgroup show "$folder" 2>/dev/null | awk '/cgroup_device/ { print $1 }'); do
            bpftool cgroup detach "$folder" cgroup_device id "$id"
        done
    done
}

declare -A pid
# wait_for NAME COMMAND…: waits until the command prints the PID of NAME's only process
wait_for() {
    local name=$1 found
    shift
    for _ in $(seq 300); do
        found=$("$@" 2>/dev/null) || true
        if [[ $found =~ ^[1-9][0-9]*$ ]]; then
            pid[$name]=$found
            return
        fi
        sleep 0.1
    done
    fail "$name did not come up: $found"
}

# contain USER NAME WORD…: a container of the image "agent", with a connection to itself
contain() {
    local user=$1 name=$2
    shift 2
    podman_as "$user" run --detach --name "$name" --log-driver none "$@" localhost/agent /agent "$port" >/dev/null ||
        fail "no container $name"
    port=$((port + 1))
    wait_for "$name" podman_as "$user" inspect --format '{{.State.Pid}}' "$name"
}

# start NAME COMMAND…: a process here, with a connection
start() {
    local name=$1
    shift
    "$@" >/dev/null 2>&1 &
    pid[$name]=$!
    agents+=("$!")
    disown
}

start_targets() {
    port=7100
    make_image root localhost/agent "$room/bin/agent"
    podman_as root save --quiet --format oci-archive --output "$room/agent.tar" localhost/agent >/dev/null 2>&1 ||
        fail "the image of the targets cannot be saved"
    chmod 644 "$room/agent.tar"
    podman_as nobody load --quiet --input "$room/agent.tar" >/dev/null || fail "a user cannot load the image"
    contain root one --network none
    contain root two --network none
    podman_as root pod create --name shop --network none >/dev/null
    allow_devices
    contain root billing --pod shop
    contain root stock --pod shop
    contain nobody less --network none
    start unit "$room/bin/agent" $((port++))
    echo "${pid[unit]}" >"$cgroups/system.slice/sockalive-lab.service/cgroup.procs"
    # The peer of the interpreters; as a target it has their ports, too.
    mkfifo /run/to-peer
    "$room/programs/echo-peer" listen 127.0.0.1 7999 4 <>/run/to-peer >"/run/peer" 2>&1 &
    agents+=("$!")
    disown
    until grep -qs listening /run/peer; do sleep 0.05; done
    local script='import socket, sys, time; s = socket.create_connection(("127.0.0.1", 7999)); time.sleep(1e6)'
    for name in agent.py report.py; do
        echo "$script" >"$room/bin/$name"
        start "$name" "$(python3 -c 'import sys; print(sys.executable)')" "$room/bin/$name"
    done
    start Idle java -Xshare:auto -cp "$room/classes" Idle 7999
    start Orders java -Xshare:auto -cp "$room/classes" Orders 7999
    for _ in $(seq 300); do
        [ "$(ss -Htn state established '( dport = :7999 )' | wc -l)" = 4 ] && return
        sleep 0.1
    done
    fail "the interpreters did not connect"
}

# found COMMAND…: the names of the targets in the JSON that the command prints
found() {
    local said
    said=$("$@" 2>/run/errors) || fail "$*: $(cat /run/errors)"
    for name in "${!pid[@]}"; do echo "$name=${pid[$name]}"; done | python3 -c '
import json, sys
names = {int(pid): name for name, pid in (line.split("=") for line in sys.stdin.read().split())}
sockets = json.loads(sys.argv[1])["sockets"]
print(*sorted({names.get(s["pid"], str(s["pid"])) for s in sockets}))' "$said"
}

# expect NAMES OPTION…: the options find exactly these targets
checks=0
expect() {
    local wanted=$1 got
    shift
    got=$(found "${run[@]}" list --any-port --json "$@")
    [ "$got" = "$wanted" ] || fail "${run[0]##*/} list $*: found \"$got\", not \"$wanted\""
    checks=$((checks + 1))
}

id_of() { podman_as "$1" inspect --format '{{.Id}}' "$2"; }

expect_each() {
    expect one --container one
    expect two --container two
    expect one --container "$(id_of root one | cut -c 1-12)"
    expect "billing stock" --pod shop
    expect stock --pod shop --container stock
    expect "billing stock" --pod "$(podman_as root pod inspect --format '{{.Id}}' shop | cut -c 1-12)"
    expect less --container less
    expect less --container "$(id_of nobody less)"
    expect less --unit user@65534 --process agent
    expect unit --unit sockalive-lab
    expect "" --unit sockalive-lab --process other
    expect unit --cgroup '/system.slice/sockalive-*.service'
    expect less --cgroup '/user.slice/user-65534.slice'
    expect Idle --command Idle
    expect Orders --command Orders
    expect agent.py --command agent.py
    expect report.py --command "$room/bin/report.py" --process python3 --process "$(basename "$(readlink -f "/proc/${pid[report.py]}/exe")")"
    expect "agent.py report.py" --command agent.py --command report.py --user root
}

# One rule for each kind, with a timeout of its own, so that the answer tells which rule a socket counts to.
write_rules() {
    mkdir -p "$room/rules"
    cat >"$room/rules/sockalive.conf" <<END
--container one --any-port --firewall-timeout 31m
--container $(id_of root two | cut -c 1-12) --any-port --firewall-timeout 32m
--pod shop --any-port --firewall-timeout 33m
--container less --any-port --firewall-timeout 34m
--unit sockalive-lab --any-port --firewall-timeout 35m
--command Idle --port 7999 --firewall-timeout 36m
--command agent.py --port 7999 --firewall-timeout 37m
END
    wanted_rules="one 31 two 32 billing 33 stock 33 less 34 unit 35 Idle 36 agent.py 37"
}

# judge_rules FILE: each target has the timeout of its rule, and no other target is there
judge_rules() {
    for name in "${!pid[@]}"; do echo "$name=${pid[$name]}"; done | python3 -c '
import json, sys
names = {int(pid): name for name, pid in (line.split("=") for line in sys.stdin.read().split())}
words = sys.argv[2].split()
wanted = dict(zip(words[::2], map(int, words[1::2])))
found = {}
for socket in json.load(open(sys.argv[1]))["sockets"]:
    found.setdefault(names.get(socket["pid"], socket["pid"]), set()).add(socket["firewall_timeout"] // 60)
assert found == {name: {minutes} for name, minutes in wanted.items()}, (found, wanted)
' "$1" "$wanted_rules"
}

# keepalive_of PID: the idle time of its connections; 0 where keepalive is off
keepalive_of() {
    "$sockalive" list --pid "$1" --any-port --json | python3 -c '
import json, sys
print(*{s["keepalive"]["idle"] if s["keepalive"]["enabled"] else 0 for s in json.load(sys.stdin)["sockets"]})'
}

# contained USER [OPTION]…: the run of the image over all processes, with the smallest rights
contained() {
    run=(podman_as "$1" run "${@:2}" --rm --log-driver none --pid=host --network=none --read-only --cap-drop all
        --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH --security-opt no-new-privileges
        --volume "$room/rules:/etc/sockalive:ro" localhost/sockalive:test)
}

own_image
start_targets
echo "ok  targets: ${!pid[*]}"

run=("$sockalive")
expect_each
echo "ok  $checks selections on the host"

write_rules
"$sockalive" list --config "$room/rules/sockalive.conf" --json >/run/answer || fail "the file of rules"
judge_rules /run/answer
# The line of cron, with another file and without a system log.
cron=$(sed -n 's/^\*[^#]* root sockalive //p' cron/sockalive | sed "s|/etc/sockalive.conf|$room/rules/sockalive.conf|; s/ --syslog//")
# shellcheck disable=SC2086 # the line is words
[ -z "$("$sockalive" $cron --metrics /run/sockalive.prom 2>&1)" ] || fail "cron's command says something"
[ "$(keepalive_of "${pid[less]}")" = 340 ] || fail "cron's command did not set the keepalive of the rootless container"
[ "$(keepalive_of "${pid[Orders]}")" = 0 ] || fail "cron's command changed what no rule names"
grep -q '^sockalive_candidates{rule="--pod shop --any-port --firewall-timeout 33m"} 4$' /run/sockalive.prom ||
    fail "the metrics do not tell the pod's candidates: $(grep candidates /run/sockalive.prom)"
echo "ok  the same in one file of rules, and by cron's command"

contained root
checks=0
expect one --container one
expect two --container "$(id_of root two)"
expect less --container less
expect unit --unit sockalive-lab
expect Idle --command Idle
# Not a right: it shows the whole paths, which podman's driver cgroupfs needs to tell a pod from a container.
contained root --cgroupns=host
expect "billing stock" --pod shop
expect stock --container stock
expect less --cgroup /user.slice
"${run[@]}" list --config /etc/sockalive/sockalive.conf --json >/run/answer || fail "the image with the file of rules"
judge_rules /run/answer
"${run[@]}" inject --off --container two --any-port --no-lock >/run/answer 2>&1 || fail "the image: $(cat /run/answer)"
"${run[@]}" inject --container two --any-port --firewall-timeout 20m --no-lock >/run/answer 2>&1 ||
    fail "the image: $(cat /run/answer)"
[ "$(keepalive_of "${pid[two]}")" = 200 ] || fail "the image did not set keepalive"
echo "ok  $checks selections and the file of rules by the image, rootful"

podman_as nobody load --quiet --input "$room/sockalive.tar" >/dev/null
contained nobody
checks=0
expect less --container less
expect less --container "$(id_of nobody less)"
for change in --off "--firewall-timeout 10m"; do
    # shellcheck disable=SC2086 # an option and its value
    "${run[@]}" inject --container less --any-port --no-lock $change >/run/answer 2>&1 ||
        fail "the rootless image: $(cat /run/answer)"
done
[ "$(keepalive_of "${pid[less]}")" = 100 ] || fail "the rootless image did not set keepalive"
echo "ok  $checks selections by the image, rootless"

# --- Kubernetes ---

# play NAME MANIFEST: starts the pod of a manifest. podman 4.3 knows no DaemonSet: its template is that of a Deployment.
play() {
    local manifest=/run/$1.yaml
    # The version 2 of the cgroups of this machine may have no controller of memory.
    sed -e '/^ *resources:/d' -e '/^ *requests:/,+2d' -e '/^ *limits:/,+1d' -e 's/^kind: DaemonSet/kind: Deployment/' -e 's|localhost/sockalive:[0-9.]*|localhost/sockalive:test|' \
        -e "s|/var/lib/node_exporter/textfile_collector|$room/metrics|" -e "s|registry.example.com/orders:1.0|localhost/agent|" \
        "$2" >"$manifest"
    podman_as root kube play --network none --start=false "$manifest" >/run/play 2>&1 || fail "kube play $2: $(cat /run/play)"
    allow_devices
}

mkdir -p "$room/metrics"
"$sockalive" inject --off --container less --any-port --no-lock --quiet || fail "keepalive cannot be turned off"
# shellcheck disable=SC2016 # the rules of the test instead of the examples
awk -v rules="--container less --any-port --firewall-timeout 15m" '
    /sockalive.conf: \|/ { print; print "    " rules; skip = 1; next }
    skip && /^---/ { skip = 0 }
    !skip' cron/kubernetes/daemonset.yaml >/run/manifest.yaml
containers_conf=/run/host-pid.conf
play daemonset /run/manifest.yaml
podman_as root pod start sockalive-pod-0 >/run/play 2>&1 || fail "the pod of the DaemonSet: $(cat /run/play)"
containers_conf=
for _ in $(seq 300); do
    grep -qs 'sockalive_protected{rule="--container less --any-port --firewall-timeout 15m"} 2$' "$room/metrics/sockalive.prom" &&
        break
    sleep 0.1
done
grep -q 'sockalive_protected{rule="--container less --any-port --firewall-timeout 15m"} 2$' "$room/metrics/sockalive.prom" ||
    fail "the DaemonSet: $(cat "$room/metrics/sockalive.prom"; podman_as root logs sockalive-pod-0-sockalive 2>&1)"
[ "$(keepalive_of "${pid[less]}")" = 150 ] || fail "the DaemonSet did not set keepalive"
# SIGTERM ends it; else it would be killed after 10 seconds, with 137.
begin=$(date +%s%N)
podman_as root stop --time 10 sockalive-pod-0-sockalive >/dev/null
took=$((($(date +%s%N) - begin) / 1000000))
status=$(podman_as root inspect --format '{{.State.ExitCode}}' sockalive-pod-0-sockalive)
if [ "$status" != 0 ] || [ $took -ge 9000 ]; then fail "SIGTERM: exit $status after $took ms"; fi
podman_as root pod rm --force --time 0 sockalive-pod-0 >/dev/null
echo "ok  the DaemonSet's pod protects a rootless target, writes metrics, and ends $took ms after SIGTERM"

# shellcheck disable=SC2016
awk -v rules="--any-process --any-port --firewall-timeout 12m" '
    /sockalive.conf: \|/ { print; print "    " rules; skip = 1; next }
    skip && /^---/ { skip = 0 }
    /image: registry/ { print; print "      args: [/agent, \"7500\"]"; next }
    !skip' cron/kubernetes/sidecar.yaml >/run/manifest.yaml
play sidecar /run/manifest.yaml
podman_as root pod start orders >/run/play 2>&1 || fail "the pod with the sidecar: $(cat /run/play)"
wait_for app podman_as root inspect --format '{{.State.Pid}}' orders-app
for _ in $(seq 100); do
    [ "$(keepalive_of "${pid[app]}")" = 120 ] && break
    sleep 0.1
done
[ "$(keepalive_of "${pid[app]}")" = 120 ] || fail "the sidecar: $(podman_as root logs orders-sockalive 2>&1)"
[ "$(keepalive_of "${pid[Orders]}")" = 0 ] || fail "the sidecar reached beyond its pod"
echo "ok  the sidecar protects its pod, and nothing else"
