#!/bin/bash
# Installs what is missing, builds, runs `sockalive demo`: a session lost without it, and one saved by it.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh

install_missing_to_build iproute2 nftables
program=$(built_program)
exec "$program" demo "$@"
