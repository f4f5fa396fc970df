#!/bin/bash
# Every scenario of the lab at once, each with a firewall of its own: forgets after 5 s, idle for 9 s.
# A line each: "ok|WRONG  OUTCOME  SCENARIO". Exit 1 if any outcome is not the one that is due.
# Where the machine lets nobody build a lab, one line: "skipped: REASON".
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=Tests/Lab/lab.sh
. "$here/lab.sh"

if ! reason=$(lab_possible); then
    echo "skipped: $reason"
    exit 0
fi

names=() due=() processes=()
outcomes=$(mktemp -d)
trap 'rm -rf "$outcomes"' EXIT

# scenario DUE NAME [idle-session.sh's arguments]
scenario() {
    local index=${#names[@]}
    due+=("$1")
    names+=("$2")
    shift 2
    bash "$here/idle-session.sh" "$@" </dev/null >"$outcomes/$index" 2>"$outcomes/$index.messages" &
    processes+=($!)
}

scenario lost "nothing done"
scenario lost "inject --dry-run" -- inject --dry-run --firewall-timeout 5s
for method in pidfd ptrace; do
    scenario saved "inject --method $method" -- inject --method "$method" --firewall-timeout 5s
    scenario saved "inject --method $method --idle 3, after 4 of the 5 seconds" \
        --after 4 -- inject --method "$method" --idle 3 --firewall-timeout 5s
done

status=0
for index in "${!names[@]}"; do
    wait "${processes[index]}" || true
    outcome=$(cat "$outcomes/$index")
    if [ "$outcome" = "${due[index]}" ]; then
        printf 'ok     %-5s  %s\n' "$outcome" "${names[index]}"
    else
        printf 'WRONG  %-5s  %s\n' "${outcome:-none}" "${names[index]}"
        sed 's/^/       /' "$outcomes/$index.messages" >&2
        status=1
    fi
done
exit $status
