#!/bin/bash
# Runs cron/install.sh on empty folders: it installs everything, changes nothing again, keeps edits, removes everything.
#
#   installer.sh [PROGRAM]    PROGRAM: a static build; without it one is built
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh
install_missing iproute2 python3 util-linux

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DESTDIR=$work/root
mkdir "$DESTDIR"
words=()
[ $# = 0 ] || words=(--program "$1")

installs() {
    cron/install.sh ${words+"${words[@]}"} "$@" >"$work/said" || fail "install.sh $* failed"
}

# Names, sizes, modes and times of all files.
picture() {
    find "$DESTDIR" -printf '%P %s %m %T@ %i\n' | sort
}

has() {
    [ -e "$DESTDIR$1" ] || fail "$1 is missing"
}

lacks() {
    [ ! -e "$DESTDIR$1" ] || fail "$1 is there"
}

said() {
    grep -q -- "$1" "$work/said" || fail "it did not say \"$1\" but: $(cat "$work/said")"
}

uninstalls_to_nothing() {
    installs --uninstall
    [ -z "$(find "$DESTDIR" -mindepth 1)" ] || fail "left behind: $(find "$DESTDIR" -mindepth 1)"
}

echo "twice"
installs
program=$DESTDIR/usr/local/sbin/sockalive
words=(--program "$program")
for file in /usr/local/sbin/sockalive /etc/cron.d/sockalive /etc/sockalive.conf /usr/local/lib/sockalive/pre-backup \
    /usr/local/share/man/man8/sockalive.8 /usr/local/share/bash-completion/completions/sockalive \
    /usr/local/share/zsh/site-functions/_sockalive /usr/local/share/fish/vendor_completions.d/sockalive.fish; do
    has $file
done
lacks /usr/local/lib/systemd/system/sockalive.timer
cp "$program" "$work/sockalive"
words=(--program "$work/sockalive")
before=$(picture)
installs
[ "$before" = "$(picture)" ] || fail "the second install changed something"
[ ! -s "$work/said" ] || fail "the second install said something"

echo "the program, alone with /proc"
size=$(stat -c %s "$program")
[ "$size" -le 20971520 ] || fail "the program has $size bytes, more than 20 MiB"
Tests/Packaging/alone.sh "$DESTDIR" /usr/local/sbin/sockalive

echo "edited files"
echo "# mine" >>"$DESTDIR/etc/cron.d/sockalive"
echo "# mine, too" >>"$DESTDIR/etc/sockalive.conf"
installs
said "kept /etc/cron.d/sockalive"
grep -q "^# mine" "$DESTDIR/etc/cron.d/sockalive" || fail "the edit of the cron file is lost"
grep -q "^# mine" "$DESTDIR/etc/sockalive.conf" || fail "the edit of the configuration is lost"
has /etc/cron.d/sockalive.new
has /etc/sockalive.conf.new
before=$(picture)
installs
[ "$before" = "$(picture)" ] || fail "an install beside edited files changed something"

echo "taken over"
mv "$DESTDIR/etc/cron.d/sockalive.new" "$DESTDIR/etc/cron.d/sockalive"
installs
lacks /etc/cron.d/sockalive.new

echo "an older one, not edited"
echo "# as an earlier version shipped it" >"$DESTDIR/etc/cron.d/sockalive"
sed -i "s|^conf .* /etc/cron.d/sockalive\$|conf $(sha256sum <"$DESTDIR/etc/cron.d/sockalive" |
    cut -d ' ' -f 1) /etc/cron.d/sockalive|" "$DESTDIR/usr/local/share/sockalive/manifest"
installs
said "installed /etc/cron.d/sockalive"
lacks /etc/cron.d/sockalive.new

echo "to systemd, and away"
installs --systemd
lacks /etc/cron.d/sockalive
for unit in sockalive.service sockalive.timer sockalive-watch.service sockalive-guard.service; do
    has /usr/local/lib/systemd/system/$unit
done
uninstalls_to_nothing
installs --uninstall
said "nothing is installed"

echo "another prefix, among files of others"
export PREFIX=/opt/keepalive
mkdir -p "$DESTDIR/etc/cron.d"
echo other >"$DESTDIR/etc/cron.d/other"
installs --systemd
grep -q '^ExecStart=/opt/keepalive/sbin/sockalive ' "$DESTDIR/etc/systemd/system/sockalive.service" ||
    fail "the unit names another program"
installs
grep -q '^PATH=/opt/keepalive/sbin:' "$DESTDIR/etc/cron.d/sockalive" || fail "cron looks elsewhere"
installs --uninstall
[ "$(cd "$DESTDIR" && find . -mindepth 1 | sort | tr '\n' ' ')" = "./etc ./etc/cron.d ./etc/cron.d/other " ] ||
    fail "not what was there before: $(find "$DESTDIR")"
rm -r "${DESTDIR:?}/etc"

echo "half an install"
export PREFIX=/usr/local
mkdir -p "$DESTDIR/usr/local/share"
: >"$DESTDIR/usr/local/share/man"
if cron/install.sh "${words[@]}" >"$work/said" 2>&1; then fail "a file in the way was no failure"; fi
rm "$DESTDIR/usr/local/share/man"
installs --uninstall
[ -z "$(find "$DESTDIR" -type f)" ] || fail "left behind: $(find "$DESTDIR" -type f)"

echo "all well"
