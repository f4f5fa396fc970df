#!/bin/bash
# A CORBA session that is idle for longer than the firewall's timeout. Prints "saved" or "lost".
#
#   corba-session.sh [--timeout SECONDS] [--idle SECONDS] [--after SECONDS] [-- HOOK ARG…]
#
# The firewall forgets after --timeout (5). The session idles for --idle (9). When it has idled for --after (0), HOOK
# runs on the agent's host, and "exit CODE" is printed first. Without HOOK nothing runs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=Tests/Lab/lab.sh
. "$here/../lab.sh"
lab_enter "$@"
# shellcheck source=Tests/Lab/corba/corba.sh
. "$here/corba.sh"

lab_times "$@"
shift "$lab_words"

corba_build
lab_build "$lab_timeout"
corba_install
corba_connect
lab_idle "$lab_after"
if [ $# -gt 0 ]; then
    code=0
    "$@" >&2 || code=$?
    echo "exit $code"
fi
lab_idle $((lab_total - lab_after))
corba_verdict
