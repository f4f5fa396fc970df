#!/bin/bash
# A session that is idle for longer than the firewall's timeout. Prints "saved" or "lost".
#
#   idle-session.sh [--timeout SECONDS] [--idle SECONDS] [--after SECONDS] [-- ARG…]
#
# The firewall forgets after --timeout (5). The session idles for --idle (9). When it has idled for --after (0),
# `sockalive ARG…` runs on the agent's host. Without ARG nothing runs.
set -eu
# shellcheck source=Tests/Lab/lab.sh
. "$(dirname "$0")/lab.sh"
lab_enter "$@"

lab_times "$@"
shift "$lab_words"

lab_build "$lab_timeout"
lab_connect 1
lab_idle "$lab_after"
[ $# = 0 ] || lab_sockalive "$@" >&2
lab_idle $((lab_total - lab_after))
lab_verdict
