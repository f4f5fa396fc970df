#!/bin/bash
# Installs missing packages, builds, and runs `sockalive demo`: a session is lost without sockalive, and one is saved.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh

install_missing_to_build iproute2 nftables
program=$(built_program)
exec "$program" demo "$@"
