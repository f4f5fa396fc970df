#!/bin/bash
# Tries other ways to keep an idle connection alive, and prints the table of Docs/Firewalls.md.
#
#   Tests/Lab/alternatives.sh            all of them at once, about 20 seconds
#   Tests/Lab/alternatives.sh SCENARIO   one of them, with every message
#
# Each has its own firewall in its own namespaces (lab.sh), which forgets after 5 s. The session on port 5633 is idle
# for 12 s. Run it as root; the output is for a person. The other tests do not need it. Packages beyond those of
# Tests/run.sh: gcc-multilib haproxy libkeepalive0 openssh-server socat.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=Tests/Lab/lab.sh
. "$here/lab.sh"

timeout=5 idle=12
server=192.0.2.2
# The table has these names. The function of a scenario has the same name with _ for -.
scenarios=(
    nothing nothing-firewall-resets
    sysctl sysctl-before-so-keepalive sysctl-after-so-keepalive
    libkeepalive libkeepalive-static libkeepalive-32-bit
    socat-plain socat-keepalive haproxy-plain haproxy-tcpka haproxy-tcpka-idle
    ssh-plain ssh-server-alive
    nft-ct-timeout nft-ct-timeout-other-port keepalive-at-the-server
    inject-pidfd inject-pidfd-static inject-pidfd-32-bit inject-ptrace inject-ptrace-32-bit
    guard guard-static guard-32-bit guard-set-user-id guard-after-off
)

build_clients() {
    ALTERNATIVES=$(mktemp -d)
    export ALTERNATIVES
    chmod 755 "$ALTERNATIVES"
    local source=$here/idle-client.c
    gcc -O1 -Wall -o "$ALTERNATIVES/dynamic" "$source"
    gcc -O1 -Wall -static -o "$ALTERNATIVES/static" "$source"
    # A set-user-ID program that an ordinary user starts: LD_PRELOAD means nothing to it.
    cp "$ALTERNATIVES/dynamic" "$ALTERNATIVES/setuid"
    gcc -O1 -Wall -m32 -isystem /usr/include/x86_64-linux-gnu -o "$ALTERNATIVES/m32" "$source" || rm -f "$ALTERNATIVES/m32"
}

# ---- helpers --------------------------------------------------------------------

need() {
    command -v "$1" >/dev/null || { echo "not tried: no $1" && exit 0; }
}

# An echo on the server. The arguments are socat's options for its end of each connection.
start_server() {
    local port=${1:-5633} options=${2:-}
    lab_on server socat "TCP-LISTEN:$port,bind=$server,fork,reuseaddr$options" EXEC:/bin/cat &
    wait_for lab_on server ss -Hltn "sport = :$port"
}

# Waits until the command prints something.
wait_for() {
    local i
    for ((i = 0; i < 100; i++)); do
        [ -z "$("$@" 2>/dev/null)" ] || return 0
        sleep 0.1
    done
    lab_fail "waited for $* in vain"
}

# client FLAVOUR ADDRESS PORT [keepalive]: runs $afterwards when the connection is established.
client() {
    local flavour=$1
    shift
    [ -x "$ALTERNATIVES/$flavour" ] || { echo "not tried: gcc -m32 is missing" && exit 0; }
    cp "$ALTERNATIVES/$flavour" /run/beremote
    [ "$flavour" != setuid ] || { chmod 4755 /run/beremote && as_user="setpriv --reuid 65534 --regid 65534 --clear-groups"; }
    { env ${preload:+LD_PRELOAD="$preload"} ${settings:+$settings} ${as_user:+$as_user} \
        /run/beremote "$1" "$2" "$idle" ${3:+"$3"} || echo "not tried: the client failed"; } >/run/answer &
    wait_for cat /run/answer
    ${afterwards:-:} >&2
    wait $!
    tail -n 1 /run/answer
}

agent_sysctl() {
    bash -c "echo 2 >/proc/sys/net/ipv4/tcp_keepalive_time; echo 1 >/proc/sys/net/ipv4/tcp_keepalive_intvl"
}

# ---- scenarios ------------------------------------------------------------------

nothing() { start_server && client dynamic $server 5633; }

# The firewall rejects unknown packets instead of dropping them.
nothing_firewall_resets() {
    lab_on firewall nft add rule inet firewall forward meta l4proto tcp reject with tcp reset
    nothing
}

sysctl() { agent_sysctl && nothing; }
sysctl_before_so_keepalive() { agent_sysctl && start_server && client dynamic $server 5633 keepalive; }
# When the program enabled keepalive, the timer was armed for two hours.
sysctl_after_so_keepalive() { start_server && afterwards=agent_sysctl client dynamic $server 5633 keepalive; }

libkeepalive_with() {
    preload=/usr/lib/libkeepalive.so settings='KEEPIDLE=2 KEEPINTVL=1 KEEPCNT=20'
    [ -e $preload ] || { echo "not tried: libkeepalive0 is missing" && exit 0; }
    start_server && client "$1" $server 5633
}
libkeepalive() { libkeepalive_with dynamic; }
libkeepalive_static() { libkeepalive_with static; }
libkeepalive_32_bit() { libkeepalive_with m32; }

# A proxy on the agent's host: the client connects to it, and it connects to the server.
socat_with() {
    need socat
    start_server
    socat TCP-LISTEN:5633,bind=127.0.0.1,reuseaddr "TCP:$server:5633$1" &
    wait_for ss -Hltn src 127.0.0.1 sport = :5633
    client dynamic 127.0.0.1 5633
}
socat_plain() { socat_with ""; }
socat_keepalive() { socat_with ",keepalive,keepidle=2,keepintvl=1,keepcnt=20"; }

haproxy_with() {
    need haproxy
    start_server
    cat >/run/haproxy.cfg <<CONFIG
defaults
    mode tcp
    timeout connect 5s
    timeout client 24h
    timeout server 24h
frontend agent
    bind 127.0.0.1:5633
    default_backend media
backend media
    server media $server:5633
$1
CONFIG
    haproxy -db -q -f /run/haproxy.cfg &
    wait_for ss -Hltn src 127.0.0.1 sport = :5633
    client dynamic 127.0.0.1 5633
}
haproxy_plain() { haproxy_with ""; }
haproxy_tcpka() { haproxy_with "    option srvtcpka"; }
haproxy_tcpka_idle() {
    haproxy_with "    option srvtcpka
    srvtcpka-idle 2s
    srvtcpka-intvl 1s
    srvtcpka-cnt 20"
}

ssh_with() {
    need /usr/sbin/sshd
    # The server connects to its own address by its loopback.
    lab_on server ip link set lo up
    start_server
    mkdir -p /run/sshd /run/keys
    ssh-keygen -q -t ed25519 -N '' -f /run/keys/host
    ssh-keygen -q -t ed25519 -N '' -f /run/keys/client
    chmod 700 /run/keys
    lab_on server /usr/sbin/sshd -D -f /dev/null -h /run/keys/host -o "ListenAddress=$server" -o Port=2222 \
        -o AuthorizedKeysFile=/run/keys/client.pub -o StrictModes=no -o UsePAM=no \
        -o PidFile=none -o PermitRootLogin=yes &
    wait_for lab_on server ss -Hltn "sport = :2222"
    ssh -F /dev/null -N -p 2222 -i /run/keys/client -L "127.0.0.1:5633:$server:5633" "$@" \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "root@$server" &
    wait_for ss -Hltn src 127.0.0.1 sport = :5633
    client dynamic 127.0.0.1 5633
}
ssh_plain() { ssh_with; }
ssh_server_alive() { ssh_with -o ServerAliveInterval=2 -o ServerAliveCountMax=10; }

# The firewall's administrator gives one port an hour, and does not change the others.
raise_for_5633() {
    lab_on firewall nft -f - <<'RULES'
table inet firewall {
    ct timeout patient {
        protocol tcp
        l3proto ip
        policy = { established : 3600 }
    }
    chain classify {
        type filter hook prerouting priority -150;
        tcp dport 5633 ct timeout set "patient"
    }
}
RULES
}
nft_ct_timeout() { raise_for_5633 && nothing; }
nft_ct_timeout_other_port() { raise_for_5633 && start_server 5634 && client dynamic $server 5634; }

keepalive_at_the_server() {
    start_server 5633 ",keepalive,keepidle=2,keepintvl=1,keepcnt=20" && client dynamic $server 5633
}

run_inject() { lab_sockalive inject --no-lock --firewall-timeout ${timeout}s --method "$method" || true; }
inject_with() {
    method=$1
    start_server && afterwards=run_inject client "$2" $server 5633
}
inject_pidfd() { inject_with pidfd dynamic; }
inject_pidfd_static() { inject_with pidfd static; }
inject_pidfd_32_bit() { inject_with pidfd m32; }
inject_ptrace() { inject_with ptrace dynamic; }
inject_ptrace_32_bit() { inject_with ptrace m32; }

# A guard of this script's own cgroup, in which the client starts afterwards.
guard_with() {
    local mount
    mount=$(cgroup_mount)
    [ -n "$mount" ] || { echo "not tried: no cgroup2 file system is mounted" && exit 0; }
    # What is pinned in it ends with this script.
    mount -t bpf bpf /sys/fs/bpf || { echo "not tried: no BPF file system can be mounted" && exit 0; }
    guarded=$mount/sockalive-$(basename "$ALTERNATIVES")-$1${2:-}
    mkdir "$guarded"
    lab_sockalive guard on --cgroup "/${guarded##*/}" --firewall-timeout ${timeout}s >&2 ||
        { echo "not tried: no guard can be made here" && exit 0; }
    [ -z "${2:-}" ] || lab_sockalive guard off --all >&2
    start_server
    echo 0 >"$guarded/cgroup.procs"
    client "$1" $server 5633
}
guard() { guard_with dynamic; }
guard_static() { guard_with static; }
guard_32_bit() { guard_with m32; }
guard_set_user_id() { guard_with setuid; }
guard_after_off() { guard_with dynamic off; }

# ---- all, or one ----------------------------------------------------------------

if [ $# = 0 ]; then
    build_clients
    trap 'rm -rf "$ALTERNATIVES"' EXIT
    for scenario in "${scenarios[@]}"; do
        bash "$0" "$scenario" </dev/null >"$ALTERNATIVES/$scenario.outcome" 2>"$ALTERNATIVES/$scenario.messages" &
    done
    wait
    # All processes in them have ended.
    find /sys/fs/cgroup -maxdepth 2 -name "sockalive-$(basename "$ALTERNATIVES")-*" -exec rmdir {} + 2>/dev/null || true
    printf '| tried | outcome |\n|---|---|\n'
    for scenario in "${scenarios[@]}"; do
        outcome=$(tail -n 1 "$ALTERNATIVES/$scenario.outcome")
        printf '| %s | %s |\n' "$scenario" "${outcome:-failed: $(tail -n 1 "$ALTERNATIVES/$scenario.messages")}"
    done
    exit
fi
[ -n "${ALTERNATIVES:-}" ] || build_clients
lab_enter "$@"
lab_build $timeout
"${1//-/_}"
