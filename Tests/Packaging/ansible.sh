#!/bin/bash
# Runs cron/ansible/sockalive.yml by ansible-core on a lab host over a local connection. It installs the package and the
# rules. A second run changes nothing.
#
#   ansible.sh [PROGRAM]    PROGRAM: a static build; without it one is built
#
# The lab host is a namespace with copies of /etc, /usr and /var.
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source=Tests/lib.sh
. Tests/lib.sh

if [ -z "${INSIDE:-}" ]; then
    install_missing python3 python3-apt python3-venv util-linux
    [ "$(id -u)" = 0 ] || skip "packages are installed by root"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    python3 -m venv "$work/ansible"
    "$work/ansible/bin/pip" --quiet install ansible-core
    cron/package.sh --output "$work/packages" ${1:+--program "$1"} deb >/dev/null
    INSIDE=$work unshare --mount --pid --fork --kill-child --mount-proc bash Tests/Packaging/ansible.sh
    exit
fi

overlay /etc /usr /var

play() {
    # The host's own Python has python3-apt.
    HOME=/run ANSIBLE_NOCOLOR=1 "$INSIDE/ansible/bin/ansible-playbook" --inventory lab, --connection local \
        --extra-vars "sockalive_packages=$INSIDE/packages ansible_python_interpreter=/usr/bin/python3" \
        cron/ansible/sockalive.yml >/run/said 2>&1 || { cat /run/said >&2; fail "the playbook failed"; }
    grep -E '^lab +:' /run/said
}

first=$(play)
echo "$first"
[[ $first != *changed=0* ]] || fail "the first run changed nothing"
[ "$(grep -vc '^#' /etc/sockalive.conf)" = 1 ] || fail "not one rule: $(cat /etc/sockalive.conf)"
grep -q -- '^--process beremote --port 5633 --firewall-timeout 60m$' /etc/sockalive.conf || fail "not the rule"
dpkg-query --show sockalive >/dev/null
/usr/sbin/sockalive --version
second=$(play)
echo "$second"
[[ $second == *changed=0* ]] || fail "the second run changed something: $(grep -B2 '^changed' /run/said)"
echo "ansible: installed by the playbook, and a second run changes nothing"
