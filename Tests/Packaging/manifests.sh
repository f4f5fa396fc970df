#!/bin/bash
# Checks the manifests of cron/kubernetes against the schemas of two versions of Kubernetes, with nothing unknown in them
# (kubernetes-validate from PyPI), and that the quadlet has only keys that podman-systemd.unit(5) knows. Image and
# arguments are those of the image and of the program.
#
#   manifests.sh PROGRAM
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh
program=${1:-$(built_program)}
install_missing python3 python3-venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/python"
"$work/python/bin/pip" --quiet install 'kubernetes-validate>=1.37,<1.38'
for version in 1.30 1.37; do
    "$work/python/bin/kubernetes-validate" --strict --quiet --kubernetes-version "$version" cron/kubernetes/*.yaml ||
        fail "the schema of Kubernetes $version"
done
version=$(program_version)
for file in cron/kubernetes/daemonset.yaml cron/kubernetes/sidecar.yaml cron/quadlet/sockalive.container; do
    grep -q "localhost/sockalive:$version" "$file" || fail "$file: the image is not that of version $version"
done
# The rules in the manifests are rules.
for file in cron/kubernetes/*.yaml; do
    sed -n '/sockalive.conf: |/,/^---/{/^    /s/^ *//p}' "$file" >"$work/rules"
    grep -q '^--' "$work/rules" || fail "$file has no rules"
    "$program" list --quiet --timeout 10s --config "$work/rules" || [ $? != 64 ] || fail "$file: wrong rules"
done
known="Image ContainerName Exec Notify Volume Network ReadOnly DropCapability AddCapability NoNewPrivileges
SecurityLabelDisable PodmanArgs HealthCmd HealthInterval HealthTimeout HealthRetries"
sed -n '/^\[Container\]/,/^\[Service\]/s/^\([A-Za-z]*\)=.*/\1/p' cron/quadlet/sockalive.container |
    grep -vxF "${known// /$'\n'}" && fail "podman-systemd.unit(5) has no such key"
echo "ok  the manifests and the quadlet"
