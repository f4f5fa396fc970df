#!/bin/sh
# Kills the injector's parent process, its worker, and both, N times (1000) at random moments, by each method a half.
# Counts the harmed targets, the locks that stay taken, and the processes that live on. Needs root and gcc.
# Usage: Tests/Torture/supervisor.sh [N]; SOCKALIVE=PATH uses a built program, VICTIMS=FOLDER the output of build.sh.
set -eu
cd "$(dirname "$0")/../.."
number=${1:-1000}
if [ -z "${SOCKALIVE:-}" ]; then
    swift build -c release --product sockalive >/dev/null
    SOCKALIVE=$(swift build -c release --show-bin-path)/sockalive
fi
victims=${VICTIMS:-${TMPDIR:-/tmp}/sockalive-torture.$(id -u)}
Tests/Programs/build.sh "$victims"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

methods=pidfd
[ "$(uname -m)" != x86_64 ] || methods='pidfd ptrace'
failed=0
for method in $methods; do
    printf '%-6s ' "$method"
    # One target is another user's: a helper process with that user's rights reaches it.
    "$victims/supervisor" $((number / 2)) "$method" "$SOCKALIVE" "$work/lock" -- "$victims/victim-registers-64" poll \
        -- "$victims/victim-odd-64" threads \
        -- setpriv --reuid 65534 --regid 65534 --clear-groups "$victims/victim-registers-64" poll || failed=1
done
exit "$failed"
