#!/bin/bash
# A CORBA session without and with the shipped hook, each behind its own firewall, which forgets after 5 s. The session
# idles for 9 s. A line each: "ok|WRONG  OUTCOME  SCENARIO". Exits with 1 if any outcome is not the expected one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
hook=$(cd "$here/../../.." && pwd)/cron/pre-backup
# shellcheck source=Tests/Lab/scenarios.sh
. "$here/../scenarios.sh"
# shellcheck source=Tests/Lab/lab.sh
. "$here/../lab.sh"
# shellcheck source=Tests/Lab/corba/corba.sh
. "$here/corba.sh"
corba_build

scenario_script=$here/corba-session.sh
scenario "lost" "CORBA session, nothing done"
scenario "exit 0, saved" "CORBA session, pre-backup" -- "$hook" --firewall-timeout 5s
scenario "exit 0, saved" "CORBA session, pre-backup after 4 of the 5 seconds" \
    --after 4 -- "$hook" --firewall-timeout 5s
scenario "exit 1, lost" "CORBA session, pre-backup too late: it says so" \
    --after 8 -- "$hook" --firewall-timeout 5s --wait 2
scenario_outcomes
