#!/bin/bash
# Lets a call about a target hang, in each way that is known, and checks that sockalive protects the other targets, names
# the process that hangs, ends in time, hears SIGTERM, and leaves the lock free. N rounds (5) of each case, each in
# namespaces of its own. Prints the longest times. Needs root, FUSE and cgroup v2.
# Usage: Tests/Torture/hang.sh [N [CASE…]]; SOCKALIVE=PATH uses a built program, VICTIMS=FOLDER the output of build.sh,
# SLACK=SECONDS is added to every limit, for a machine that is busy; JOBS=NUMBER (1) is how many cases run at once.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cases=(child stranger strangers elsewhere slow slows exe program seize code lock many table frozen holders output metrics
    config)
slack=$((${SLACK:-0} * 1000))
# Milliseconds: a run with --timeout 3s; after SIGTERM; a run whose own files do not answer.
run_limit=$((4000 + slack)) term_limit=$((1000 + slack)) file_limit=$((5000 + slack))

# ---- inside the namespaces -----------------------------------------------------------

# wrong TEXT…: counts it, and prints what the last run said.
wrong() {
    printf 'wrong: %s: %s\n' "$case" "$*"
    sed 's/^/    /' "$work/said" "$work/out" 2>/dev/null || true
    failed=1
}

milliseconds() { echo $(("${EPOCHREALTIME/[.,]/}" / 1000)); }

# note KIND TIME LIMIT: keeps the time, which must not be over the limit.
note() {
    echo "time $1 $2"
    [ "$2" -le "$3" ] || wrong "$1 took $2 ms"
}

# limited KIND LIMIT ARGUMENT…: runs sockalive; its exit code is in $status, its output in $work/out and $work/said.
limited() {
    local kind=$1 limit=$2 start
    shift 2
    start=$(milliseconds)
    status=0
    timeout --signal KILL 60 "$SOCKALIVE" "$@" >"$work/out" 2>"$work/said" || status=$?
    note "$kind" $(($(milliseconds) - start)) "$limit"
}

# tell WORD: to the scene.
tell() {
    echo "$1" >&"${scene[1]}"
    read -r -t 20 _ <&"${scene[0]}" || wrong "the scene does not answer"
}

# Whether every healthy connection has keepalive after so many seconds.
is_protected() { # IDLE
    local agent
    for agent in "${healthy[@]}"; do
        [ "$("$VICTIMS/read-keepalive" "${agent%:*}" "${agent#*:}")" = "1 $1 60 50 0" ] || return 1
    done
}

# Whether the table has each healthy connection as protected. A slow agent may have some, too.
shows_healthy() {
    local agent
    for agent in "${healthy[@]}"; do
        grep -q "^ *${agent%:*} .* ${agent#*:} .* protected" "$work/out" || return 1
    done
}

until_protected() { # IDLE
    local end=$(($(milliseconds) + 20000))
    until is_protected "$1"; do
        [ "$(milliseconds)" -lt $end ] || { wrong "not protected with --idle $1"; return; }
        sleep 0.05
    done
}

# comm is the only file of a process that does not wait for it. It has at most 15 bytes.
left_behind() {
    local name=${SOCKALIVE##*/}
    { grep -lxF "${name:0:15}" /proc/[0-9]*/comm || true; } 2>/dev/null | wc -l
}

# At most so many are left. The worker of a run that has ended may need a moment to end, too.
expect_left_behind() { # MOST AFTER
    local k
    for ((k = 0; k < 50; k++)); do
        [ "$(left_behind)" -gt "$1" ] || return 0
        sleep 0.1
    done
    wrong "$(left_behind) processes are left behind after $2, and at most $1 may be"
}

# Nothing hangs any more.
release() {
    tell release
    expect_left_behind 0 "nothing hangs any more"
}

expect_free_lock() { flock --nonblock /run/sockalive.lock true || wrong "the lock is held after $1"; }

run_inject() { # IDLE
    limited inject $run_limit inject --timeout 3s --idle "$1" "${options[@]}"
    [ "$status" = "$expected" ] || wrong "inject ended with $status"
    grep -q "$words" "$work/said" || wrong "inject does not say: $words"
    is_protected "$1" || wrong "inject did not reach the healthy agents"
    expect_free_lock inject
}

# await KIND LIMIT PID: waits for its end; its exit code is in $status.
await() {
    local start guard
    start=$(milliseconds)
    { sleep 30 && kill -KILL "$3"; } &
    guard=$!
    status=0
    wait "$3" || status=$?
    kill $guard
    note "$1" $(($(milliseconds) - start)) "$2"
}

# A signal comes while the run hangs.
interrupt_inject() {
    local injector
    rm -f /run/sockalive.hung
    "$SOCKALIVE" inject --idle 610 "${options[@]}" >"$work/out" 2>"$work/said" &
    injector=$!
    sleep 0.3
    kill -0 "$injector" 2>/dev/null || wrong "inject did not hang"
    kill -TERM "$injector"
    await SIGTERM "$term_limit" "$injector"
    expect_free_lock SIGTERM
}

# The worker does not outlive its parent, if the kernel can kill it.
kill_parent() {
    local injector before
    rm -f /run/sockalive.hung
    before=$(left_behind)
    "$SOCKALIVE" inject --idle 611 "${options[@]}" >"$work/out" 2>"$work/said" &
    injector=$!
    sleep 0.8
    kill -KILL $injector
    wait $injector 2>/dev/null || true
    expect_free_lock "a kill of the parent"
    expect_left_behind "$before" "a kill of the parent"
}

# It tells of the failure once, and protects what is new in every round.
run_watch() {
    local watch idle told
    rm -f /run/sockalive.hung
    "$SOCKALIVE" watch --every 1 --timeout 3s --idle 620 "${options[@]}" >"$work/out" 2>"$work/said" &
    watch=$!
    for idle in 620 620 620; do
        until_protected $idle
        tell off
    done
    kill -TERM $watch
    await watch "$term_limit" $watch
    [ "$status" = 0 ] || wrong "watch ended with $status"
    told=$(grep -c "PID $hanging " "$work/said" || true)
    [ "$told" = "${tellings:-$told}" ] || wrong "watch told $told times"
    expect_free_lock watch
}

# The times and results of every command, while something hangs.
check_commands() {
    local before idle
    for idle in 601 602 603; do
        run_inject $idle
        expect_left_behind "$leaves" "run $((idle - 600))"
    done
    # A run without the lock, too, remembers where a process was left behind.
    rm -f /run/sockalive.hung
    before=$(left_behind)
    limited list $run_limit list --timeout 3s "${options[@]}"
    limited list $run_limit list --timeout 3s "${options[@]}"
    shows_healthy || wrong "list does not show the healthy agents"
    expect_left_behind $((before + leaves)) list
    # A lock that hangs keeps nobody from asking the sockets of others.
    if [ "$case" = lock ]; then
        limited list $run_limit list --timeout 3s --json
        [ "$(grep -c '"cookie" : null' "$work/out" || true)" = 1 ] || wrong "the healthy agents are not asked themselves"
    fi
    limited doctor $run_limit doctor --timeout 3s
    grep -q "${healthy[-1]%:*} beremote" "$work/out" || wrong "doctor does not show the healthy agents"
    expect_left_behind $((before + leaves + 1)) "list and doctor"
    [ -z "$waits" ] || interrupt_inject
    [ -z "$can_be_killed" ] || kill_parent
    run_inject 604
    run_watch
    release
    words='' expected=$after
    run_inject 605
}

# More processes than one run can find out about: each run remembers those of the runs before, and in the end all come
# last, in each run.
check_slows() {
    local run idle
    for ((run = 1; run <= 8; run++)); do
        limited inject $run_limit inject --timeout 3s --idle 601
        ! is_protected 601 || break
    done
    is_protected 601 || wrong "inject did not reach the healthy agents in 8 runs"
    # Each run finds out about two of them at least.
    for run in 1 2 3; do limited inject $run_limit inject --timeout 3s --idle 601; done
    for idle in 602 603 604 605; do run_inject $idle; done
    release
}

# How many connections to port 5633 have the timer of keepalive, by a table that waits for no lock.
timers() { awk '$3 ~ /:1601$/ && $6 ~ /^02:/' /proc/net/tcp | wc -l; }

# Threads share 1,500 sockets of one process. One of them hangs: first the table that the search asks for, and then the
# thread that treats it. The others lose nothing.
check_many() {
    limited inject $((run_limit + 4000)) inject --timeout 10s --idle 601 --json
    [ "$status" = 1 ] || wrong "inject ended with $status"
    grep -q "$words" "$work/said" || wrong "inject does not say: $words"
    [ "$(grep -c '"action" : "set"' "$work/out")" = 1500 ] || wrong "not all others are told as set"
    [ "$(grep -c '"action" : "failed"' "$work/out")" = 1 ] || wrong "not one is told as failed"
    [ "$(timers)" = 1500 ] || wrong "$(timers) have keepalive"
    is_protected 601 || wrong "inject did not reach the healthy agent"
    expect_free_lock inject
    # The main thread of what is left behind is a zombie. No other process joins it.
    limited inject $((run_limit + 4000)) inject --timeout 10s --idle 602 --json
    [ "$status" = 1 ] || wrong "the second inject ended with $status"
    is_protected 602 || wrong "the second inject did not reach the healthy agent"
    expect_left_behind 2 "two runs"
    release
    limited inject $((run_limit + 4000)) inject --timeout 10s --idle 603 --json
    [ "$status" = 0 ] || wrong "the last inject ended with $status"
    [ "$(grep -c '"action" : "set"' "$work/out")" = 1501 ] || wrong "not all are told as set"
}

# The report waits for a reader: the run does not hold the lock for that long, and hears a signal.
check_output() {
    local injector end start
    mkfifo "$work/full"
    exec 7<>"$work/full"
    for end in read TERM; do
        dd if=/dev/zero of="$work/full" bs=4096 oflag=nonblock status=none 2>/dev/null || true
        "$SOCKALIVE" inject --timeout 3s --idle 640 >"$work/full" 2>"$work/said" &
        injector=$!
        until_protected 640
        tell off
        start=$(milliseconds)
        until flock --nonblock /run/sockalive.lock true; do
            [ $(($(milliseconds) - start)) -le "$term_limit" ] || { wrong "the lock is held for the report"; break; }
            sleep 0.01
        done
        # Longer than its time limit and what ends it after that.
        [ "$end" = TERM ] || sleep 5
        kill -0 "$injector" 2>/dev/null || wrong "it did not wait for the reader"
        if [ "$end" = TERM ]; then kill -TERM "$injector"; else timeout 10 head -c 65536 <&7 >/dev/null; fi
        await "$end" "$term_limit" "$injector"
        [ "$end" = TERM ] || [ "$status" = 0 ] || wrong "it ended with $status"
    done
}

# The file of the metrics does not answer: one line, and no run leaves another process at it.
check_metrics() {
    local idle
    for idle in 650 651; do
        limited metrics "$file_limit" inject --timeout 3s --quiet --idle $idle --metrics "$folder/sockalive.prom"
        [ "$status" = 1 ] || wrong "it ended with $status"
        [ "$(wc -l <"$work/said")" = 1 ] || wrong "it did not say one line"
        grep -q "metrics file $folder/sockalive.prom cannot be written" "$work/said" || wrong "it does not name the file"
        is_protected $idle || wrong "it did not reach the healthy agent"
        expect_left_behind 1 "a run"
        expect_free_lock metrics
    done
    run_inject 652
}

# No worker reads the rules. The run ends all the same, by one line.
check_config() {
    limited config "$file_limit" inject --timeout 3s --config "$folder/rules"
    [ "$status" = 1 ] || wrong "it ended with $status"
    [ "$(wc -l <"$work/said")" = 1 ] || wrong "it did not say one line"
    grep -q "a file does not answer" "$work/said" || wrong "it does not say why"
    run_inject 630
}

inside() { # CASE
    local line
    case=$1 failed=0
    mount -t tmpfs tmpfs /run
    ip link set lo up
    work=/run/work folder=/run/far
    mkdir "$work" "$folder"
    # The scene; options of sockalive; how it ends, then and after the release; what it says of the process, and how
    # often watch does; whether a signal ends what hangs, and whether the run waits at all; how many processes of a run
    # may wait there, as long as nothing lets them go.
    local scene_name=$case
    options=() expected=1 after=0 words='' tellings=1 can_be_killed='' waits=1 leaves=1
    case $case in
    child) can_be_killed=1 words="the links in /proc/PID/fd gave no answer" ;;
    stranger) expected=0 tellings=0 can_be_killed=1 ;;
    # More than one run finds out about. In "elsewhere" the agent has a socket that is in no table, and is sought in the
    # namespaces of all processes.
    strangers | elsewhere)
        expected=1 tellings='' can_be_killed=1 words="the search did not come to its end"
        [ "$case" = strangers ] || options=(--method ptrace)
        ;;
    # A call hangs, or all of them together take longer than the run has. Two of its sockets are tried.
    slow) tellings='' leaves=2 words="gave no answer\|not reached" ;;
    slows) words="gave no answer\|not reached\|is not looked at" ;;
    exe)
        scene_name=program options=(--exe "$folder/beremote")
        words="the file behind /proc/PID/exe gave no answer"
        ;;
    # Without its file server the program file cannot be read.
    program) options=(--method ptrace) after=1 words="its program file gave no answer" ;;
    seize) can_be_killed=1 options=(--method ptrace) words="ptrace(2), PTRACE_SEIZE gave no answer" ;;
    code) options=(--method ptrace) words="a page of its memory gave no answer" ;;
    lock | many) words="the socket's lock gave no answer" ;;
    # The table waits for the lock, and no thread of its owner stops.
    table) scene_name=lock options=(--method ptrace) words="PID PID could not be stopped" ;;
    # That is seen before anything is tried.
    frozen | holders) waits='' options=(--method ptrace) words="PID PID is frozen" ;;
    output | metrics) scene_name=files expected=0 ;;
    config) scene_name=stopped expected=0 ;;
    esac
    coproc scene { exec "$VICTIMS/hang" "$scene_name" "$folder" "$CGROUP/$case"; }
    read -r -t 30 line <&"${scene[0]}" || line='nothing'
    [[ $line == ready* ]] || { echo "wrong: $case: the scene says: $line"; exit 1; }
    read -r -a healthy <<<"${line#ready }"
    hanging=${healthy[0]}
    healthy=("${healthy[@]:1}")
    words=${words//PID\/PID/PID/$hanging} words=${words//\/PID\//\/$hanging\/} words=${words//PID PID/PID $hanging}
    case $case in
    many) check_many ;;
    slows) check_slows ;;
    output) check_output ;;
    metrics) check_metrics ;;
    config) check_config ;;
    *) check_commands ;;
    esac
    exit "$failed"
}

# ---- outside -------------------------------------------------------------------------

# All rounds of a case. However this process ends, the namespaces end, too.
rounds() { # CASE
    local round good passed=0 word kind time
    local -A longest=()
    mkdir "$CGROUP/$1"
    for ((round = 0; round < ROUNDS; round++)); do
        echo 0 >"$CGROUP/$1/cgroup.freeze"
        good=1
        setpriv --pdeathsig KILL unshare --net --pid --mount --fork --kill-child --mount-proc \
            "$BASH" "$here/hang.sh" inside "$1" >"$OUTPUT/$1" 2>&1 || good=0
        while read -r word kind time; do
            case $word in
            time) [ "${longest["$kind"]:--1}" -ge "$time" ] || longest["$kind"]=$time ;;
            *) good=0 && echo "$word $kind $time" ;;
            esac
        done <"$OUTPUT/$1"
        passed=$((passed + good))
    done
    printf '%-10s%d of %d well; longest, ms:' "$1" "$passed" "$ROUNDS"
    for kind in inject list doctor SIGTERM watch read TERM metrics config; do
        [ -z "${longest["$kind"]:-}" ] || printf ' %s %d' "$kind" "${longest["$kind"]}"
    done
    echo
    [ "$passed" = "$ROUNDS" ]
}

case ${1:-} in
inside) inside "$2" ;;
rounds) rounds "$2" && exit 0 || exit 1 ;;
esac

# shellcheck source=Tests/lib.sh
. "$here/../lib.sh"
ROUNDS=${1:-5}
[ $# -eq 0 ] || shift
[ $# -eq 0 ] || cases=("$@")
[ -n "${SOCKALIVE:-}" ] || SOCKALIVE=$(built_program -c release)
VICTIMS=${VICTIMS:-${TMPDIR:-/tmp}/sockalive-torture.$(id -u)}
"$here/../Programs/build.sh" "$VICTIMS"
[ -e /dev/fuse ] || skip "there is no FUSE here"
root=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET) || skip "there is no cgroup v2 here"
CGROUP=$root/sockalive-hang.$$
OUTPUT=$(mktemp -d)
export SOCKALIVE VICTIMS CGROUP OUTPUT ROUNDS

mkdir "$CGROUP"
# All processes of a case end with its namespaces. Then its cgroup is empty.
trap 'rm -r "$OUTPUT"; for ((k = 0; k < 50; k++)); do rmdir "$CGROUP"/*/ "$CGROUP" 2>/dev/null && break; sleep 0.1; done' EXIT
trap 'exit 130' INT TERM HUP

# Waits for the case that was started first.
collect() {
    wait "${running[0]#*:}" || failed=1
    cat "$OUTPUT/${running[0]%:*}.said"
    running=("${running[@]:1}")
}

failed=0 running=()
for case in "${cases[@]}"; do
    setpriv --pdeathsig KILL "$BASH" "$here/hang.sh" rounds "$case" >"$OUTPUT/$case.said" &
    running+=("$case:$!")
    [ ${#running[@]} -lt "${JOBS:-1}" ] || collect
done
while [ ${#running[@]} -gt 0 ]; do collect; done
exit "$failed"
