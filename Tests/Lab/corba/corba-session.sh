#!/bin/bash
# A CORBA session that idles longer than the firewall remembers; prints "saved" or "lost".
#
#   corba-session.sh [--timeout SECONDS] [--idle SECONDS] [--after SECONDS] [-- HOOK ARG…]
#
# The firewall forgets after --timeout (5); the session idles for --idle (9). When it has idled for
# --after (0), HOOK runs on the agent's host, and "exit CODE" is printed first; without HOOK nothing runs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=Tests/Lab/lab.sh
. "$here/../lab.sh"
lab_enter "$@"
# shellcheck source=Tests/Lab/corba/corba.sh
. "$here/corba.sh"

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

corba_build
lab_build "$timeout"
corba_install
corba_connect
lab_idle "$after"
if [ $# -gt 0 ]; then
    code=0
    "$@" >&2 || code=$?
    echo "exit $code"
fi
lab_idle $((idle - after))
corba_verdict
