#!/bin/bash
# The results of a probe for a session behind a firewall that forgets after 6 s. One line for each result.
#
#   proof.sh early METHOD     probed after 2 s: "answered", "exit 0", "restored"
#   proof.sh expired METHOD   after 10 s: "expired" (list), "silent", "exit 1", "restored"
#   proof.sh late METHOD      injected and probed after 5 s, with only the firewall's timeout as an option:
#                             "answered", "exit 0"; and 9 s later "saved" or "lost"
set -eu
# shellcheck source=Tests/Lab/lab.sh
. "$(dirname "$0")/lab.sh"
lab_enter "$@"
scene=$1 method=$2

# Runs sockalive with --json; prints "answered" or "silent", then its exit code.
prove() {
    local report code=0
    report=$(lab_sockalive "$@" --method "$method" --firewall-timeout 6s --json) || code=$?
    case $report in
    *'"answered" : true'*) echo answered ;;
    *'"answered" : false'*) echo silent ;;
    *) echo "no word of an answer: $report" ;;
    esac
    echo "exit $code"
}

# Whether the options are the defaults of a new socket, as the kernel shows them without sockalive.
say_restored() {
    local settings
    settings=$("$LAB_PROGRAMS/programs/read-keepalive" "$LAB_VICTIM" "$LAB_DESCRIPTOR")
    [ "$settings" = "0 7200 75 9 0" ] && echo restored || echo "changed: $settings"
}

lab_build 6
lab_connect 1
case $scene in
early)
    lab_idle 2
    prove probe
    say_restored
    ;;
expired)
    lab_idle 10
    lab_sockalive list --firewall-timeout 6s | grep -ow -m 1 expired
    prove probe --wait 2
    say_restored
    ;;
late)
    lab_idle 5
    prove inject --probe
    lab_idle 9
    lab_verdict
    ;;
esac
