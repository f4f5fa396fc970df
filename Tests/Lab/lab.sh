# shellcheck shell=bash
# A firewall laboratory, to be sourced: an agent's host, a firewall that forgets connections, a server.
#
#   lab_enter "$@"          must be first: runs the script again in its own namespaces
#   lab_possible            fails with the reason if a lab is impossible
#   lab_build SECONDS       the three hosts; the firewall forgets a connection that is idle for SECONDS
#   lab_connect COUNT       a victim named beremote, with sessions to port 5633 of the server
#   lab_sockalive ARG…      runs sockalive on the agent's host, as its administrator
#   lab_idle SECONDS        waits without any traffic
#   lab_verdict             prints "saved" or "lost" for each session: whether an echo still comes back
#
# Needs no root if the kernel allows user namespaces. The namespaces and all processes in them end with the script, so
# nothing is left.

# shellcheck source=Tests/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

LAB_PROGRAMS=${LAB_PROGRAMS:-$(swift build --package-path "$(dirname "${BASH_SOURCE[0]}")/../.." --show-bin-path)}
export LAB_PROGRAMS
[ -n "${LAB_INSIDE:-}" ] || "$(dirname "${BASH_SOURCE[0]}")/../Programs/build.sh" "$LAB_PROGRAMS/programs"

lab_fail() {
    echo "lab: $*" >&2
    exit 70
}

lab_unshare=(unshare --net --mount --pid --fork --kill-child --mount-proc)
[ "$(id -u)" = 0 ] || lab_unshare+=(--user --map-root-user)

lab_enter() {
    [ -z "${LAB_INSIDE:-}" ] || return 0
    LAB_INSIDE=1 exec "${lab_unshare[@]}" bash "$0" "$@"
}

# lab_times [--timeout SECONDS] [--idle SECONDS] [--after SECONDS] [-- …]: sets lab_timeout (5), lab_total (9), lab_after
# (0), and lab_words to the number of words up to and with the --
# shellcheck disable=SC2034 # for the scripts that source this
lab_times() {
    lab_timeout=5 lab_total=9 lab_after=0 lab_words=0
    while [ $# -gt 0 ]; do
        case $1 in
        --timeout) lab_timeout=$2 ;;
        --idle) lab_total=$2 ;;
        --after) lab_after=$2 ;;
        --)
            lab_words=$((lab_words + 1))
            return
            ;;
        *) lab_fail "unknown option $1" ;;
        esac
        lab_words=$((lab_words + 2))
        shift 2
    done
}

# Whether this machine allows a laboratory; prints what is missing.
lab_possible() {
    local tool
    for tool in ip nft; do
        command -v "$tool" >/dev/null || { echo "$tool is missing" && return 1; }
    done
    "${lab_unshare[@]}" true 2>/dev/null || { echo "namespaces of one's own are refused" && return 1; }
}

# Runs a command on a host: firewall or server.
lab_on() {
    local host=$1
    shift
    nsenter --net="/run/netns/$host" "$@"
}

lab_build() {
    # The names of the hosts and sockalive's lock are in /run.
    mount -t tmpfs tmpfs /run
    ip netns add firewall
    ip netns add server

    ip link set lo up
    ip link add outside type veth peer name agent netns firewall
    ip address add 198.51.100.2/24 dev outside
    ip link set outside up
    ip route add default via 198.51.100.1

    lab_on firewall ip address add 198.51.100.1/24 dev agent
    lab_on firewall ip link set agent up
    lab_on firewall ip link add server type veth peer name outside netns server
    lab_on firewall ip address add 192.0.2.1/24 dev server
    lab_on firewall ip link set server up

    lab_on server ip address add 192.0.2.2/24 dev outside
    lab_on server ip link set outside up
    lab_on server ip route add default via 192.0.2.1

    lab_on firewall nft -f - <<'RULES'
table inet firewall {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established accept
        ct state new tcp flags & (fin | syn | rst | ack) == syn accept
    }
}
RULES
    lab_sysctl net/ipv4/ip_forward 1
    lab_sysctl net/netfilter/nf_conntrack_tcp_timeout_established "$1"
    # An unknown packet from the middle of a connection makes no new state.
    lab_sysctl net/netfilter/nf_conntrack_tcp_loose 0
}

# /proc/sys/net belongs to the host that opens it.
lab_sysctl() {
    lab_on firewall bash -c "echo '$2' >'/proc/sys/$1'" || lab_fail "cannot set $1"
}

# Waits for one line of a program's output that begins with the word. The words after it are in LAB_WORDS.
lab_expect() {
    local word=$1 line descriptor=$2
    read -r -t 10 line <&"$descriptor" || lab_fail "no \"$word\" came"
    [[ $line == "$word"* ]] || lab_fail "\"$word\" was due, \"$line\" came"
    LAB_WORDS=${line#"$word"}
}

lab_connect() {
    LAB_SESSIONS=$1
    mkfifo /run/to-server /run/from-server /run/from-agent
    ln -s "$LAB_PROGRAMS/programs/victim-echo" /run/beremote

    lab_on server "$LAB_PROGRAMS/programs/echo-peer" listen 192.0.2.2 5633 "$LAB_SESSIONS" \
        </run/to-server >/run/from-server &
    exec {lab_to_server}>/run/to-server {lab_from_server}</run/from-server
    lab_expect listening "$lab_from_server"

    /run/beremote connect 192.0.2.2 5633 "$LAB_SESSIONS" >/run/from-agent &
    exec {lab_from_agent}</run/from-agent
    lab_expect ready "$lab_from_agent"
    # The victim's PID, and the descriptor of its first session.
    # shellcheck disable=SC2034 # for the scripts that source this
    read -r LAB_VICTIM _ LAB_DESCRIPTOR _ <<<"$LAB_WORDS"
    LAB_DESCRIPTOR=${LAB_DESCRIPTOR%:*}
    lab_expect connected "$lab_from_server"
    # Only a session that worked can be lost.
    local answer
    for answer in $(lab_verdict); do
        [ "$answer" = saved ] || lab_fail "the session does not work to begin with"
    done
}

lab_sockalive() {
    "$LAB_PROGRAMS/sockalive" "$@"
}

lab_idle() {
    sleep "$1"
}

lab_verdict() {
    local i line
    echo "echo 2000" >&"$lab_to_server"
    for ((i = 0; i < LAB_SESSIONS; i++)); do
        read -r -t 10 line <&"$lab_from_server" || lab_fail "the server says nothing"
        case $line in
        echoed*) echo saved ;;
        silent* | broken*) echo lost ;;
        *) lab_fail "the server says: $line" ;;
        esac
    done
}
