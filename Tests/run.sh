#!/bin/bash
# Installs what is missing, builds, runs every test. From a fresh clone, with nothing but the Swift toolchain.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh

# 32-bit targets exist beside 64-bit ones on x86-64 only.
[ "$(uname -m)" != x86_64 ] || install_missing gcc-multilib
install_missing_to_build bsdutils iproute2 nftables util-linux
swift build --build-tests
swift test --skip-build

echo
echo "A session on port 5633, idle for 9 s, through a firewall that forgets after 5 s:"
LAB_PROGRAMS=$(swift build --show-bin-path) Tests/Lab/run.sh

echo
Tests/Lab/servers.sh
