# shellcheck shell=bash
# To be sourced by the scripts of this folder.

# Debian keeps nft here, where a plain user does not look.
PATH=$PATH:/usr/sbin:/sbin

# install_missing PACKAGE…: those that this machine lacks, from Debian or Ubuntu.
install_missing() {
    local package missing=() become=()
    if ! command -v dpkg-query >/dev/null; then
        echo "not Debian or Ubuntu; taking for granted: $*" >&2
        return
    fi
    for package in "$@"; do
        [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing ${missing[*]}"
    [ "$(id -u)" = 0 ] || become=(sudo)
    "${become[@]}" apt-get update -qq </dev/null
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends "${missing[@]}" </dev/null
}

# What the Swift toolchain needs to fetch, compile and link the package, and then PACKAGE….
install_missing_to_build() {
    install_missing ca-certificates git gcc g++ libc6-dev "$@"
}
