#!/usr/bin/env python3
"""Validates the program's JSON, for sockets of this script, against Docs/sockalive-output.schema.json.

    schema.py PROGRAM [FOLDER]    FOLDER: documents of the tests (SOCKALIVE_TESTS_KEEP_JSON); needs jsonschema
"""
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading

import jsonschema

program = sys.argv[1]
schema = json.loads((pathlib.Path(__file__).parent.parent.parent / "Docs/sockalive-output.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)

ends = []
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    listener = socket.create_server((address, 0), family=family)
    client = socket.create_connection(listener.getsockname()[:2])
    ends += [listener, client, listener.accept()[0]]
ends[1].shutdown(socket.SHUT_WR)

me = ["--pid", str(os.getpid()), "--any-port"]
gone = ["--pid", "4194304"]
# A thread's number is refused: the document has failed_processes.
worker = threading.Thread(target=threading.Event().wait, daemon=True)
worker.start()
thread = ["--pid", str(worker.native_id), "--any-port"]
runs = [
    ["list", *me], ["list", *me, "--listeners"], ["list", *me, "--half-closed"],
    ["list", *gone],
    ["inject", *me, "--dry-run"], ["inject", *me, "--no-lock"], ["inject", *me, "--no-lock", "--method", "ptrace"],
    ["inject", *me, "--no-lock", "--user-timeout", "1h"], ["inject", *me, "--no-lock", "--off"], ["inject", *gone],
]
rules = tempfile.NamedTemporaryFile("w", suffix=".conf")
rules.write(f"--pid {os.getpid()} --any-port\n--pid {os.getpid()} --any-port --firewall-timeout 10m\n")
rules.write(f"--pid {os.getpid()} --port 1 --firewall-timeout 20m\n")
rules.flush()
runs += [["probe", *me, "--no-lock"], ["list", "--config", rules.name], ["doctor", *me], ["doctor", *gone]]
# Before Linux 5.9, or without cgroup2, there are no guards and no document.
if subprocess.run([program, "guard", "status", "--json"], capture_output=True).returncode == 0:
    runs.append(["guard", "status"])
runs += [["list", *thread], ["inject", *thread, "--no-lock"], ["probe", *thread, "--no-lock"], ["doctor", *thread]]

failures = 0
for words in runs:
    answer = subprocess.run([program, *words, "--json"], capture_output=True, text=True)
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(answer.stdout))]
    failures += bool(errors)
    print("WRONG" if errors else "ok   ", " ".join(words), *errors[:5], sep="  ")

kept = sorted(pathlib.Path(sys.argv[2]).iterdir()) if len(sys.argv) > 2 else []
for file in kept:
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(file.read_text()))]
    if errors:
        failures += 1
        print("WRONG", file, *errors[:5], sep="  ")
if len(sys.argv) > 2:
    print(f"{len(kept)} documents that the tests produced, {failures} wrong")
    failures += len(kept) == 0

# The schema must also reject a broken document.
broken = json.loads(subprocess.run([program, "list", *me, "--json"], capture_output=True, text=True).stdout)
del broken["sockets"][0]["verdict"]
failures += validator.is_valid(broken)
sys.exit(1 if failures else 0)
