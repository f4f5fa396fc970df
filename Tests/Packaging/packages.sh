#!/bin/bash
# Installs, runs, upgrades and removes the .deb and the .rpm, each in its own empty root.
#
#   packages.sh [PROGRAM]    PROGRAM: a static build; without it one is built
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh
install_missing rpm python3 iproute2 util-linux
[ "$(id -u)" = 0 ] || skip "dpkg and rpm install for root only"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
program=${1:-}
if [ -z "$program" ]; then
    DESTDIR=$work/built cron/install.sh >/dev/null
    program=$work/built/usr/local/sbin/sockalive
fi

# deb VERB [PACKAGE], rpm_ VERB [PACKAGE]: runs the package manager on its root
deb() {
    dpkg --root="$work/deb" --force-not-root --force-confdef --force-confold --log=/dev/null "$@" >"$work/said" 2>&1
}

rpm_() {
    # On Debian, rpm needs this option to install.
    rpm --root "$work/rpm" --dbpath /var/lib/rpm --force-debian "$@" >"$work/said" 2>&1
}

# The files of the package, without the package manager's own records.
files() {
    (cd "$work/$1" && find . \( -path ./var -o -path ./tmp \) -prune -o ! -type d -print | sort)
}

# life KIND PACKAGE NEWER INSTALL UPGRADE REMOVE
life() {
    local kind=$1 root=$work/$1 install=$4 upgrade=$5 remove=$6
    mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/lib/rpm"
    touch "$root/var/lib/dpkg/status" "$root/var/lib/dpkg/available"

    $install "$2" || fail "$kind: not installed: $(cat "$work/said")"
    for file in etc/sockalive.conf etc/cron.d/sockalive usr/lib/sockalive/pre-backup usr/share/man/man8/sockalive.8 \
        usr/lib/systemd/system/sockalive.timer; do
        [ -f "$root/$file" ] || fail "$kind: /$file is missing"
        [ "$(stat -c '%u %a' "$root/$file")" = "0 644" ] || [ "$file" = usr/lib/sockalive/pre-backup ] ||
            fail "$kind: /$file has another owner or mode"
    done
    Tests/Packaging/alone.sh "$root" /usr/sbin/sockalive >/dev/null || fail "$kind: the program does not run"

    echo "--process other --port 1 --firewall-timeout 5m" >>"$root/etc/sockalive.conf"
    $upgrade "$3" || fail "$kind: not upgraded: $(cat "$work/said")"
    grep -q "^--process other" "$root/etc/sockalive.conf" || fail "$kind: the upgrade lost an edit"
    Tests/Packaging/alone.sh "$root" /usr/sbin/sockalive >/dev/null || fail "$kind: the upgraded program does not run"

    $remove sockalive || fail "$kind: not removed: $(cat "$work/said")"
    # rpm keeps an edited configuration under another name.
    rm -f "$root/etc/sockalive.conf.rpmsave"
    [ -z "$(files "$kind")" ] || fail "$kind: left behind: $(files "$kind")"
    [ ! -e "$root/usr/lib/sockalive" ] || fail "$kind: a folder is left behind"
    echo "ok  $kind: installed, run, upgraded with an edited configuration kept, removed"
}

mapfile -t old < <(cron/package.sh --program "$program" --output "$work" --release 1 2>"$work/messages")
mapfile -t new < <(cron/package.sh --program "$program" --output "$work" --release 2 2>>"$work/messages")
[ ${#old[@]}${#new[@]} = 22 ] || fail "no packages: $(cat "$work/messages")"

mapfile -t again < <(cron/package.sh --program "$program" --output "$work/again" --release 1 2>>"$work/messages")
for i in 0 1; do
    cmp -s "${old[i]}" "${again[i]}" || fail "the same sources made two different $(basename "${old[i]}")"
done
# A shared folder for temporary files may hand its group on (set-group-ID).
mkdir -m 2755 "$work/shared"
[ "$(stat -c %a "$work/shared")" = 2755 ] || fail "no folder with set-group-ID can be made here"
mapfile -t again < <(TMPDIR=$work/shared cron/package.sh --program "$program" --output "$work/again" 2>"$work/messages")
[ ${#again[@]} = 2 ] || fail "no packages under a folder with set-group-ID: $(cat "$work/messages")"
for i in 0 1; do
    cmp -s "${old[i]}" "${again[i]}" || fail "set-group-ID of TMPDIR changes $(basename "${old[i]}")"
done
echo "ok  the same sources make the same packages"

life deb "${old[0]}" "${new[0]}" "deb --install" "deb --install" "deb --purge"
life rpm "${old[1]}" "${new[1]}" "rpm_ --install" "rpm_ --upgrade" "rpm_ --erase"
