#!/bin/sh
# Attacks the injector with targets of a hostile ordinary user: N tries (200) of each attack, and then every action of
# another thread of a target at every request of the injector. Counts what was gained (rights, a call that a filter
# forbids, words in a set-user-ID program), harmed, crashed and hung. Needs root, gcc, FUSE, and a folder in which
# set-user-ID programs work. Below 1000 tries, only one in four requests is used; below 200, one in eight.
# Usage: Tests/Torture/attacks.sh [N [KIND…]]; KIND is root, memory, filter, crash, user, stop, long, table, worker or
# steps, or one line's name.
# SOCKALIVE=PATH uses a built program (not a static one), VICTIMS=FOLDER the output of build.sh.
# shellcheck disable=SC2086 # the lists are split into words
set -eu
cd "$(dirname "$0")/../.."
number=${1:-200}
[ $# -eq 0 ] || shift
kinds=${*:-root memory filter crash user stop long table worker steps}
if [ -z "${SOCKALIVE:-}" ]; then
    swift build -c release --product sockalive >/dev/null
    SOCKALIVE=$(swift build -c release --show-bin-path)/sockalive
fi
victims=${VICTIMS:-${TMPDIR:-/tmp}/sockalive-torture.$(id -u)}
Tests/Programs/build.sh "$victims"

# All users must have access to this folder, and set-user-ID programs must work in it.
work=$(mktemp -d "${TMPDIR:-/tmp}/sockalive-attacks.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
chmod 755 "$work"
for name in attack attacker attacker-static ordinary tell-at.so; do cp "$victims/$name" "$work/$name"; done
cp "$work/ordinary" "$work/privileged"
chmod 4755 "$work/privileged"
ln -s privileged "$work/beremote"
if findmnt -n -o OPTIONS -T "$work" | grep -q nosuid; then
    echo "attacks.sh: set-user-ID programs do not work in $work: set TMPDIR" >&2
    exit 2
fi

actions='nothing exec-privileged exec-ordinary exit-thread exit-group clone unshare-files unshare-fs drop-root
    seteuid hide trace kill stop signal filter strict-filter close replace protect-stack protect-stack-read unmap-stack
    map-stack protect-code unmap-code junk returns frames code filtered-returns filtered-frames filtered-code'
actions=$(echo $actions | tr -s '\n ' ' ')
stride=1
[ "$number" -ge 1000 ] || stride=4
[ "$number" -ge 200 ] || stride=8

failed=0
attack() { "$work/attack" "$1" "$2" "$SOCKALIVE" "$work" ${3:-} || failed=1; }
# All kinds of one attack share its tries.
share() { # KIND…
    part=$(((number + $# - 1) / $#))
    for kind; do attack "$kind" "$part"; done
}

for kind in $kinds; do
    case $kind in
    root) share root-inject root-list root-ptrace root-list-ptrace root-old-kernel root-code root-table-code ;;
    memory) share memory-pc memory-section memory-stack memory-code memory-list ;;
    filter) share filter-frames filter-code filter-old-kernel ;;
    crash) share crash crash-list ;;
    user) attack user "$number" ;;
    stop) attack stop "$number" ;;
    long) # some seconds each
        attack long-exec $(((number * 3 + 99) / 100))
        attack long-filter $(((number * 3 + 99) / 100))
        ;;
    table) attack table $(((number + 4) / 5)) ;;
    worker) attack worker-kill $(((number + 4) / 5)) ;;
    steps)
        echo $actions | tr ' ' '\n' | xargs -P 2 -I @ "$work/attack" steps @ "$SOCKALIVE" "$work" $stride || failed=1
        ;;
    *) case " $actions " in
        *" $kind "*) attack steps "$kind" $stride ;;
        *) attack "$kind" "$number" ;;
        esac ;;
    esac
done
[ "$failed" -eq 0 ] || exit 1
