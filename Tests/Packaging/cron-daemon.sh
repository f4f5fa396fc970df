#!/bin/bash
# Runs Debian's cron daemon with the cron file of cron/install.sh. Only the schedule is changed, to every minute. The
# first run logs one line for each socket, the second run logs nothing, and no user gets mail. Takes two to three
# minutes. Needs root.
#
#   cron-daemon.sh [PROGRAM]    PROGRAM: a static build; without it one is built
#
# Everything runs in its own namespaces. /etc, /usr, /dev and /run are copies there.
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source=Tests/lib.sh
. Tests/lib.sh

if [ -z "${INSIDE:-}" ]; then
    install_missing cron python3 util-linux
    [ "$(id -u)" = 0 ] || skip "cron runs jobs of root, as root"
    program=${1:-$(static_program)}
    INSIDE=$(realpath "$program") exec unshare --mount --pid --fork --kill-child --mount-proc \
        bash Tests/Packaging/cron-daemon.sh
fi

repository=$PWD
overlay /etc /usr
mkdir /run/dev
mount -t tmpfs tmpfs /run/dev
for node in null zero full random urandom; do
    : >"/run/dev/$node"
    mount --bind "/dev/$node" "/run/dev/$node"
done
mount --move /run/dev /dev
mount -t tmpfs tmpfs /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
rm -f /etc/cron.d/*
: >/etc/crontab

"$repository/cron/install.sh" --program "$INSIDE" >/run/installed
sed -i 's|^\*/5 |* |' /etc/cron.d/sockalive
[ "$(diff "$repository/cron/sockalive" /etc/cron.d/sockalive | grep -c '^>')" = 1 ] || fail "the schedule is not the only change"
printf '#!/bin/sh\ncat >>/run/mail\n' >/usr/sbin/sendmail
chmod 755 /usr/sbin/sendmail

# The input of the system log, one message a line.
python3 -c '
import socket
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
with open("/run/log", "w", buffering=1) as file:
    while True: print(log.recv(8192).decode(errors="replace").rstrip("\n\0"), file=file)
' &
# A process called beremote, with two connections to port 5633.
ip link set lo up
python3 -c '
import socket, time
open("/proc/self/comm", "w").write("beremote")
server = socket.create_server(("127.0.0.1", 5633))
ends = [(socket.create_connection(("127.0.0.1", 5633)), server.accept()) for _ in range(2)]
open("/run/ready", "w").close()
time.sleep(600)
' &
for _ in {1..100}; do
    if [ -e /run/ready ] && [ -S /dev/log ]; then break; fi
    sleep 0.1
done

runs() { grep -c 'CMD.*sockalive inject' /run/log || true; }
lines() { grep -E 'sockalive(\[[0-9]+\])?: ' /run/log | grep -v CMD || true; }

cron -f -L 1 &
await_run() { # NUMBER
    for _ in {1..90}; do
        if [ "$(runs)" -ge "$1" ]; then
            sleep 3
            return
        fi
        sleep 1
    done
    cat /run/log >&2
    fail "cron started no run $1"
}

await_run 1
first=$(lines)
echo "$first"
await_run 2
second=$(lines)
# Both ends of both connections belong to beremote.
[ "$(grep -c 'event=set' <<<"$first")" = 4 ] || fail "not one line a socket: $first"
[ "$(wc -l <<<"$first")" = 4 ] || fail "more than one line a socket: $first"
[ "$second" = "$first" ] || fail "the second run said: $second"
[ ! -e /run/mail ] || fail "mail: $(cat /run/mail)"
echo "cron: the first run logged a line a socket, the second nothing, no mail"
