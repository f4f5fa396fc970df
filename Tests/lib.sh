# shellcheck shell=bash
# The shell functions of the tests and of cron/, to be sourced.

# Debian has nft here, which an ordinary user's PATH does not have.
PATH=$PATH:/usr/sbin:/sbin
sockalive_repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# fail MESSAGE…: prints it and ends the script with an error.
fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# skip REASON…: prints it and ends the script without an error.
skip() {
    echo "skipped: $*"
    exit 0
}

# program_version: prints the version that the sources have.
program_version() {
    sed -n 's/^public let sockaliveVersion = "\(.*\)"$/\1/p' "$sockalive_repository/Sources/SockaliveCore/Version.swift"
}

# built_program FLAG…: builds the program with these flags of swift build, and prints its path.
built_program() {
    # A command substitution goes on where a command fails. There may be an older program.
    swift build --package-path "$sockalive_repository" "$@" --product sockalive >&2 || return
    echo "$(swift build --package-path "$sockalive_repository" "$@" --show-bin-path)/sockalive"
}

# cgroup_mount: prints where the cgroup2 hierarchy is mounted with its root; nothing where it is not.
cgroup_mount() {
    awk '$4 == "/" && / - cgroup2 / { print $5; exit }' /proc/self/mountinfo
}

# static_program: builds the shipped program, and prints its path. A section for each function lets the linker leave out
# what nothing calls, in the libraries, too. With -Osize it is 0.9 MB smaller in all, and at most some percent
# slower: most of its time it is in the kernel.
static_program() {
    built_program -c release -Xswiftc -static-executable -Xswiftc -Osize -Xswiftc -Xfrontend -Xswiftc -function-sections
}

# overlay FOLDER…: replaces each folder by a copy. The copies are in a new /run. For a mount namespace.
overlay() {
    local folder
    mount -t tmpfs tmpfs /run
    for folder in "$@"; do
        mkdir -p "/run/upper$folder" "/run/work$folder"
        mount -t overlay overlay "$folder" -o "lowerdir=$folder,upperdir=/run/upper$folder,workdir=/run/work$folder"
    done
}

# install_missing PACKAGE…: installs the missing packages, from Debian or Ubuntu.
install_missing() {
    local package missing=()
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
    apt_get update
    apt_get install -y --no-install-recommends "${missing[@]}"
}

# apt_get WORD…: waits up to ten minutes while another program uses apt. DPkg::Lock::Timeout covers the lock of dpkg.
# The locks of the lists and of the archives are tried again here.
apt_get() {
    local become=() messages end=$((SECONDS + 600))
    [ "$(id -u)" = 0 ] || become=(sudo)
    until messages=$("${become[@]}" env LC_ALL=C DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=600 "$@" </dev/null 2>&1); do
        if [[ $messages != *"Could not get lock"* ]] || [ $SECONDS -ge $end ]; then
            printf '%s\n' "$messages" >&2
            return 1
        fi
        sleep 2
    done
}

# Installs the packages that the Swift toolchain needs to fetch, compile and link the program, and then PACKAGE….
install_missing_to_build() {
    install_missing ca-certificates git gcc g++ libc6-dev "$@"
}
