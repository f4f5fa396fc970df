#!/bin/bash
# Builds the program, static and stripped, and installs it with its files.
#
#   cron/install.sh [--systemd] [--program FILE]    with the cron file, or with --systemd the units; a second run
#                                                   installs what has changed
#   cron/install.sh --uninstall                     removes everything that earlier runs installed
#
# DESTDIR (none) and PREFIX (/usr/local) come from the environment. --program installs a program that is built already.
# A file under /etc that the administrator edited is kept; the new one is put beside it as FILE.new.
set -euo pipefail
umask 022
# A file that a program opens must not take the place of a stream that the caller closed.
{ true 3<&0; } 2>/dev/null || exec </dev/null
{ true 3>&1; } 2>/dev/null || exec >/dev/null
{ true 3>&2; } || exec 2>/dev/null
here=$(cd "$(dirname "$0")" && pwd)
PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
# package.sh sets this folder to the one of its system. --both is for packages, too.
zsh_folder=${ZSH_FOLDER:-$PREFIX/share/zsh/site-functions}
manifest=$DESTDIR$PREFIX/share/sockalive/manifest

die() {
    echo "install.sh: $*" >&2 || true
    exit 64
}

# What is not read is no reason to stop half way.
say() {
    echo "$*" 2>/dev/null || true
}

schedule=cron action=install program=
while [ $# -gt 0 ]; do
    case $1 in
    --systemd) schedule=systemd ;;
    --both) schedule=both ;;
    --uninstall) action=uninstall ;;
    --program)
        [[ -f ${2:-} && -x ${2:-} ]] || die "--program needs a program"
        program=$2
        shift
        ;;
    -h | --help)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
        exit
        ;;
    *) die "unknown word $1 (see --help)" ;;
    esac
    shift
done
# PREFIX is written into the units and the cron file, where blanks, % and quotes have a meaning.
[[ $PREFIX =~ ^/[A-Za-z0-9/._+-]*$ ]] || die "PREFIX is an absolute path of letters, digits and ._+-"
[[ -z $DESTDIR || $DESTDIR == /* ]] || die "DESTDIR is an absolute path"

# systemd reads units in /usr/lib and /usr/local/lib by itself.
case $PREFIX in
/usr | /usr/local) unit_folder=$PREFIX/lib/systemd/system ;;
*) unit_folder=/etc/systemd/system ;;
esac

checksum() {
    sha256sum <"$1" | cut -d ' ' -f 1
}

# The manifest has "file|conf CHECKSUM PATH" for each file, and "dir - PATH" for each folder that was made.
declare -A recorded=()
folders=() lines=()
read_manifest() {
    local kind sum path
    [ -e "$manifest" ] || return 0
    while read -r kind sum path; do
        case $kind in
        dir) folders+=("$path") ;;
        *) recorded[$path]="$kind $sum" ;;
        esac
    done <"$manifest"
}

make_folder() {
    [ ! -d "$DESTDIR$1" ] || return 0
    [ "$1" = / ] || make_folder "$(dirname "$1")"
    mkdir "$DESTDIR$1" 2>/dev/null || [ -d "$DESTDIR$1" ] || mkdir -p "$DESTDIR$1"
    folders+=("$1")
}

# At any moment either the old file or the new one is there, and a running program is not disturbed.
copy() {
    make_folder "$(dirname "$3")"
    install -m "$1" "$2" "$DESTDIR$3.tmp"
    mv -f "$DESTDIR$3.tmp" "$DESTDIR$3"
    say "installed $3"
}

is_same() {
    [ -f "$2" ] && cmp -s "$1" "$2"
}

# put file|conf MODE SOURCE PATH
put() {
    local kind=$1 mode=$2 source=$3 path=$4 target=$DESTDIR$4 sum
    sum=$(checksum "$source")
    if is_same "$source" "$target"; then
        [ "$(stat -c %a "$target")" = "$mode" ] || chmod "$mode" "$target"
        [ "$kind" = file ] || rm -f "$target.new"
    elif [ "$kind" = conf ] && [ -e "$target" ] && [ "${recorded[$path]:-}" != "conf $(checksum "$target")" ]; then
        is_same "$source" "$target.new" || copy "$mode" "$source" "$path.new"
        say "kept $path, which was edited here; the new one is $path.new"
    else
        copy "$mode" "$source" "$path"
    fi
    lines+=("$kind $sum $path")
    unset "recorded[$path]"
}

# put_text file|conf MODE SOURCE PATH: with the folder of the program written into it
put_text() {
    sed "s|/usr/local/sbin|$PREFIX/sbin|" "$3" >"$work/text"
    put "$1" "$2" "$work/text" "$4"
}

build() {
    # shellcheck source=Tests/lib.sh
    . "$here/../Tests/lib.sh"
    install_missing_to_build binutils
    program=$(static_program)
}

install_all() {
    local shell unit
    [ -n "$program" ] || build
    # A machine without strip copies the program, which may be stripped already.
    strip -o "$work/sockalive" "$program" 2>/dev/null || cp "$program" "$work/sockalive"
    for shell in bash zsh fish; do
        "$work/sockalive" --generate-completion-script "$shell" >"$work/$shell"
    done

    put file 755 "$work/sockalive" "$PREFIX/sbin/sockalive"
    put conf 644 "$here/sockalive.conf" /etc/sockalive.conf
    if [ $schedule != systemd ]; then put_text conf 644 "$here/sockalive" /etc/cron.d/sockalive; fi
    if [ $schedule != cron ]; then
        for unit in sockalive.service sockalive.timer sockalive-watch.service sockalive-guard.service; do
            put_text file 644 "$here/systemd/$unit" "$unit_folder/$unit"
        done
    fi
    put_text file 755 "$here/pre-backup" "$PREFIX/lib/sockalive/pre-backup"
    put file 644 "$here/../Docs/sockalive.8" "$PREFIX/share/man/man8/sockalive.8"
    put file 644 "$work/bash" "$PREFIX/share/bash-completion/completions/sockalive"
    put file 644 "$work/zsh" "$zsh_folder/_sockalive"
    put file 644 "$work/fish" "$PREFIX/share/fish/vendor_completions.d/sockalive.fish"
    put file 644 "$here/../LICENSE" "$PREFIX/share/doc/sockalive/copyright"
    put file 644 "$here/prometheus-rules.yml" "$PREFIX/share/doc/sockalive/prometheus-rules.yml"
}

# Removes files of an earlier install that this one does not have, for instance after a change from cron to systemd.
remove_stale() {
    local path
    for path in "${!recorded[@]}"; do
        if [ "${recorded[$path]}" = "conf $(checksum "$DESTDIR$path" 2>/dev/null)" ] ||
            [[ ${recorded[$path]} == file* ]]; then
            rm -f "$DESTDIR$path"
            unset "recorded[$path]"
            say "removed $path"
        elif [ -e "$DESTDIR$path" ]; then
            say "kept $path, which was edited here: remove it if it is not wanted"
        else
            unset "recorded[$path]"
        fi
    done
}

# Runs also after a failure in the middle, so that --uninstall finds everything.
write_manifest() {
    local path
    [ ${#lines[@]} -gt 0 ] || return 0
    make_folder "$(dirname "$PREFIX/share/sockalive/manifest")"
    {
        for path in ${lines+"${lines[@]}"}; do echo "$path"; done
        for path in "${!recorded[@]}"; do echo "${recorded[$path]} $path"; done
        for path in ${folders+"${folders[@]}"}; do echo "dir - $path"; done
    } >"$work/manifest"
    is_same "$work/manifest" "$manifest" || install -m 644 "$work/manifest" "$manifest"
}

next_step() {
    [ -z "$DESTDIR" ] && [ $schedule = systemd ] || return 0
    say "next: systemctl enable --now sockalive.timer (or sockalive-watch.service)"
}

uninstall_all() {
    local path i
    if [ ! -e "$manifest" ]; then
        say "nothing is installed under $DESTDIR$PREFIX"
        return
    fi
    if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ] && [ -n "${recorded[$unit_folder/sockalive.timer]:-}" ]; then
        systemctl disable --now sockalive.timer sockalive-watch.service sockalive-guard.service || true
    fi
    # Guards outlive the program that made them, and no other ends them.
    if [ -z "$DESTDIR" ] && [ -d /sys/fs/bpf/sockalive ] && [ -x "$PREFIX/sbin/sockalive" ]; then
        "$PREFIX/sbin/sockalive" guard off --all || true
    fi
    for path in "${!recorded[@]}"; do
        rm -f "$DESTDIR$path" "$DESTDIR$path.new" "$DESTDIR$path.tmp"
        say "removed $path"
    done
    rm -f "$manifest" "$DESTDIR/run/sockalive.lock" "$DESTDIR/run/sockalive.failures"
    # Remove only folders that were made here and are empty, the deepest first.
    for ((i = ${#folders[@]} - 1; i >= 0; i--)); do
        rmdir "$DESTDIR${folders[i]}" 2>/dev/null || true
    done
}

read_manifest
if [ $action = uninstall ]; then
    uninstall_all
else
    work=$(mktemp -d)
    trap 'write_manifest; rm -rf "$work"' EXIT
    install_all
    remove_stale
    next_step
fi
