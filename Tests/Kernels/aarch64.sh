#!/bin/bash
# Builds sockalive for aarch64 with this machine's Swift, boots kernels of Debian in qemu and runs it there: every kind of
# target by pidfd, the refusal of ptrace, list, probe and doctor; and after each the target's own word. It takes libraries
# from Debian sid, which moves: it is for a person, and no part of .ci/run. What is not to be had is skipped, with the
# reason. FoundationEssentials is a stand-in, so `--json` of doctor and of demo are not in this build.
# Usage: aarch64.sh [SUITE]…. Without a SUITE all four are tried: bullseye (5.10), bookworm (6.1), trixie (6.12) and sid (the
# newest).
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=Tests/lib.sh
. Tests/lib.sh
# shellcheck source=Tests/Kernels/boot.sh
. Tests/Kernels/boot.sh
[ $# -gt 0 ] || set -- bullseye bookworm trixie sid
command -v swiftc >/dev/null || skip "there is no Swift here"
toolchain=$(swiftc -print-target-info | sed -n 's,.*"runtimeResourcePath": "\(.*\)/lib/swift".*,\1,p')
for tool in clang ld.lld llvm-ar llvm-objcopy; do
    [ -x "$toolchain/bin/$tool" ] || skip "this machine's Swift has no $tool"
done
install_missing_to_build qemu-system-arm cpio xz-utils zstd debian-archive-keyring || skip "qemu cannot be installed here"
libraries=$(Tests/Kernels/fetch-swift.sh 2>"$work/fetch") || skip "the libraries of sid: $(tail -1 "$work/fetch")"
sysroot=$libraries/sysroot

# A Swift SDK: those libraries, with the C headers of this compiler. It stays for the next build, which compiles what has
# changed.
scratch=$PWD/.build-aarch64
sdk=$scratch/sdks/aarch64.artifactbundle
resources=$sdk/swift_static
stamp="$(cat "$libraries/release") $(swiftc --version 2>/dev/null | head -1) $(cksum <Tests/Kernels/FoundationEssentials.swift)"
if [ "$(cat "$sdk/stamp" 2>/dev/null)" != "$stamp" ]; then
    rm -rf "$sdk"
    mkdir -p "$sdk"
    cp -r "$sysroot/usr/lib/swift_static" "$resources"
    cp -rL "$toolchain/lib/swift/shims" "$resources/shims"
    ln -s "$(realpath "$toolchain/lib/swift/clang")" "$resources/clang"
    cat >"$sdk/info.json" <<'JSON'
{
  "schemaVersion": "1.0",
  "artifacts": { "aarch64": { "type": "swiftSDK", "version": "1", "variants": [{ "path": "." }] } }
}
JSON
    cat >"$sdk/swift-sdk.json" <<JSON
{
  "schemaVersion": "4.0",
  "targetTriples": {
    "aarch64-unknown-linux-gnu": {
      "sdkRootPath": "$sysroot",
      "swiftResourcesPath": "swift_static",
      "swiftStaticResourcesPath": "swift_static"
    }
  }
}
JSON
    module=$resources/linux/FoundationEssentials.swiftmodule
    mkdir "$module"
    swiftc -target aarch64-unknown-linux-gnu -sdk "$sysroot" -resource-dir "$resources" -static -O -parse-as-library \
        -module-cache-path "$scratch/modules" -module-name FoundationEssentials -module-link-name FoundationEssentials \
        -emit-module -emit-module-path "$module/aarch64-unknown-linux-gnu.swiftmodule" \
        -emit-library -o "$resources/linux/libFoundationEssentials.a" Tests/Kernels/FoundationEssentials.swift
    echo "$stamp" >"$sdk/stamp"
fi
program=$(built_program --swift-sdk aarch64 --swift-sdks-path "$scratch/sdks" --scratch-path "$scratch" \
    -c release -Xswiftc -static-executable)

lay_out "$program" "$libraries/busybox"
"$toolchain/bin/llvm-objcopy" --strip-all "$work/root/sockalive"
compile=("$toolchain/bin/clang" --target=aarch64-linux-gnu "--sysroot=$sysroot" -fuse-ld=lld
    -std=gnu17 -O2 -Wall -Wextra -pthread)
"${compile[@]}" -static Tests/Kernels/row.c -o "$work/root/row"
for name in victim-odd victim-sleeps; do
    "${compile[@]}" -pie -fPIE -static-libgcc "Tests/Programs/$name/main.c" -o "$work/root/$name-64"
    "${compile[@]}" -static "Tests/Programs/$name/main.c" -o "$work/root/$name-64-static"
    "${compile[@]}" -no-pie -static-libgcc "Tests/Programs/$name/main.c" -o "$work/root/$name-64-nopie"
done
# What the dynamic ones load.
mkdir -p "$work/root/lib/aarch64-linux-gnu"
cp -L "$sysroot/lib/ld-linux-aarch64.so.1" "$work/root/lib/"
cp -L "$sysroot/lib/aarch64-linux-gnu/libc.so.6" "$work/root/lib/aarch64-linux-gnu/"
pack

# Pointer authentication in full takes most of the time of an emulation.
machine=(qemu-system-aarch64 -M virt) append=console=ttyAMA0
start_suites arm64 max,pauth-impdef=on "$@"
print_rows
