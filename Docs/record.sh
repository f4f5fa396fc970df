#!/bin/bash
# Draws Docs/session.svg (list, inject, list) and Docs/demo.svg (demo) from real runs, as a terminal shows them.
#
#   Docs/record.sh [FOLDER]    FOLDER: sockalive, which is built without it
set -eu
if [ -z "${LAB_INSIDE:-}" ]; then
    root=$(cd "$(dirname "$0")/.." && pwd)
    if [ $# = 0 ]; then
        swift build --package-path "$root" --product sockalive >&2
        set -- "$(swift build --package-path "$root" --show-bin-path)"
    fi
    LAB_PROGRAMS=$(cd "$1" && pwd)
    export LAB_PROGRAMS
    script -qec "stty columns 110; '$LAB_PROGRAMS/sockalive' demo" /dev/null </dev/null |
        python3 "$root/Docs/draw.py" "$root/Docs/demo.svg"
fi
# shellcheck source=Tests/Lab/lab.sh
. "$(dirname "$0")/../Tests/Lab/lab.sh"
lab_enter "$@"

lab_build 30
lab_connect 2
lab_idle 20
ln -s "$LAB_PROGRAMS/sockalive" /run/sockalive
for words in "list --firewall-timeout 30s" "inject --firewall-timeout 30s" "list --firewall-timeout 30s"; do
    echo "# sockalive $words"
    script -qec "stty columns 110; /run/sockalive $words" /dev/null </dev/null
    echo
done | python3 "$(dirname "$0")/draw.py" "$(dirname "$0")/session.svg"
