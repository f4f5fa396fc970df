#!/bin/bash
# Makes a .deb and an .rpm from the files of install.sh: program, cron file, units, manual, completions.
#
#   cron/package.sh [--output FOLDER] [--release N] [--program FILE] [deb|rpm]…
#
# Both contain the cron file, which is active at once, and the units, which the administrator may enable instead. They
# have neither dependencies nor scripts: the program needs nothing besides /proc, and installs into an empty root.
set -euo pipefail
umask 022
# A file that a program opens must not take the place of a stream that the caller closed. Writing to a folder fails, as
# writing to a closed output does.
{ true 3<&0; } 2>/dev/null || exec </dev/null
{ true 3>&1; } 2>/dev/null || exec 1</
{ true 3>&2; } || exec 2>/dev/null
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=Tests/lib.sh
. "$here/../Tests/lib.sh"

die() {
    echo "package.sh: $*" >&2 || true
    exit 64
}

output=. release=1 program=() kinds=()
while [ $# -gt 0 ]; do
    case $1 in
    --output | --release | --program)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in
        --output) output=$2 ;;
        --release) release=$2 ;;
        --program) program=(--program "$2") ;;
        esac
        shift
        ;;
    deb | rpm) kinds+=("$1") ;;
    -h | --help)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
        exit
        ;;
    *) die "unknown word $1 (see --help)" ;;
    esac
    shift
done
[ ${#kinds[@]} -gt 0 ] || kinds=(deb rpm)
[[ $release =~ ^[0-9]+$ ]] || die "a release is a number"

version=$(program_version)
[ -n "$version" ] || die "Version.swift has no version"
# The same sources make the same package, byte for byte, because the time is that of the last commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
summary="turn TCP keepalive on inside the live connections of a running process"
description=" A firewall forgets a connection that carries no packets for an hour, and the backup
 that relied on it fails. sockalive finds such connections and gives them keepalive,
 without a restart: no LD_PRELOAD, no change to the program. Set up for the Backup
 Exec agent (beremote, port 5633); /etc/sockalive.conf names others."
work=$(mktemp -d)
# Folders would inherit a set-group-ID bit and go into the packages with it. On DEBIAN dpkg-deb refuses it.
chmod g-s "$work"
trap 'rm -rf "$work"' EXIT
mkdir -p "$output"
output=$(cd "$output" && pwd)

# answer FILE: prints a package's name. If that fails, the others are made all the same.
lost=
answer() {
    echo "$1" 2>/dev/null || lost=1
}

# stage ROOT [VARIABLE=VALUE]…: puts the files into ROOT, and writes "file|conf PATH" lines to $work/files
stage() {
    local root=$1
    shift
    mkdir "$root"
    env DESTDIR="$root" PREFIX=/usr "$@" "$here/install.sh" --both ${program+"${program[@]}"} >&2
    sed -n 's/^\(file\|conf\) [0-9a-f]* /\1 /p' "$root/usr/share/sockalive/manifest" >"$work/files"
    rm -r "$root/usr/share/sockalive"
    find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

make_deb() {
    local root=$work/deb architecture file
    architecture=$(dpkg --print-architecture)
    stage "$root" ZSH_FOLDER=/usr/share/zsh/vendor-completions
    mkdir "$root/DEBIAN"
    sed -n 's/^conf //p' "$work/files" >"$root/DEBIAN/conffiles"
    (cd "$root" && find etc usr -type f -exec md5sum {} + | LC_ALL=C sort -k 2) >"$root/DEBIAN/md5sums"
    cat >"$root/DEBIAN/control" <<CONTROL
Package: sockalive
Version: $version-$release
Architecture: $architecture
Maintainer: ${MAINTAINER:-root <root@localhost>}
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Recommends: cron | cron-daemon | systemd
Section: net
Priority: optional
Description: $summary
$description
CONTROL
    file=$output/sockalive_${version}-${release}_$architecture.deb
    dpkg-deb --root-owner-group -Zxz -z3 --build "$root" "$file" >/dev/null
    answer "$file"
}

make_rpm() {
    local root=$work/rpm architecture
    architecture=$(uname -m)
    command -v rpmbuild >/dev/null || install_missing rpm >&2
    stage "$root"
    {
        cat <<SPEC
%define _build_id_links none
%define __os_install_post %{nil}
Name: sockalive
Version: $version
Release: $release
Summary: $summary
License: Apache-2.0
Group: System Environment/Daemons
AutoReqProv: no
Recommends: cronie

%description
${description//$'\n' /$'\n'}

%install
cp -a $root/. %{buildroot}/

%files
%defattr(-,root,root)
SPEC
        sed 's/^conf /%config(noreplace) /; s/^file //' "$work/files"
        echo "%dir /usr/lib/sockalive"
        echo "%dir /usr/share/doc/sockalive"
    } >"$work/sockalive.spec"
    rpmbuild --quiet -bb --target "$architecture" \
        --define "_topdir $work/rpmbuild" --define "_rpmdir $output" \
        --define "_rpmfilename sockalive-%{VERSION}-%{RELEASE}.%{ARCH}.rpm" \
        --define "_binary_payload w3.xzdio" --define "_buildhost localhost" --define "use_source_date_epoch_as_buildtime 1" \
        --define "clamp_mtime_to_source_date_epoch 1" "$work/sockalive.spec" >&2
    answer "$output/sockalive-$version-$release.$architecture.rpm"
}

for kind in "${kinds[@]}"; do
    "make_$kind"
done
[ -z "$lost" ] || fail "standard output is closed or full: the names of the packages are lost"
