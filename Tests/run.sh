#!/bin/bash
# Installs what is missing, builds, runs every test. From a fresh clone, with nothing but the Swift toolchain.
#
#   Tests/run.sh [OPTION]…    the options are those of swift test: --filter NAME, say
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh

packages=(bsdutils iproute2 nftables procps python3 util-linux)
# 32-bit targets exist beside 64-bit ones on x86-64 only.
[ "$(uname -m)" != x86_64 ] || packages+=(gcc-multilib)
install_missing_to_build "${packages[@]}"
swift build --build-tests
# The program as it ships; the debug build and this one differ in behaviour.
SOCKALIVE_STATIC=$(static_program)
export SOCKALIVE_STATIC
swift test --skip-build "$@"

echo
echo "A session on port 5633, idle for 9 s, through a firewall that forgets after 5 s:"
LAB_PROGRAMS=$(swift build --show-bin-path) Tests/Lab/run.sh

echo
Tests/Lab/servers.sh
