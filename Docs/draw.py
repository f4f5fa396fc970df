#!/usr/bin/env python3
"""Draws what a terminal was sent, on standard input, as an SVG with a dark panel of its own.

    draw.py FILE
"""
import re
import sys
from html import escape

WIDTH, HEIGHT, MARGIN = 8.4, 20, 20
COLOURS = {31: "#ff7b72", 32: "#7ee787", 33: "#e3b341", 34: "#79c0ff", 35: "#d2a8ff", 36: "#76e3ea", 90: "#8b949e"}
SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


def screen(text):
    """Rows of [(character, style)]: carriage return, cursor up, erase and colour are obeyed."""
    rows, row, column, style, at = [[]], 0, 0, (None, False), 0
    while at < len(text):
        found = SEQUENCE.match(text, at)
        if found:
            numbers = [int(n) for n in re.findall(r"\d+", found[1])] or [0]
            if found[2] == "m":
                for number in numbers:
                    if number == 0:
                        style = (None, False)
                    elif number == 1:
                        style = (style[0], True)
                    elif number in COLOURS or number == 2:
                        style = (COLOURS[90 if number == 2 else number], style[1])
                    elif number in (22, 39):
                        style = (style[0] if number == 22 else None, style[1] and number != 22)
            elif found[2] == "A":
                row = max(0, row - max(1, numbers[0]))
            elif found[2] == "K":
                del rows[row][column:]
            elif found[2] == "J":
                del rows[row][column:], rows[row + 1:]
            at = found.end()
            continue
        character = text[at]
        at += 1
        if character == "\n":
            row, column = row + 1, 0
            if row == len(rows):
                rows.append([])
        elif character == "\r":
            column = 0
        elif character >= " ":
            rows[row].extend([(" ", (None, False))] * (column - len(rows[row])))
            rows[row][column:column + 1] = [(character, style)]
            column += 1
    while rows and not rows[-1]:
        rows.pop()
    return rows


def runs(row):
    start = 0
    for end in range(1, len(row) + 1):
        if end == len(row) or row[end][1] != row[start][1]:
            yield start, "".join(c for c, _ in row[start:end]), row[start][1]
            start = end


def words(row):
    """Each word group at its own column, so that a font that is not monospaced keeps the table's columns."""
    for column, text, style in runs(row):
        for found in re.finditer(r"\S+(?: \S+)*", text):
            yield column + found.start(), found[0], style


rows = screen(sys.stdin.buffer.read().decode(errors="replace"))
width = max(map(len, rows)) * WIDTH + 2 * MARGIN
height = len(rows) * HEIGHT + 2 * MARGIN
with open(sys.argv[1], "w") as svg:
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
          f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14">', file=svg)
    print('<rect width="100%" height="100%" rx="8" fill="#0d1117" stroke="#6e7681"/>', file=svg)
    for number, row in enumerate(rows):
        for column, text, (colour, bold) in words(row):
            weight = ' font-weight="bold"' if bold else ""
            print(f'<text x="{MARGIN + column * WIDTH:.1f}" y="{MARGIN + 14 + number * HEIGHT}" '
                  f'textLength="{len(text) * WIDTH:.1f}" lengthAdjust="spacingAndGlyphs" '
                  f'fill="{colour or "#e6edf3"}"{weight}>{escape(text)}</text>', file=svg)
    print("</svg>", file=svg)
