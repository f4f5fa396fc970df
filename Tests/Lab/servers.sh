#!/bin/bash
# Servers from Debian, each with a client's session: five injections by ptrace. After each, keepalive is read back from
# outside, and the session continues. Redis, PostgreSQL, sshd.
# Usage: Tests/Lab/servers.sh [SOCKALIVE]. Needs root, for sshd and for the user postgres.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh
[ "$(id -u)" = 0 ] || skip "sshd and PostgreSQL's user need root"
install_missing iproute2 openssh-client openssh-server postgresql python3 redis-server redis-tools util-linux
sockalive=$(realpath "${1:-$(built_program)}")
folder=$(mktemp -d)
chmod 755 "$folder"
servers=()
end() {
    for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done
    wait
    rm -rf "$folder"
}
trap end EXIT

# With -u it runs as another user: postgres refuses root.
start() { # [-u USER] COMMAND…
    if [ "$1" = -u ]; then
        setpriv --reuid "$2" --regid "$2" --init-groups "${@:3}" >>"$folder/log" 2>&1 &
    else
        "$@" >>"$folder/log" 2>&1 &
    fi
    servers+=($!)
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

await() { # COMMAND…
    for _ in {1..150}; do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    cat "$folder/log" >&2
    fail "no answer: $*"
}

# The session is a coprocess. ask writes one line to it and compares its answer with the expected one.
ask() { # QUESTION ANSWER
    local answer
    echo "$1" >&"${SESSION[1]}"
    read -r -t 10 answer <&"${SESSION[0]}" || fail "$name: the session does not answer"
    [ "${answer%$'\r'}" = "$2" ] || fail "$name: '$answer' in answer to '$1'"
}

keepalive_timer() {
    ss --tcp --no-header --numeric --options state established "sport = :$port"
}

inject_and_ask() { # PROCESS PORT QUESTION-PREFIX QUESTION-SUFFIX
    name=$1 port=$2
    ask "${3}0$4" 0
    for round in 1 2 3 4 5; do
        "$sockalive" inject --process "$name" --port "$port" --method ptrace --no-lock --off --quiet
        [[ $(keepalive_timer) != *keepalive* ]] || fail "$name: keepalive is still on"
        "$sockalive" inject --process "$name" --port "$port" --method ptrace --no-lock --idle "${round}00m" \
            --require --quiet
        [[ $(keepalive_timer) =~ keepalive,($((round * 100 - 1))|${round}00)min ]] ||
            fail "$name: no keepalive of ${round}00 minutes: $(keepalive_timer)"
        ask "$3$round$4" "$round"
    done
    eval "exec ${SESSION[1]}>&-"
    wait "$SESSION_PID" || true
    echo "$name: five injections, and the session goes on"
}

port=$(free_port)
start redis-server --port "$port" --save "" --dir "$folder"
await redis-cli -p "$port" ping
coproc SESSION { redis-cli -p "$port"; }
inject_and_ask redis-server "$port" "echo " ""

port=$(free_port)
programs=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin | sort -V | tail -1)
install -d -o postgres -g postgres "$folder/data"
(cd / && start -u postgres "$programs/initdb" --no-sync -A trust -D "$folder/data" && wait "${servers[-1]}")
start -u postgres "$programs/postgres" -D "$folder/data" -p "$port" -k "$folder/data" -c listen_addresses=127.0.0.1
await psql -h 127.0.0.1 -p "$port" -U postgres -c 'select 1'
coproc SESSION { psql -h 127.0.0.1 -p "$port" -U postgres --no-psqlrc --quiet --tuples-only --no-align; }
inject_and_ask postgres "$port" "select " ";"

port=$(free_port)
ssh-keygen -q -t ed25519 -N '' -f "$folder/host"
ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
mkdir -p /run/sshd
start /usr/sbin/sshd -D -e -f /dev/null -p "$port" -h "$folder/host" -o ListenAddress=127.0.0.1 -o UsePAM=no \
    -o PidFile=none -o StrictModes=no -o AuthorizedKeysFile="$folder/key.pub" -o PermitRootLogin=yes \
    -o TCPKeepAlive=no
session=(ssh -p "$port" -i "$folder/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes
    -o LogLevel=ERROR root@127.0.0.1)
await "${session[@]}" true
coproc SESSION { "${session[@]}" cat; }
inject_and_ask sshd "$port" "" ""
