#!/bin/bash
# The scripts of cron/ with standard input, output or error closed or full, as schedulers and pipes leave them: each does
# all of its work and ends with its own exit code, whatever it cannot say.
#
#   streams.sh [PROGRAM]    PROGRAM: a static build; without it one is built
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
program=$(realpath "${1:-$(static_program)}")

# Each runs its words with some streams closed, full or open.
with_all_open() { "$@" </dev/null >"$work/out" 2>"$work/err"; }
without_input() { "$@" <&- >"$work/out" 2>"$work/err"; }
without_output() { "$@" </dev/null >&- 2>"$work/err"; }
without_errors() { "$@" </dev/null >"$work/out" 2>&-; }
without_any() { "$@" <&- >&- 2>&-; }
with_full_output() { "$@" </dev/null >/dev/full 2>"$work/err"; }
with_full_errors() { "$@" </dev/null >"$work/out" 2>/dev/full; }
with_both_full() { "$@" </dev/null >/dev/full 2>&1; }
all="with_all_open without_input without_output without_errors without_any with_full_output with_full_errors
    with_both_full"

# ends CODE STREAMS WORD…
ends() {
    local wanted=$1 status=0
    shift
    "$@" || status=$?
    [ $status = "$wanted" ] || fail "$* ended with $status, not $wanted: $(cat "$work/err")"
}

pre_backup() {
    local shell streams
    # Stands in for the program: says what it is told to, and ends as it is told to.
    mkdir -p "$work/bin"
    cat >"$work/bin/sockalive" <<'STUB'
#!/bin/sh
echo ran >>"$RAN"
[ -z "${SAY:-}" ] || echo "$SAY" || exit 1
[ "$CODE" = 0 ] || echo "sockalive: why $CODE" >&2
exit "$CODE"
STUB
    chmod 755 "$work/bin/sockalive"
    sed "s|^PATH=.*|PATH=$work/bin:/usr/bin:/bin|" cron/pre-backup >"$work/pre-backup"
    export RAN=$work/ran CODE
    for shell in sh bash "bash --posix" "busybox sh"; do
        command -v "${shell%% *}" >/dev/null || continue
        for streams in $all; do
            for CODE in 0 1 3 77; do
                rm -f "$work"/{ran,out,err}
                touch "$work"/{out,err}
                # shellcheck disable=SC2086 # A shell may have an option.
                ends $CODE $streams $shell "$work/pre-backup"
                [ "$(cat "$work/ran")" = ran ] || fail "$shell, $streams: it did not run once"
            done
        done
        CODE=3
        # shellcheck disable=SC2086
        ends 3 with_all_open $shell "$work/pre-backup"
        [ "$(cat "$work/err")" = "sockalive: why 3" ] || fail "$shell: it lost the reason: $(cat "$work/err")"
        # What the program prints goes where the hook's own output goes, and it learns if that cannot be written.
        CODE=0
        # shellcheck disable=SC2086
        SAY=report ends 0 with_all_open $shell "$work/pre-backup"
        [ "$(cat "$work/out")" = report ] || fail "$shell: it lost the report"
        for streams in without_output with_full_output; do
            # shellcheck disable=SC2086
            SAY=report ends 1 $streams $shell "$work/pre-backup"
        done
        echo "ok  pre-backup, $shell"
    done
}

install_script() {
    local streams
    for streams in $all; do
        rm -rf "$work/root" "$work"/{out,err}
        mkdir "$work/root"
        touch "$work"/{out,err}
        export DESTDIR=$work/root
        ends 0 "$streams" cron/install.sh --program "$program"
        for file in /usr/local/sbin/sockalive /usr/local/share/sockalive/manifest /etc/cron.d/sockalive \
            /usr/local/share/doc/sockalive/prometheus-rules.yml; do
            [ -s "$DESTDIR$file" ] || fail "install.sh, $streams: $file is missing"
        done
        cmp -s cron/sockalive.conf "$DESTDIR/etc/sockalive.conf" || fail "install.sh, $streams: another sockalive.conf"
        ends 64 "$streams" cron/install.sh --wrong
        ends 0 "$streams" cron/install.sh --uninstall
        [ -z "$(find "$DESTDIR" -mindepth 1)" ] || fail "install.sh, $streams: left behind: $(find "$DESTDIR")"
        unset DESTDIR
    done
    echo "ok  install.sh"
}

package_script() {
    local streams status
    for streams in $all; do
        rm -rf "$work/packages" "$work"/{out,err}
        touch "$work"/{out,err}
        # The names of the packages are its answer: without it the run has failed, and the packages are there.
        case $streams in
        without_output | without_any | with_full_output | with_both_full) status=1 ;;
        *) status=0 ;;
        esac
        ends $status "$streams" cron/package.sh --program "$program" --output "$work/packages"
        [ "$(find "$work/packages" -type f -size +100k | wc -l)" = 2 ] ||
            fail "package.sh, $streams: no two packages: $(cat "$work/err")"
        ends 64 "$streams" cron/package.sh --wrong
    done
    echo "ok  package.sh"
}

install_missing rpm
pre_backup
install_script
package_script
