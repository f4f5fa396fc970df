#!/bin/bash
# Builds an OCI image from nothing but the static program. The same program makes the same image, digest for digest.
#
#   cron/image.sh [--program FILE] [--name NAME] [--archive FILE]
#
#   --program  a static program that is built already
#   --name     of the image in the local storage (localhost/sockalive:VERSION)
#   --archive  also writes the image to a file, which podman load, docker load and ctr image import read
#
# Prints the digest of the image. Needs buildah (Debian, Ubuntu and Fedora have it). BUILDAH_OPTIONS, such as
# "--root FOLDER", are passed on to each call.
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=Tests/lib.sh
. "$here/../Tests/lib.sh"

die() {
    echo "image.sh: $*" >&2
    exit 64
}

program='' name='' archive=''
while [ $# -gt 0 ]; do
    case $1 in
    --program | --name | --archive)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in
        --program) program=$2 ;;
        --name) name=$2 ;;
        --archive) archive=$2 ;;
        esac
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
command -v buildah >/dev/null || die "buildah is missing: install it"
version=$(program_version)
[ -n "$version" ] || die "Version.swift has no version"
name=${name:-localhost/sockalive:$version}
# The time in the image is that of the last commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || echo 0)}
[ -n "$program" ] || program=$(static_program)
[ -x "$program" ] || die "no program $program"

read -ra options <<<"${BUILDAH_OPTIONS:-}"
buildah() { command buildah "${options[@]}" "$@"; }

work=$(mktemp -d) container=''
trap 'rm -rf "$work"; [ -z "$container" ] || buildah rm "$container" >/dev/null 2>&1 || true' EXIT
# /run takes the lock, /etc/sockalive the rules, /metrics the metrics: each is a place for a mount.
mkdir -p "$work/root/run" "$work/root/etc/sockalive" "$work/root/metrics"
strip -o "$work/root/sockalive" "$program" 2>/dev/null || cp "$program" "$work/root/sockalive"
chmod 755 "$work/root/sockalive"

container=$(buildah from scratch)
buildah copy --quiet --chown 0:0 "$container" "$work/root" / >/dev/null
buildah config --user 0:0 --workingdir / --stop-signal SIGTERM \
    --entrypoint '["/sockalive"]' --cmd 'watch --config /etc/sockalive/sockalive.conf' \
    --label org.opencontainers.image.title=sockalive \
    --label "org.opencontainers.image.version=$version" \
    --label org.opencontainers.image.licenses=Apache-2.0 \
    --label "org.opencontainers.image.description=turns TCP keepalive on inside live connections" "$container"
# Times, the history and the host's name would differ from build to build.
buildah commit --quiet --format oci --timestamp "$SOURCE_DATE_EPOCH" --omit-history --disable-compression=false \
    "$container" "$name" >/dev/null
buildah push --quiet --digestfile "$work/digest" "$name" "oci-archive:$work/image.tar:$name" >/dev/null
[ -z "$archive" ] || cp "$work/image.tar" "$archive"
echo "$name $(cat "$work/digest")"
