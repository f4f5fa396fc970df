# shellcheck shell=bash
# The virtual machines of the matrix. To be sourced behind Tests/lib.sh.

# $work/root is what the initramfs has. $work goes when the script ends.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Of the script: the words that start qemu, and words of the kernel's command line. The console is the serial port.
machine=() append=

# lay_out SOCKALIVE BUSYBOX: what every machine has, in $work/root.
lay_out() {
    mkdir -p "$work/root/bin"
    cp Tests/Kernels/init "$work/root/init"
    cp "$2" "$work/root/bin/busybox"
    cp "$1" "$work/root/sockalive"
}

# pack: $work/root is complete.
pack() {
    (cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/base"
}

# check NAME FOLDER PROCESSOR ROWS: boots the kernel of that folder, and writes the rows to a file.
check() {
    local place=$work/$1 kernel=$2 seconds=$SECONDS
    mkdir "$place"
    # An initramfs may be several archives, one after the other.
    { cat "$work/base"; (cd "$kernel" && printf '%s\n' *.ko | cpio --quiet -o -H newc); } >"$place/initramfs"
    timeout --kill-after=5 "${BOOT_TIMEOUT:-900}" "${machine[@]}" -cpu "$3" -smp 2 -m 1024 -kernel "$kernel/vmlinuz" \
        -initrd "$place/initramfs" -nodefaults -display none -serial stdio -no-reboot \
        -append "quiet panic=-1 $append rows=$4" </dev/null 2>"$place/qemu" | tr -d '\r' >"$place/console" || true
    {
        grep -aE '^(===|ok  |WRONG|left out)' "$place/console" || true
        # What the model has, and qemu's emulation or this processor lacks.
        sed -n "s/.*\(CPUID[^:]*\)[: ]*.*\.\(avx512f\|avx2\|amx-tile\)\b.*/not tried with -cpu $3: \2 (\1)/p" \
            "$place/qemu" | sort -u
        if ! grep -aq '^=== .* rows, 0 wrong,' "$place/console"; then
            tail -n 30 "$place/console" "$place/qemu"
            echo "wrong on $(cat "$kernel/release") with -cpu $3"
        fi
        echo "$(cat "$kernel/release") with ${machine[*]} -cpu $3: $((SECONDS - seconds)) s"
    } >"$place/said"
    rm "$place/initramfs"
}

# start NAME FOLDER PROCESSOR ROWS: the same in the background. Two at a time: the rows of one use one processor.
names=()
start() {
    names+=("$1")
    [ "$(jobs -rp | wc -l)" -lt 2 ] || wait -n
    check "$@" &
}

# start_suites ARCHITECTURE PROCESSOR SUITE…: all rows on the kernels of these suites. $last is the folder of the last one;
# it is empty where none is to be had.
start_suites() {
    local architecture=$1 processor=$2 suite folder
    shift 2
    last=
    for suite; do
        if ! folder=$(Tests/Kernels/fetch.sh "$suite" "$architecture" 2>"$work/fetch"); then
            echo "skipped: the kernel of $suite: $(tail -1 "$work/fetch")"
            continue
        fi
        # shellcheck disable=SC2034 # for the script
        last=$folder
        start "$suite" "$folder" "$processor" all
    done
}

# print_rows: waits for all machines, and prints what they had to say. Fails if anything is wrong.
print_rows() {
    local name wrong=0
    wait
    for name in "${names[@]}"; do
        cat "$work/$name/said"
        if grep -q '^wrong on' "$work/$name/said"; then wrong=1; fi
    done
    return $wrong
}
