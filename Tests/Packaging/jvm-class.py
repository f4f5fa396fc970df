#!/usr/bin/env python3
"""Writes a Java class, because a JRE has no compiler.

    jvm-class.py FOLDER NAME...

Each class has a main(String[]) that connects to 127.0.0.1 and the port of its first argument, and sleeps.
"""
import pathlib
import struct
import sys


class Constants:
    """The constant pool (The Java Virtual Machine Specification, 4.4)."""

    def __init__(self):
        self.entries = []

    def add(self, entry):
        if entry not in self.entries:
            self.entries.append(entry)
        return self.entries.index(entry) + 1

    def utf8(self, text):
        return self.add((1, struct.pack(">H", len(text)) + text.encode()))

    def text(self, text):
        return self.add((8, struct.pack(">H", self.utf8(text))))

    def of_class(self, name):
        return self.add((7, struct.pack(">H", self.utf8(name))))

    def method(self, owner, name, kind):
        pair = self.add((12, struct.pack(">HH", self.utf8(name), self.utf8(kind))))
        return self.add((10, struct.pack(">HH", self.of_class(owner), pair)))


def program(name):
    pool = Constants()
    this, parent = pool.of_class(name), pool.of_class("java/lang/Object")
    code = b"".join([
        b"\xbb", struct.pack(">H", pool.of_class("java/net/Socket")), b"\x59",  # new Socket; dup
        b"\x13", struct.pack(">H", pool.text("127.0.0.1")),  # ldc_w
        b"\x2a\x03\x32",  # aload_0; iconst_0; aaload
        b"\xb8", struct.pack(">H", pool.method("java/lang/Integer", "parseInt", "(Ljava/lang/String;)I")),
        b"\xb7", struct.pack(">H", pool.method("java/net/Socket", "<init>", "(Ljava/lang/String;I)V")),
        b"\x4c",  # astore_1: the socket stays reachable
        b"\x11\x7f\xff\x85",  # sipush 32767; i2l
        b"\x11\x03\xe8\x85\x69",  # sipush 1000; i2l; lmul
        b"\xb8", struct.pack(">H", pool.method("java/lang/Thread", "sleep", "(J)V")),
        b"\x2b\x57\xb1",  # aload_1; pop; return
    ])
    attribute = struct.pack(">HHI", 5, 2, len(code)) + code + struct.pack(">HH", 0, 0)
    main = struct.pack(">HHHH", 9, pool.utf8("main"), pool.utf8("([Ljava/lang/String;)V"), 1) + struct.pack(
        ">HI", pool.utf8("Code"), len(attribute)) + attribute
    constants = b"".join(struct.pack(">B", tag) + body for tag, body in pool.entries)
    # Version 49 needs no map of the stack.
    return struct.pack(">IHHH", 0xCAFEBABE, 0, 49, len(pool.entries) + 1) + constants + struct.pack(
        ">HHHHHH", 0x21, this, parent, 0, 0, 1) + main + struct.pack(">H", 0)


for name in sys.argv[2:]:
    (pathlib.Path(sys.argv[1]) / f"{name}.class").write_bytes(program(name))
