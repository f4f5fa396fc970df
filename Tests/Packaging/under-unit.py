#!/usr/bin/env python3
"""Runs a command under the restrictions of a systemd unit, where no systemd runs.

    under-unit.py UNIT [--without CAPABILITY] [--] COMMAND [ARGUMENT]...

Applied are CapabilityBoundingSet, NoNewPrivileges, SystemCallFilter, RestrictAddressFamilies and RestrictNamespaces
as systemd.exec(5) defines them. The sets of system calls come from systemd-analyze, the numbers from the C compiler.
"""
import ctypes
import re
import struct
import subprocess
import sys

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 24, 38, 22
LOAD, EQUAL, ANY_BIT, ANSWER = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ERRNO | EPERM
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
CLONE_NEWNET = 0x40000000
ALL_NAMESPACES = 0x7E020080
libc = ctypes.CDLL(None, use_errno=True)


def settings(path):
    found = {}
    for line in open(path):
        name, equals, value = line.strip().partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).extend(value.split() if name != "SystemCallFilter" else [value])
    return found


def output(*command, text=None):
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def expand(word):
    if not word.startswith("@"):
        return {word}
    lines = output("systemd-analyze", "syscall-filter", "--no-pager", word).split("\n")[1:]
    words = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return set().union(*(expand(inner) for inner in words))


def allowed_calls(filters):
    calls = set(expand("@default"))
    for line in filters:
        deny = line.startswith("~")
        for word in line.lstrip("~").split():
            calls = calls - expand(word) if deny else calls | expand(word)
    return calls


def macros(header, prefix):
    text = output("cc", "-E", "-dM", "-", text=f"#include <{header}>\n")
    return {name: int(value) for name, value in re.findall(rf"#define {prefix}(\w+) (\d+)\b", text)}


def seccomp_program(unit):
    numbers = macros("asm/unistd.h", "__NR_")
    program = [(LOAD, 0, 0, 0)]
    families = unit["RestrictAddressFamilies"]
    program += [(EQUAL, 0, len(families) + 3, numbers["socket"]), (LOAD, 0, 0, 16)]
    for index, family in enumerate(families):
        program.append((EQUAL, len(families) - index, 0, FAMILIES[family]))
    program += [(ANSWER, 0, 0, REFUSE), (ANSWER, 0, 0, ALLOW)]
    # setns(2): only the kind "net" is allowed, or none. 0 would mean any kind.
    kinds = {("net",): CLONE_NEWNET, ("yes",): 0}[tuple(unit["RestrictNamespaces"])]
    program += [(EQUAL, 0, 4, numbers["setns"]), (LOAD, 0, 0, 24)]
    program += [(EQUAL, 1, 0, kinds), (ANSWER, 0, 0, REFUSE), (ANSWER, 0, 0, ALLOW if kinds else REFUSE)]
    for call in ("unshare", "clone"):
        program += [(EQUAL, 0, 4, numbers[call]), (LOAD, 0, 0, 16)]
        program += [(ANY_BIT, 0, 1, ALL_NAMESPACES & ~kinds), (ANSWER, 0, 0, REFUSE), (ANSWER, 0, 0, ALLOW)]
    for call in sorted(numbers[name] for name in allowed_calls(unit["SystemCallFilter"]) if name in numbers):
        program += [(EQUAL, 0, 1, call), (ANSWER, 0, 0, ALLOW)]
    program.append((ANSWER, 0, 0, REFUSE))
    return program


def must(result, what):
    if result < 0:
        sys.exit(f"under-unit.py: {what}: error {ctypes.get_errno()}")


def main():
    path, *rest = sys.argv[1:]
    unit = settings(path)
    kept = set(unit["CapabilityBoundingSet"])
    while rest and rest[0].startswith("--"):
        word = rest.pop(0)
        if word == "--without":
            kept.remove(rest.pop(0))
        elif word == "--":
            break
    program = seccomp_program(unit)
    for name, number in macros("linux/capability.h", "CAP_").items():
        if "CAP_" + name not in kept and name not in ("LAST_CAP",):
            must(libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), f"dropping CAP_{name}")
    must(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", op, yes, no, k) for op, yes, no, k in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    arguments = (ctypes.c_char_p * (len(rest) + 1))(*[word.encode() for word in rest], None)
    environment = (ctypes.c_char_p * 1)(None)
    must(libc.prctl(PR_SET_SECCOMP, 2, header, 0, 0), "seccomp")
    libc.execve(rest[0].encode(), arguments, environment)
    sys.exit(f"under-unit.py: {rest[0]}: error {ctypes.get_errno()}")


main()
