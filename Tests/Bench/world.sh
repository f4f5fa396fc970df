#!/bin/bash
# Runs a command on its own host: a PID and a network namespace with only this command and its children. A peer,
# 10.9.0.2, is on the other end of a link, and accepts on ports 1521 to 1536 and 5633. Its way to 10.10.0.0/16 is over
# the host.
#
#   BENCH=FOLDER world.sh COMMAND...      FOLDER has the programs; needs no root if user namespaces are allowed
#
# Everything ends with this process, however it ends.
set -eu
stage=${BENCH_STAGE:-outside}

own_processes=(unshare --mount --pid --fork --kill-child --mount-proc)
own_user=()
[ "$(id -u)" = 0 ] || own_user=(--user --map-root-user)

again() {
    BENCH_STAGE=$1 exec "${@:2}"
}

case $stage in
outside)
    again peer "${own_processes[@]}" --net "${own_user[@]}" bash "$0" "$@"
    ;;
peer)
    mount -t tmpfs tmpfs /run
    ip netns add host
    ip link add host type veth peer name peer netns host
    ip address add 10.9.0.2/16 dev host
    ip link set host up
    ip netns exec host ip address add 10.9.0.1/16 dev peer
    ip netns exec host ip link set peer up
    ip route add 10.10.0.0/16 via 10.9.0.1
    exec {up}< <(exec "$BENCH/busy-host" peer)
    read -r -t 10 _ <&"$up"
    # No exec: the first process of the namespace must outlive its children.
    BENCH_STAGE=host "${own_processes[@]}" nsenter --net=/run/netns/host bash "$0" "$@"
    ;;
host)
    unset BENCH_STAGE
    "$@"
    ;;
esac
