#!/bin/bash
# Runs an installed program in a root that has only /proc: it prints its version and lists the live socket.
#
#   alone.sh ROOT PATH    ROOT/PATH is the program
set -euo pipefail
if [ -z "${ALONE:-}" ]; then
    user=()
    [ "$(id -u)" = 0 ] || user=(--user --map-root-user)
    ALONE=$(mktemp -d)
    trap 'rmdir "$ALONE"' EXIT
    export ALONE
    unshare "${user[@]}" --mount --net --pid --fork --kill-child --mount-proc bash "$0" "$@"
    exit
fi

# shellcheck source=Tests/lib.sh
. "$(dirname "$0")/../lib.sh"

ip link set lo up
mount -t tmpfs tmpfs "$ALONE"
mkdir "$ALONE/proc"
mount --rbind /proc "$ALONE/proc"
cp "$1$2" "$ALONE/program"
[ "$(cd "$ALONE" && echo *)" = "proc program" ]

# A session with both ends in this network namespace. The interpreter itself holds both.
python3 - "$ALONE" "$$" <<'PYTHON' || fail "the program does not list"
import os, socket, subprocess, sys
room = sys.argv[1]
server = socket.create_server(("127.0.0.1", 5633))
client = socket.create_connection(("127.0.0.1", 5633))
agent, _ = server.accept()
def run(*words):
    return subprocess.run(["/program", *words], env={}, capture_output=True, text=True,
                          preexec_fn=lambda: (os.chroot(room), os.chdir("/")))
assert run("--version").stdout.startswith("sockalive "), "no version"
listed = run("list", "--pid", str(os.getpid()))
print(listed.stdout, end="")
assert listed.returncode == 0 and listed.stdout.count("127.0.0.1:5633") == 2, listed
done = run("inject", "--pid", str(os.getpid()))
assert done.returncode == 0, done
assert agent.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1, "no keepalive"
assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 600, "other values"
PYTHON
