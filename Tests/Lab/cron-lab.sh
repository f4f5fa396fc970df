#!/bin/bash
# The long form, for a person to run as root (about 9 minutes): a real CORBA session, a real cron daemon with the
# shipped cron file, a firewall that forgets after 90 s, and 4 minutes idle. Only the schedule is changed, to every
# minute. Without cron the session must be lost, and with cron it must be saved.
set -eu
cd "$(dirname "$0")/../.."

if [ -z "${LAB_INSIDE:-}" ]; then
    # shellcheck source=Tests/lib.sh
    . Tests/lib.sh
    install_missing_to_build cron iproute2 libcos4-dev libomniorb4-dev nftables omniorb-nameserver util-linux
    swift build >&2
    LAB_PROGRAMS=$(swift build --show-bin-path)
    export LAB_PROGRAMS
fi
# shellcheck source=Tests/Lab/lab.sh
. Tests/Lab/lab.sh
[ "$(id -u)" = 0 ] || [ -n "${LAB_INSIDE:-}" ] || lab_fail "cron runs jobs of root: run this as root"

scene() {
    local outcome
    outcome=$(bash Tests/Lab/cron-lab.sh "$1")
    if [ "$outcome" = "$2" ]; then echo "ok     $3: $outcome"; else
        echo "WRONG  $3: ${outcome:-none}"
        return 1
    fi
}

if [ $# = 0 ]; then
    scene without lost "nothing done"
    scene with saved "the cron file, every minute"
    exit
fi

lab_enter "$@"
# shellcheck source=Tests/Lab/corba/corba.sh
. Tests/Lab/corba/corba.sh

# The shipped rule has 60m; this firewall forgets after 90 s.
run_cron() {
    mkdir /run/etc /run/etc-work
    mount -t overlay overlay /etc -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc-work
    mount -t tmpfs tmpfs /var/spool/cron
    mkdir -m 1730 /var/spool/cron/crontabs
    rm -f /etc/cron.d/*
    : >/etc/crontab
    sed 's|^\*/5 |* |' cron/sockalive >/etc/cron.d/sockalive
    sed 's|60m|90s|' cron/sockalive.conf >/etc/sockalive.conf
    chmod 644 /etc/cron.d/sockalive /etc/sockalive.conf
    diff cron/sockalive /etc/cron.d/sockalive >&2 || true
    cron -f -L 1 &
}

corba_build
lab_build 90
corba_install
corba_connect
[ "$1" = without ] || run_cron
lab_idle 240
"$LAB_PROGRAMS/sockalive" list --firewall-timeout 90s >&2
corba_verdict
