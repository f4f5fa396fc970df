# shellcheck shell=bash
# Packages of one suite of Debian, fetched into a cache by an apt state of its own. Nothing of the machine is changed. To
# be sourced.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/sockalive

# unless_cached FOLDER: prints FOLDER and ends the script if FOLDER/release exists. Otherwise it takes a lock: another test
# may want the same. It makes $work, a folder beside FOLDER that goes when the script ends.
unless_cached() {
    [ ! -e "$1/release" ] || { echo "$1"; exit 0; }
    mkdir -p "$(dirname "$1")"
    exec 9>"$cache/lock"
    flock 9
    [ ! -e "$1/release" ] || { echo "$1"; exit 0; }
    work=$(mktemp -d "$(dirname "$1")/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
}

# use_suite SUITE ARCHITECTURE: fetches the lists of that suite into $work, and sets the array apt to the options that make
# apt-get and apt-cache read them.
use_suite() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror
    [ -e "$keyring" ] || { echo "there is no $keyring (package debian-archive-keyring)" >&2; exit 1; }
    # The machine's own mirror, if it is one of Debian.
    mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
        head -1) || true
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    : >"$work/status"
    echo "deb [signed-by=$keyring] ${mirror:-http://deb.debian.org/debian} $1 main" >"$work/sources"
    apt=(-qq -o "Dir::State=$work" -o "Dir::State::status=$work/status" -o "Dir::State::lists=$work/lists"
        -o "Dir::Etc::sourcelist=$work/sources" -o Dir::Etc::sourceparts=- -o "Dir::Cache=$work"
        -o "APT::Architecture=$2" -o "APT::Architectures=$2" -o Acquire::Check-Valid-Until=false
        -o Acquire::Languages=none -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" update >&2
}

# download PACKAGE: fetches it into $work, and prints the path.
download() {
    (cd "$work" && apt-get "${apt[@]}" download "$1" >&2 && realpath "$1"_*.deb)
}

# keep FOLDER RELEASE: $work/new becomes FOLDER, which is complete from then on.
keep() {
    echo "$2" >"$work/new/release"
    rm -rf "$1"
    mv "$work/new" "$1"
    echo "$1"
}
