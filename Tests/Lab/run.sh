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

# Makes a guard in a cgroup of its own, and ends it. Without rights (77) or the kernel's help (69) there is none.
try_guard() {
    local cgroup=sockalive-lab-$$-try status=0
    unshare --mount true 2>&1 || return 1
    mkdir "$mount/$cgroup"
    # shellcheck disable=SC2016 # the inner shell expands these
    unshare --mount sh -c 'mount -t bpf bpf /sys/fs/bpf || exit 69
        "$1" guard on --cgroup "$2" --quiet && "$1" guard off --cgroup "$2" --quiet' \
        sh "$LAB_PROGRAMS/sockalive" "/$cgroup" 2>&1 || status=$?
    [ "$status" != 69 ] && [ "$status" != 77 ]
}

# A guard: sessions that are started before "guard on", after it, and after "guard off". The firewall forgets after 5 s.
if [ "$(id -u)" = 0 ] && mount=$(cgroup_mount) &&
    [ -n "$mount" ] && guards=$(try_guard); then
    scenario_script=$here/guard-sessions.sh
    kinds=(dynamic static)
    [ ! -x "$LAB_PROGRAMS/programs/idle-client-32" ] || kinds+=(32-bit)
    kinds+=(set-user-id)
    due() { printf "%s $1, " "${kinds[@]}" | sed 's/, $//'; }
    scenario "$(due lost)" "programs that start without a guard" none "sockalive-lab-$$-none"
    scenario "$(due saved)" "programs that start after guard on" on "sockalive-lab-$$-on"
    scenario "$(due lost)" "programs that start after guard off" off "sockalive-lab-$$-off"
else
    echo "skipped: guards take root, a cgroup2 hierarchy and bpf(2)${guards:+ ($guards)}"
fi
status=0
scenario_outcomes || status=1
# All processes in them have ended.
[ -z "${mount:-}" ] || rmdir "$mount/sockalive-lab-$$"-* 2>/dev/null || true
exit "$status"
