#!/usr/bin/env python3
"""Prints the peak memory of a command and its children in KiB: the sum of their Pss, which counts a shared page once.

Usage: memory.py ROUNDS COMMAND... It samples as fast as it can, so a short command needs many rounds.
"""
import pathlib
import subprocess
import sys


def family(pid):
    """The process and its descendants."""
    members = [pid]
    for member in members:
        try:
            members += map(int, pathlib.Path(f"/proc/{member}/task/{member}/children").read_text().split())
        except OSError:
            pass
    return members


def pss(pid):
    try:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


peak = 0
for _ in range(int(sys.argv[1])):
    with subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
        while command.poll() is None:
            peak = max(peak, sum(map(pss, family(command.pid))))
print(peak)
