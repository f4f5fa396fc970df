#!/bin/bash
# Kills a probe at a random time, COUNT times (200) with each method. After the next injection every socket must have
# the wanted values, and at the end every session must work. Prints the results; exits with 1 on an error.
#
#   probe-torture.sh [COUNT]
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/Lab/lab.sh
. Tests/Lab/lab.sh
lab_enter "$@"

count=${1:-200} sessions=40
lab_build 3600
lab_connect "$sessions"
descriptors=$(lab_sockalive list --json | sed -n 's/^      "fd" : \([0-9]*\),$/\1/p')

# All different settings, each with its count.
settings() {
    # shellcheck disable=SC2086
    "$LAB_PROGRAMS/programs/read-keepalive" "$LAB_VICTIM" $descriptors | sort | uniq -c | sed 's/^ *//'
}

# Kills a probe after at most MICROSECONDS.
probe_and_kill() {
    # The program itself, not a shell that waits for it.
    "$LAB_PROGRAMS/sockalive" probe --quiet --method "$1" 2>/dev/null &
    sleep "$(printf '0.%06d' $(((RANDOM * 32768 + RANDOM) % $2)))"
    kill -9 $! 2>/dev/null || true
    wait $! 2>/dev/null || true
}

torture() {
    local method=$1 round start length left marked=0 whole=0
    start=$(date +%s%N)
    lab_sockalive probe --quiet --method "$method"
    length=$((($(date +%s%N) - start) / 1000))
    [ "$length" -lt 999999 ] || length=999999
    for ((round = 0; round < count; round++)); do
        # Keepalive is off before every second round.
        [ $((round % 2)) = 0 ] || lab_sockalive inject --off --quiet
        # In the second half no peer answers.
        [ "$round" != $((count / 2)) ] || lab_on firewall nft add chain inet firewall forward '{ policy drop; }' \
            '; flush chain inet firewall forward'
        probe_and_kill "$method" "$length"
        left=$(settings)
        case $left in *" 113 "*) marked=$((marked + 1)) ;; *) whole=$((whole + 1)) ;; esac
        lab_sockalive inject --quiet
        [ "$(settings)" = "$sessions 1 600 60 50 0" ] || {
            printf '%s, round %d, left:\n%s\nmended:\n%s\n' "$method" "$round" "$left" "$(settings)"
            return 1
        }
    done
    lab_on firewall nft add rule inet firewall forward accept
    echo "$method: killed $count times, $marked with sockets left marked, $whole without; each mended by one injection"
}

torture pidfd
torture ptrace
[ "$(lab_verdict | sort | uniq -c | sed 's/^ *//')" = "$sessions saved" ] || lab_fail "a session was lost"
echo "all $sessions sessions work"
