#!/bin/bash
# Measures on one host of world.sh, and writes the results into a folder.
#
#   BENCH=FOLDER RESULTS=FOLDER ROUNDS=N scenes.sh busy PROCESSES CONNECTIONS TARGETS
#                                                  one COUNT        all sockets in one process
#                                                  pause BITS REST COUNT [other|undumpable]   the target's owner
#                                                  owner COUNT      sockets of root, and of another user
#                                                  probe COUNT
#                                                  remember COUNT   by ptrace, the first run and later ones
#                                                  gap
#                                                  guard RATE SECONDS     connections with a guard, and without
#                                                  watch SECONDS PROCESSES CONNECTIONS TARGETS
#                                                  large NAME PROCESSES CONNECTIONS NAMESPACES TARGETS
#
# Each round runs every command in turn, so a slow minute of the machine affects all of them.
set -eu
# shellcheck source=Tests/lib.sh
. Tests/lib.sh
sockalive=$BENCH/sockalive

# Starts the host's processes, and waits until their connections are established.
start() {
    exec {up}< <(exec "$@")
    read -r -t 120 _ <&"$up" || { echo "bench: $* did not come up" >&2 && exit 70; }
}

# measure NAME RUNS [--prepare COMMAND] COMMAND: measures the times of one round
measure() {
    local name=$1 runs=$2
    shift 2
    hyperfine --shell=none --style none --warmup 1 --runs "$runs" --command-name "$name" \
        --export-json "$RESULTS/$name.$round.json" "$@" >"$RESULTS/log" 2>&1 || { cat "$RESULTS/log" >&2 && exit 70; }
}

# memory NAME COMMAND...: measures the peak memory of all its processes, in KiB
memory() {
    "$PYTHON" Tests/Bench/memory.py $((ROUNDS * 10)) "${@:2}" >"$RESULTS/$1.memory"
}

# Puts the targets into a unit and a container, as a quadlet would, where cgroups can be made.
bench_id=$(printf '0123456789abcdef%.0s' 1 2 3 4)
place() {
    local root folder pid
    root=$(cgroup_mount)
    folder=$root/system.slice/sockalive-bench.service/libpod-payload-$bench_id
    mkdir -p "$folder" 2>"$RESULTS/log" || return 1
    # shellcheck disable=SC2064 # the variables are of this function
    trap "unplace '$root' '$folder'" EXIT
    for pid in $(pgrep -x beremote); do echo "$pid" >"$folder/cgroup.procs" || return 1; done
}

unplace() {
    local pid
    while read -r pid; do echo "$pid" >"$1/cgroup.procs" || true; done < <(pgrep -x beremote)
    rmdir "$2" "${2%/*}" 2>"$RESULTS/log" || true
}

busy() {
    local is_placed=true
    local ports='( sport = :5633 or dport = :5633 )' round
    start "$BENCH/busy-host" host 10.9.0.2 "$1" "$2" "$3"
    place || is_placed=false
    for ((round = 0; round < ROUNDS; round++)); do
        if $is_placed; then
            measure list-unit 20 "$sockalive list --unit sockalive-bench"
            measure list-container 20 "$sockalive list --container ${bench_id:0:12}"
        fi
        measure true 40 /bin/true
        measure version 40 "$sockalive --version"
        measure nothing 40 "$sockalive list --quiet --pid 2147483647"
        measure list 20 "$sockalive list"
        measure ss 6 "ss -tnp state established '$ports'"
        measure lsof 4 "lsof -nP -iTCP:5633 -sTCP:ESTABLISHED"
        measure netstat 4 "netstat -tnp"
        measure pgrep 8 "pgrep -x beremote"
        measure inject 10 --prepare "$BENCH/keepalive off" "$sockalive inject --quiet"
        measure python 6 --prepare "$BENCH/keepalive off" "$PYTHON $BENCH/keepalive.py"
        measure inject-unchanged 20 "$sockalive inject --quiet"
    done
    stat --format %s "$sockalive" >"$RESULTS/size"
    memory list "$sockalive" list
    memory inject "$sockalive" inject --quiet
}

one() {
    local reset=(--prepare "$BENCH/keepalive off") round
    start "$BENCH/busy-host" many 10.9.0.2 "$1" recv none
    for ((round = 0; round < ROUNDS; round++)); do
        measure "inject@$1" 6 "${reset[@]}" "$sockalive inject --quiet --method pidfd"
        measure "c@$1" 6 "${reset[@]}" "$BENCH/keepalive"
        measure "python@$1" 3 "${reset[@]}" "$PYTHON $BENCH/keepalive.py"
        # All sockets are set by now.
        measure "table@$1" 3 "$sockalive inject --method pidfd"
        measure "json@$1" 3 "$sockalive inject --method pidfd --json"
    done
    "$BENCH/keepalive" off >"$RESULTS/log"
    memory "inject@$1" "$sockalive" inject --quiet --method pidfd
    memory "table@$1" "$sockalive" inject --method pidfd
    memory "json@$1" "$sockalive" inject --method pidfd --json
}

# The first run stops the target for each socket, and the later ones look at the timers.
remember() {
    local round
    start "$BENCH/busy-host" many 10.9.0.2 "$1" recv none
    for ((round = 0; round < ROUNDS; round++)); do
        measure "ptrace@$1" 2 --prepare "$BENCH/keepalive off" "$sockalive inject --quiet --method ptrace"
        measure "ptrace-again@$1" 6 "$sockalive inject --quiet --method ptrace"
    done
}

# guard RATE SECONDS: in $RESULTS/guard a line "with|without MEDIAN PROCESSOR" for each turn
guard() {
    local round mount cgroup
    mount=$(cgroup_mount)
    cgroup=$mount/sockalive-bench-$BASHPID
    # What is pinned in it ends with this scene.
    mount -t bpf bpf /sys/fs/bpf || return 0
    ip link set lo up
    mkdir "$cgroup"
    if "$sockalive" guard on --quiet --cgroup "/${cgroup##*/}" --any-port; then
        for ((round = 0; round < ROUNDS; round++)); do
            "$sockalive" guard off --quiet --all
            echo "without $("$BENCH/connects" "$cgroup" 7001 "$1" "$2")" >>"$RESULTS/guard"
            "$sockalive" guard on --quiet --cgroup "/${cgroup##*/}" --any-port
            echo "with $("$BENCH/connects" "$cgroup" 7001 "$1" "$2")" >>"$RESULTS/guard"
        done
    fi
    rmdir "$cgroup"
}

nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all env)

pause() {
    local round launcher=() program=$BENCH/busy-host-$1 rights=owner
    touch "$RESULTS/gap"
    chmod 666 "$RESULTS/gap"
    case ${4:-} in
    other) launcher=("${nobody[@]}") ;;
    undumpable)
        # An executable that its user may not read is undumpable, so each of its calls is checked.
        launcher=("${nobody[@]}") program=$BENCH/unreadable-$1 rights=kept
        cp "$BENCH/busy-host-$1" "$program"
        chmod 711 "$program"
        ;;
    esac
    start "${launcher[@]}" "$program" many 10.9.0.2 "$3" "$2" "$RESULTS/gap"
    for ((round = 0; round < ROUNDS; round++)); do
        "$BENCH/keepalive" off >"$RESULTS/log"
        "$sockalive" inject --method ptrace --timeout 60s --json >"$RESULTS/pause-$1-$2${4:+-$4}.$round.pauses"
    done
    grep -q "\"rights\" : \"$rights\"" "$RESULTS/pause-$1-$2${4:+-$4}.0.pauses" ||
        { echo "bench: other rights than $rights" >&2 && exit 70; }
}

owner() {
    local round up
    start "$BENCH/busy-host" many 10.9.0.2 "$1" recv none
    for ((round = 0; round < ROUNDS; round++)); do
        measure owner-root 20 --prepare "$BENCH/keepalive off" "$sockalive inject --quiet"
    done
    pkill -x beremote
    while pgrep -x beremote >"$RESULTS/log"; do sleep 0.05; done
    start "${nobody[@]}" "$BENCH/busy-host" many 10.9.0.2 "$1" recv none
    for ((round = 0; round < ROUNDS; round++)); do
        measure owner-other 20 --prepare "$BENCH/keepalive off" "$sockalive inject --quiet"
    done
}

# All connections have been idle for more than a second, which is the least TCP_KEEPIDLE.
probe() {
    local round method
    start "$BENCH/busy-host" many 10.9.0.2 "$1" recv none
    for ((round = 0; round < ROUNDS; round++)); do
        for method in pidfd ptrace; do
            measure "probe-$method@$1" 1 --prepare 'sleep 1.5' "$sockalive probe --quiet --method $method"
        done
    done
}

# Runs a command and records the longest time that a target that never sleeps was stopped meanwhile.
standing_still() {
    local name=$1
    shift
    "$BENCH/keepalive" off >"$RESULTS/log"
    head -c 8 /dev/zero | dd of="$RESULTS/gap" conv=notrunc status=none
    "$@" >"$RESULTS/log" 2>&1 || return 1
    od -A n -t u8 "$RESULTS/gap" >>"$RESULTS/$name.gaps"
}

gap() {
    local round pid fd call=()
    start "$BENCH/busy-host" many 10.9.0.2 1 spin "$RESULTS/gap"
    pid=$(pgrep -x beremote)
    fd=$("$sockalive" list | awk 'NR == 2 { print $3 }')
    # SO_KEEPALIVE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_KEEPIDLE, as an administrator would type them.
    for option in '1, 9, 1' '6, 5, 60' '6, 6, 50' '6, 4, 600'; do
        call+=(-ex "set {int}(\$sp - 4096) = ${option##*, }" -ex "call (int)setsockopt($fd, ${option%,*}, \$sp - 4096, 4)")
    done
    for ((round = 0; round < ROUNDS; round++)); do
        standing_still nothing sleep 0.2
        standing_still pidfd "$sockalive" inject --method pidfd
        standing_still ptrace "$sockalive" inject --method ptrace
        # It writes no registers of some processors.
        if ! standing_still gdb gdb -nx -batch -p "$pid" "${call[@]}"; then
            echo "bench: without gdb: $(grep -m1 -i "couldn't\|error" "$RESULTS/log" || tail -n 1 "$RESULTS/log")" >&2
            rm -f "$RESULTS/gdb.gaps"
            break
        fi
        "$sockalive" list --check >"$RESULTS/log" || { echo "bench: gdb did not set keepalive" >&2 && exit 70; }
    done
}

# Network namespaces of the large host, behind this one: their files.
add_namespaces() {
    local number name
    echo 1 >/proc/sys/net/ipv4/ip_forward
    for ((number = 1; number <= $1; number++)); do
        name=part$number
        ip netns add "$name"
        ip -batch - <<END
link add to_$name type veth peer name eth0 netns $name
address add 10.10.$number.1/24 dev to_$name
link set to_$name up
END
        ip -netns "$name" -batch - <<END
address add 10.10.$number.2/24 dev eth0
link set eth0 up
link set lo up
route add default via 10.10.$number.1
END
        echo "/run/netns/$name"
    done
}

# large NAME PROCESSES CONNECTIONS NAMESPACES TARGETS: in $RESULTS/NAME.large what was measured
large() {
    local name=$1 targets=$5 round places place found start seconds
    mapfile -t places < <(add_namespaces "$4")
    start "$BENCH/busy-host" large 10.9.0.2 "$2" "$3" "$targets" "${places[@]}"
    # Nothing is missing: the targets' sockets, from all namespaces that they are spread over.
    found=$("$sockalive" list --json | "$PYTHON" -c '
import json, sys
sockets = json.load(sys.stdin)["sockets"]
print(len(sockets), len({socket["netns"] for socket in sockets}))')
    [ "$found" = "$((targets * 4)) $(($4 < targets ? $4 : targets))" ] ||
        { echo "bench: list finds $found sockets and namespaces on the large host" >&2 && exit 70; }
    for ((round = 0; round < ROUNDS; round++)); do measure "large-list@$name" 4 "$sockalive list"; done
    memory "large@$name" "$sockalive" list
    # As an administrator would look into each of them. Once is enough: it takes a minute on the largest host.
    start=${EPOCHREALTIME/./}
    for place in "${places[@]}"; do
        nsenter --net="$place" ss -tnp state established '( sport = :5633 or dport = :5633 )'
    done >"$RESULTS/log"
    seconds=$((${EPOCHREALTIME/./} - start))e-6
    [ "$(grep -c '"beremote"' "$RESULTS/log")" = $((targets * 4)) ] ||
        { echo "bench: ss finds other sockets on the large host" >&2 && exit 70; }
    echo "{\"results\": [{\"command\": \"large-ss@$name\", \"times\": [$seconds]}]}" >"$RESULTS/large-ss@$name.json"
    echo "$2 $3 $4" >"$RESULTS/$name.large"
}

watch() {
    local TIMEFORMAT='%U %S %R'
    start "$BENCH/busy-host" host 10.9.0.2 "$2" "$3" "$4"
    { time timeout "$1" "$sockalive" watch --every 5s --quiet >"$RESULTS/log" || [ $? = 124 ]; } 2>"$RESULTS/watch.cpu"
}

"$@"
