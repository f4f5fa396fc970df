#!/bin/bash
# A session that idles longer than the firewall remembers; prints "saved" or "lost".
#
#   idle-session.sh [--timeout SECONDS] [--idle SECONDS] [--after SECONDS] [-- ARG…]
#
# The firewall forgets after --timeout (5); the session idles for --idle (9). When it has idled
# for --after (0), `sockalive ARG…` runs on the agent's host; without ARG nothing runs.
set -eu
# shellcheck source=Tests/Lab/lab.sh
. "$(dirname "$0")/lab.sh"
lab_enter "$@"

timeout=5 idle=9 after=0
while [ $# -gt 0 ]; do
    case $1 in
    --timeout) timeout=$2 ;;
    --idle) idle=$2 ;;
    --after) after=$2 ;;
    --)
        shift
        break
        ;;
    *) lab_fail "unknown option $1" ;;
    esac
    shift 2
done

lab_build "$timeout"
lab_connect 1
lab_idle "$after"
[ $# = 0 ] || lab_sockalive "$@" >&2
lab_idle $((idle - after))
lab_verdict
