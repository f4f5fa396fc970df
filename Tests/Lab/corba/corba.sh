# shellcheck shell=bash
# A real CORBA session through the laboratory's firewall. To be sourced after lab.sh and lab_enter.
#
#   corba_build        compiles the client, if it is not compiled yet (g++, libomniorb4-dev, libcos4-dev)
#   corba_connect      omniNames on port 5633 of the server, a client named beremote on the agent's host
#   corba_verdict      "saved" or "lost": whether a call is answered over the same connection
#   corba_install      installs sockalive where cron and the hook expect it, on the agent's host only

CORBA_FOLDER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CORBA_CLIENT=$LAB_PROGRAMS/corba/beremote

corba_build() {
    [ ! "$CORBA_CLIENT" -nt "$CORBA_FOLDER/beremote.cc" ] || return 0
    mkdir -p "$(dirname "$CORBA_CLIENT")"
    g++ -Wall -Wextra -o "$CORBA_CLIENT.$$" "$CORBA_FOLDER/beremote.cc" -lCOS4 -lomniORB4 -lomnithread
    mv "$CORBA_CLIENT.$$" "$CORBA_CLIENT"
}

# omniORB itself closes connections after some idle minutes (inConScanPeriod, outConScanPeriod). Here this is disabled.
corba_connect() {
    mkdir /run/omninames
    ORBinConScanPeriod=0 lab_on server omniNames -start 5633 -logdir /run/omninames \
        -ORBendPoint giop:tcp::5633 >/run/omninames.log 2>&1 &
    corba_await_listener

    mkfifo /run/to-client /run/from-client
    "$CORBA_CLIENT" corbaloc::192.0.2.2:5633/NameService -ORBoutConScanPeriod 0 \
        </run/to-client >/run/from-client &
    exec {corba_to_client}>/run/to-client {corba_from_client}</run/from-client
    lab_expect ready "$corba_from_client"
    corba_session=$(corba_connection)
    [ -n "$corba_session" ] || lab_fail "the session is not there"
}

corba_await_listener() {
    local attempt
    for ((attempt = 0; attempt < 100; attempt++)); do
        [ -z "$(lab_on server ss -H -tln 'sport = :5633')" ] || return 0
        sleep 0.1
    done
    lab_fail "omniNames does not listen: $(cat /run/omninames.log)"
}

# The two ends of the session.
corba_connection() {
    ss -H -tn state established 'dport = :5633' | while read -r _ _ local remote _; do echo "$local $remote"; done
}

corba_verdict() {
    local answer
    echo "call 3000" >&"$corba_to_client"
    read -r -t 20 answer <&"$corba_from_client" || lab_fail "the client says nothing"
    echo "$answer" >&2
    case $answer in
    answered) if [ "$(corba_connection)" = "$corba_session" ]; then echo saved; else echo reconnected; fi ;;
    lost*) echo lost ;;
    *) lab_fail "the client says: $answer" ;;
    esac
}

corba_install() {
    mount -t tmpfs tmpfs /usr/local/sbin
    ln -s "$LAB_PROGRAMS/sockalive" /usr/local/sbin/sockalive
}
