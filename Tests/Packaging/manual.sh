#!/bin/bash
# Checks the manual page: mandoc finds no error, and the page has exactly the options of all commands.
#
#   manual.sh [PROGRAM]
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh
install_missing mandoc
page=Docs/sockalive.8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Other pages need not be installed on this machine.
complaints=$(mandoc -T lint -W style "$page" 2>&1 | grep -vE 'referenced manual not found|outdated mandoc.db' || true)
[ -z "$complaints" ] || fail "$complaints"
[ -z "$(awk 'length > 80' "$page")" ] || fail "longer than 80: $(awk 'length > 80' "$page")"

program=${1:-$(built_program)}

options() {
    grep -oE -- '--[a-z]+(-[a-z]+)*' | sort -u
}

commands=$("$program" --help | sed -n '/^SUBCOMMANDS:/,$s/^  \([a-z]\{1,\}\) .*/\1/p' | grep -v '^help$')
[ -n "$commands" ] || fail "--help names no commands"
for command in $commands; do
    {
        "$program" help "$command"
        # Of a command with commands of its own, theirs.
        for inner in $("$program" help "$command" | sed -n '/^SUBCOMMANDS:/,$s/^  \([a-z]\{1,\}\) .*/\1/p'); do
            "$program" help "$command" "$inner"
        done
    } | sed -n 's/^ \{2,8\}\(-.*\)/\1/p' | sed 's/   .*//' | options
    grep -q "^\.It Cm $command\$" "$page" || fail "the page has no command $command"
done | sort -u | grep -vxE -- '--(help|version)' >"$work/help"
# Options in the text may belong to other programs; entries of a list may not.
sed -n 's/^\.It //p' "$page" | grep -oE 'Fl -[a-z-]+' | sed 's/^Fl /-/' | sort -u |
    grep -vxE -- '--(help|version)' >"$work/page"
difference=$(diff "$work/help" "$work/page") || true
[ -z "$difference" ] || fail "help (<) and page (>) differ:
$difference"
echo "the page has every option of: ${commands//$'\n'/ }"
