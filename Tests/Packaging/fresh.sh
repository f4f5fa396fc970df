#!/bin/bash
# A new machine: a minimal root of this machine's distribution with only the Swift toolchain. The two commands of the
# README run in it. Needs root and mmdebstrap.
#
#   fresh.sh            a new clone, all tests; about 15 minutes
#   fresh.sh --brief    the existing build; the demo and some tests of each kind; about 2 minutes
#
# The root is entered by pivot_root in its own namespaces. A chroot does not allow user namespaces.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh

# Suites that use programs that a minimal root lacks: pgrep, script, python3, gcc -m32, unshare.
brief_filter='RecycledPID|Output|Python|WrongCommandLines|StaticProgram|ExitCodes'
brief=no
case ${1:-} in
'') ;;
--brief) brief=yes ;;
*)
    echo "usage: Tests/Packaging/fresh.sh [--brief]" >&2
    exit 64
    ;;
esac

# --- inside, in the new root ---

# Holds apt's lock for some seconds, as another program would (struct flock of x86-64: fcntl_locking(2)).
hold_apt_lock() {
    # shellcheck disable=SC2016 # Perl's variables
    read -r _ < <(perl -e 'use Fcntl;
        open(my $lists, ">>", "/var/lib/apt/lists/lock") or die;
        my $lock = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0);
        fcntl($lists, F_SETLK, $lock) or die;
        print "held\n"; close(STDOUT); sleep 8') || fail "the lock of apt cannot be held"
}

run_commands() {
    local command lacking=0
    for command in gcc git pgrep python3 nft ip ss redis-server; do
        if command -v "$command" >/dev/null; then echo "$command is there"; else lacking=$((lacking + 1)); fi
    done
    echo "the new root lacks $lacking programs of the tests"
    [ "$lacking" -ge 5 ] || fail "the root is not minimal"
    hold_apt_lock
    for command in "${commands[@]}"; do
        echo "--- $command"
        if [ $brief = yes ] && [ "$command" = Tests/run.sh ]; then
            "$command" --filter "$brief_filter" </dev/null
        else
            "$command" </dev/null
        fi
    done
}

# The commands of the README, one a line.
mapfile -t commands < <(grep -x 'Tests/[a-z]*\.sh' README.md)
[ "${commands[*]}" = "Tests/demo.sh Tests/run.sh" ] || fail "the README's commands are ${commands[*]}"

case ${FRESH_STAGE:-outside} in
root)
    run_commands
    exit
    ;;
enter)
    # This is the first process of a PID namespace, in a mount namespace.
    root=$FRESH_ROOT
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    for folder in /dev /sys; do mount --rbind "$folder" "$root$folder"; done
    mount -t tmpfs tmpfs "$root/run"
    while read -r folder; do
        mkdir -p "$root$folder"
        mount --bind --read-only "$folder" "$root$folder"
    done <<<"$FRESH_MOUNTS"
    mkdir "$root/old"
    cd "$root"
    pivot_root . old
    cd "$FRESH_REPOSITORY"
    umount --lazy /old
    # No exec: the first process must outlive its children.
    env -i FRESH_STAGE=root HOME=/root LANG=C.UTF-8 PATH="$FRESH_TOOLCHAIN/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        bash Tests/Packaging/fresh.sh "$@"
    exit
    ;;
esac

# --- outside ---

[ "$(id -u)" = 0 ] || skip "a root with its own owners and devices is made by root"
command -v mmdebstrap >/dev/null || skip "mmdebstrap is missing"
command -v swift >/dev/null || fail "there is no Swift toolchain"
toolchain=$(dirname "$(dirname "$(realpath "$(command -v swift)")")")
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
chmod 755 "$work"
root=$work/root

# The package sources of this machine's distribution.
sources() {
    # shellcheck disable=SC2016 # apt-get's variables
    apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' \
        "Origin: $(. /etc/os-release && echo "${ID^}")" "Component: main" "Architecture: $(dpkg --print-architecture)" |
        sort -u
}
[ -n "$(sources)" ] || apt_get update
sources >"$work/sources.list"
# The network settings with which this machine reaches its mirror.
apt-config dump Acquire | grep -E '^Acquire::(https?::Proxy|Check-Valid-Until|Check-Date) ' >"$work/apt.conf" || true

# The libraries that the toolchain is linked with. Its instructions require them.
libraries() {
    local library
    find "$toolchain/bin" -maxdepth 1 -type f -executable -exec ldd {} + 2>/dev/null |
        awk '$2 == "=>" && $3 ~ "^/" { print $3 }' | sort -u |
        while read -r library; do
            library=$(realpath "$library")
            dpkg-query --search "$library" "${library#/usr}" 2>/dev/null || true
        done | sed 's/[:,].*//' | sort -u | paste -s -d,
}
mmdebstrap --quiet --variant=minbase --include="$(libraries)" --aptopt="$work/apt.conf" \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" "$work/sources.list"
cp --dereference /etc/resolv.conf /etc/hosts "$root/etc/"

# The place to which git redirects the repository; it may be a folder of this machine.
mounts=$toolchain
while read -r key value; do
    git config --file "$root/etc/gitconfig" --add "$key" "$value"
    folder=${key#url.} folder=${folder%.insteadof}
    [ ! -d "$folder" ] || [[ $'\n'$mounts$'\n' == *$'\n'$folder$'\n'* ]] || mounts+=$'\n'$folder
done < <(git config --get-regexp '^url\..*\.insteadof$' || true)

# A build depends on its path. A copy at the same path is not built again.
mkdir -p "$root$PWD"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp -a --parents -t "$root$PWD"
if [ $brief = yes ]; then
    [ ! -d .build ] || cp -a .build "$root$PWD"
    # Makes the copy compile and link something.
    touch "$root$PWD"/Sources/sockalive/*.swift "$root$PWD"/Sources/CSockalive/*.c
fi

FRESH_STAGE=enter FRESH_ROOT=$root FRESH_MOUNTS=$mounts FRESH_REPOSITORY=$PWD FRESH_TOOLCHAIN=$toolchain \
    unshare --mount --pid --fork --kill-child --propagation private bash "$PWD/Tests/Packaging/fresh.sh" "$@"
echo "a fresh machine: both commands of the README ran"
