#!/bin/bash
# Runs every scenario of the lab at once, each with its own firewall.
# A line each: "ok|WRONG  OUTCOME  SCENARIO". Exits with 1 if any outcome is not the expected one.
# If the machine does not allow a lab, prints one line: "skipped: REASON".
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=Tests/Lab/scenarios.sh
. "$here/scenarios.sh"
# shellcheck source=Tests/Lab/lab.sh
. "$here/lab.sh"

if ! reason=$(lab_possible); then
    echo "skipped: $reason"
    exit 0
fi

# The firewall forgets after 5 s; the session idles for 9 s.
scenario_script=$here/idle-session.sh
scenario lost "nothing done"
scenario lost "inject --dry-run" -- inject --dry-run --firewall-timeout 5s
for method in pidfd ptrace; do
    scenario saved "inject --method $method" -- inject --method "$method" --firewall-timeout 5s
    scenario saved "inject --method $method, after 4 of the 5 seconds" \
        --after 4 -- inject --method "$method" --firewall-timeout 5s
    scenario saved "inject --method $method --idle 3, after 4 of the 5 seconds" \
        --after 4 -- inject --method "$method" --idle 3 --firewall-timeout 5s
done

# The firewall forgets after 6 s.
scenario_script=$here/proof.sh
for method in pidfd ptrace; do
    scenario "answered, exit 0, restored" "probe --method $method, after 2 of the 6 seconds" early "$method"
    scenario "expired, silent, exit 1, restored" "probe --method $method, after 10 of the 6 seconds" expired "$method"
    scenario "answered, exit 0, saved" "inject --probe --method $method, after 5 of the 6 seconds" late "$method"
done
scenario_outcomes
