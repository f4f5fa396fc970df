#!/bin/bash
# Installs missing packages, builds, and runs all tests. Works in a new clone with only the Swift toolchain.
#
#   Tests/run.sh [OPTION]…    options of swift test, for example --filter NAME
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh

packages=(bsdutils iproute2 nftables procps python3 util-linux)
# Only x86-64 has 32-bit targets beside 64-bit ones.
[ "$(uname -m)" != x86_64 ] || packages+=(gcc-multilib)
install_missing_to_build "${packages[@]}"
swift build --build-tests
Tests/Programs/build.sh "$(swift build --show-bin-path)/programs"
# The shipped program. It behaves differently from the debug build in some cases.
SOCKALIVE_STATIC=$(static_program)
export SOCKALIVE_STATIC
swift test --skip-build "$@"

echo
echo "A session on port 5633, idle for 9 s, through a firewall that forgets after 5 s:"
LAB_PROGRAMS=$(swift build --show-bin-path) Tests/Lab/run.sh

echo
Tests/Lab/servers.sh
