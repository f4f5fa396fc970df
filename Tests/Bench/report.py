"""Makes the tables and Docs/Performance.md with its plots: report.py RESULTS DOCS [large].

Figures are medians of all rounds. With "large" only the section about the large host is written again, and its plot.
"""
import collections
import datetime
import json
import os
import pathlib
import platform
import statistics
import string
import sys

import plot

LABELS = {
    "list": "`sockalive list`",
    "list-unit": "`sockalive list --unit`, no name",
    "list-container": "`sockalive list --container`, no name",
    "inject-unchanged": "`sockalive inject`, all set already",
    "inject": "`sockalive inject`, all to set",
    "pgrep": "`pgrep -x beremote`",
    "python": "Python script, all to set",
    "ss": "`ss -tnp`, filter on the port",
    "netstat": "`netstat -tnp`",
    "lsof": "`lsof -nP -iTCP:5633`",
}
# The longest time of list, as a multiple of a tool's time.
LIMITS = {"ss": 1 / 12, "lsof": 1 / 25, "pgrep": 0.3}
# The activity of a target before it is held, and the longest median pause in seconds.
RESTS = {"recv": "sleeps in recv(2)", "poll": "sleeps in poll(2) with a timeout", "spin": "never sleeps"}
OWNERS = {
    "": "",
    "-other": ", another user's",
    "-undumpable": ", another user's and undumpable: each call looked at",
}
PAUSES = {"recv": 250e-6, "spin": 1e-3}
# What grows on the large host, in the order of its files.
AXES = ("processes", "connections", "network namespaces")
SERIES = {"inject": "sockalive inject", "c": "the same calls in C", "python": "Python script"}


class Results:
    def __init__(self, folder):
        self.folder = folder
        self.times = collections.defaultdict(list)
        for path in self.files("*.json"):
            for result in json.loads(path.read_text())["results"]:
                self.times[result["command"]] += result["times"]

    def files(self, pattern):
        return sorted(pathlib.Path(self.folder).glob(pattern))

    def median(self, name):
        return statistics.median(self.times[name])

    def counts(self):
        return sorted(int(name[2:]) for name in self.times if name.startswith("c@"))

    def pauses(self):
        """The pause in microseconds for each socket, by kind of target."""
        kinds = collections.defaultdict(list)
        for path in self.files("*.pauses"):
            sockets = json.loads(path.read_text())["sockets"]
            kinds[path.name.split(".")[0].removeprefix("pause-")] += [s["paused_microseconds"] for s in sockets]
        return kinds

    def gap(self, name):
        """The longest stop of a target in a run, in seconds."""
        return statistics.median(int(line) for line in self.text(f"{name}.gaps").split()) / 1e9

    def large(self):
        """What the large host had, by the name of the scene: processes, connections, network namespaces."""
        return {path.stem: tuple(map(int, path.read_text().split())) for path in self.files("*.large")}

    def peak(self, name):
        """The peak memory of all processes, in MiB."""
        return int(self.text(f"{name}.memory").split()[-1]) / 1024

    def text(self, name):
        path = pathlib.Path(self.folder, name)
        return path.read_text() if path.exists() else ""


def duration(seconds):
    if seconds >= 9.95:
        return f"{seconds:.1f} s"
    if seconds >= 0.0995:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 0.00095 else f"{seconds * 1e6:.0f} µs"


def quartiles(values):
    values = sorted(values) * 2 if len(values) == 1 else sorted(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{duration(low)} – {duration(high)}"


def ratio(value):
    return f"{value:.2f}" if value >= 0.1 else f"1/{1 / value:.1f}"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def claims(results):
    """The limits: name, figure, limit, and whether it holds."""
    for tool, limit in LIMITS.items():
        share = results.median("list") / results.median(tool)
        yield f"`list` against {LABELS[tool]}", ratio(share), ratio(limit), share <= limit
    for name in ("list-unit", "list-container"):
        if results.times[name]:
            share = results.median(name) / results.median("ss")
            yield f"{LABELS[name]}, against {LABELS['ss']}", ratio(share), ratio(1 / 8), share <= 1 / 8
    for name in ("list", "inject"):
        peak = results.peak(name)
        yield f"peak memory of `{name}` on this host", f"{peak:.1f} MiB", "20 MiB", peak <= 20
    # The worker, and to parse three words.
    worker = results.median("nothing") - results.median("version")
    yield "a run with nothing to do, beyond `sockalive --version`", f"{worker * 1000:.2f} ms", "1 ms", worker <= 0.001
    start = results.median("version") / results.median("true")
    yield "`sockalive --version` against `/bin/true`", ratio(start), "4", start <= 4
    size = int(results.text("size")) / 1e6
    yield "the static program", f"{size:.1f} MB", "17 MB", size <= 17
    most = results.counts()[-1]
    # The C program has one thread.
    processors = len(os.sched_getaffinity(0))
    limit = 0.9 if processors > 1 else 2
    share = results.median(f"inject@{most}") / results.median(f"c@{most}")
    what = f"`inject` against C, {most:,} sockets, {processors} processors"
    yield what, ratio(share), f"{limit}", share <= limit
    share = results.median(f"inject@{most}") / results.median(f"python@{most}")
    yield f"`inject` against the Python script, {most:,} sockets", ratio(share), "1", share <= 1
    share = results.median(f"json@{most}") / results.median(f"table@{most}")
    yield f"`inject --json` against the table, {most:,} sockets", ratio(share), "1.3", share <= 1.3
    peak = results.peak(f"json@{most}")
    yield f"peak memory of `inject --json`, {most:,} sockets", f"{peak:.1f} MiB", "48 MiB", peak <= 48
    if most // 10 in results.counts():
        growth = results.median(f"inject@{most}") / results.median(f"inject@{most // 10}")
        yield f"`inject`, {most:,} sockets against {most // 10:,}", ratio(growth), "13", growth <= 13
    for name in sorted(name for name in results.times if name.startswith("probe-")):
        method, count = name.removeprefix("probe-").split("@")
        median, longest = results.median(name), max(results.times[name])
        what = f"`probe --method {method}`, {int(count):,} sockets (the slowest run)"
        yield what, f"{median:.2f} s ({longest:.2f} s)", "2 s", median <= 2
    for name in sorted(name for name in results.times if name.startswith("ptrace-again@")):
        count = int(name.split("@")[1])
        share = results.median(name) / results.median(f"ptrace@{count}")
        yield f"a later `inject` by ptrace against the first, {count:,} sockets", ratio(share), "0.5", share <= 0.5
    yield from large_claims(results)
    for rest, limit in PAUSES.items():
        pauses = results.pauses()[f"64-{rest}"]
        if pauses:
            median = statistics.median(pauses) / 1e6
            yield f"median pause by ptrace, {RESTS[rest]}", duration(median), duration(limit), median <= limit


def host_rows(results):
    for name in sorted((name for name in LABELS if results.times[name]), key=results.median):
        share = results.median("list") / results.median(name)
        yield [LABELS[name], duration(results.median(name)), quartiles(results.times[name]), ratio(share)]


def count_rows(results):
    for count in results.counts():
        medians = [results.median(f"{name}@{count}") for name in SERIES]
        yield [f"{count:,}", *map(duration, medians), ratio(medians[0] / medians[1])]


def large_names(results):
    """The scenes of the large host: the small one, those where one thing grows, and the one with everything."""
    sizes = results.large()
    grown = sorted((name for name in sizes if "-" in name), key=lambda name: (name[0], sizes[name]))
    return [name for name in ("small", *grown, "all") if name in sizes]


def large_rows(results):
    for name in large_names(results):
        listing, tool = results.median(f"large-list@{name}"), results.median(f"large-ss@{name}")
        peak = f"{results.peak(f'large@{name}'):.1f} MiB"
        sizes = [f"{size:,}" for size in results.large()[name]]
        yield [*sizes, duration(listing), duration(tool), ratio(listing / tool), peak]


def large_claims(results):
    names = large_names(results)
    if "all" not in names:
        return
    share = results.median("large-list@all") / results.median("large-ss@all")
    yield "`list` on the large host, against `ss -tnp` in each namespace", ratio(share), ratio(1 / 100), share <= 1 / 100
    peak = results.peak("large@all")
    yield "peak memory of `list` on the large host", f"{peak:.1f} MiB", "20 MiB", peak <= 20
    # The number of processes doubles in the last step; connections and namespaces grow from the small host's.
    for axis, limit in enumerate((2.2, 1.5, 2)):
        grown = [name for name in names if name.startswith(f"{axis}-")]
        first, last = (grown[-2] if axis == 0 and len(grown) > 1 else "small"), grown[-1]
        growth = results.median(f"large-list@{last}") / results.median(f"large-list@{first}")
        sizes = [results.large()[name][axis] for name in (last, first)]
        what = f"`list`, {sizes[0]:,} {AXES[axis]} against {sizes[1]:,}"
        yield what, ratio(growth), f"{limit:g}", growth <= limit


def large_plot(results):
    """Each axis by itself, as parts of what the largest host has of it."""
    sizes = results.large()
    points = {}
    for axis, what in enumerate(AXES):
        names = [name for name in large_names(results) if name == "small" or name.startswith(f"{axis}-")]
        most = sizes["all"][axis]
        points[f"{what}, up to {most:,}"] = [
            (100 * sizes[name][axis] / most, results.median(f"large-list@{name}") * 1e3) for name in names
        ]
    return plot.drawing(points, "Time of sockalive list while one thing grows", "per cent of the largest number")


def large_words(results):
    if "all" not in results.large():
        return {"large": "It was not measured here.", "large_date": datetime.date.today().isoformat()}
    head = [*AXES, "`sockalive list`", "`ss -tnp` in each", "`list`, of that", "peak memory of `list`"]
    return {"large": table(head, large_rows(results)), "large_date": datetime.date.today().isoformat()}


def pause_rows(results):
    pauses = results.pauses()
    for bits in ("64", "32"):
        for rest, label in RESTS.items():
            for owner, whose in OWNERS.items():
                values = sorted(pauses[f"{bits}-{rest}{owner}"])
                if values:
                    worst = values[int(len(values) * 0.99)]
                    figures = [statistics.median(values), worst, values[-1]]
                    yield [f"{bits} bits, {label}{whose}", *(duration(value / 1e6) for value in figures)]


def gap_rows(results):
    labels = {
        "nothing": "nobody at work",
        "pidfd": "`sockalive inject --method pidfd`",
        "ptrace": "`sockalive inject --method ptrace`",
        "gdb": "`gdb -p`, four `call setsockopt`",
    }
    for name, label in labels.items():
        if results.text(f"{name}.gaps"):
            yield [label, duration(results.gap(name)), f"{results.gap(name) / results.gap('ptrace'):.3g}"]


def owning(results):
    if "owner-other" not in results.times:
        return ""
    root, other = results.median("owner-root"), results.median("owner-other")
    return (
        f"\nTen sockets by pidfd: {duration(root)} of a process of root's, {duration(other)} of another user's, whose "
        f"rights a process of its own takes on first: {duration(max(0, other - root))} more.\n"
    )


def watching(results):
    words = results.text("watch.cpu").replace("Terminated", "").split()
    if not words:
        return ""
    user, system, elapsed = map(float, words[-3:])
    share = (user + system) / elapsed
    return f"\n`sockalive watch --every 5s` on the same host: {share:.2%} of one processor over {elapsed:.0f} s.\n"


def guarding(results):
    """Medians over the turns: of connect and accept, and of the processor time of a whole connection."""
    turns = collections.defaultdict(list)
    for line in results.text("guard").splitlines():
        kind, *figures = line.split()
        turns[kind].append([int(figure) for figure in figures])
    if not turns["with"] or not turns["without"]:
        return ""
    medians = {kind: [statistics.median(column) for column in zip(*rows)] for kind, rows in turns.items()}
    rows = [
        [what, *(f"{medians[kind][column] / 1e3:.1f} µs" for kind in ("without", "with")),
         f"{medians['with'][column] / medians['without'][column]:.3f}"]
        for column, what in enumerate(["connect(2) and accept(2)", "processor time of a whole connection"])
    ]
    return table(["1,000 connections a second, both ends in the place", "without", "guarded", "ratio"], rows)


def machine():
    def field(path, key):
        lines = pathlib.Path(path).read_text().splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "unknown")

    processor = field("/proc/cpuinfo", "model name")
    memory = int(field("/proc/meminfo", "MemTotal").split()[0]) / 2**20
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    kernel = platform.release().split("-")[0]
    return f"{os.cpu_count()} × {processor}, {memory:.0f} GiB, {system}, Linux {kernel}, {platform.machine()}"


def sections(page):
    """A page by its headings: the lines from one to the next, with it."""
    parts, heading = {"": []}, ""
    for line in page.splitlines(keepends=True):
        if line.startswith("## "):
            heading = line.strip()
        parts.setdefault(heading, []).append(line)
    return {heading: "".join(lines) for heading, lines in parts.items()}


def write_large(results, docs, template):
    """Replaces the section in the page, or puts it before the last one."""
    heading = "## A large host"
    section = string.Template(sections(template)[heading]).substitute(large_words(results))
    page = pathlib.Path(docs, "Performance.md")
    parts = sections(page.read_text())
    last = list(parts)[-1]
    if heading not in parts:
        parts[last] = section + parts[last]
    else:
        parts[heading] = section
    page.write_text("".join(parts.values()))


def main(folder, docs, only=""):
    results = Results(folder)
    template = pathlib.Path(__file__).with_name("performance.md").read_text()
    if "all" in results.large():
        pathlib.Path(docs, "large-host.svg").write_text(large_plot(results))
    if only == "large":
        write_large(results, docs, template)
        print(large_words(results)["large"])
        return
    held = [[what, figure, limit, "yes" if holds else "**no**"] for what, figure, limit, holds in claims(results)]
    points = {
        label: [(count, results.median(f"{name}@{count}") * 1e3) for count in results.counts()]
        for name, label in SERIES.items()
    }
    words = {
        **large_words(results),
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "claims": table(["", "measured", "at most", "held"], held),
        "host": table(["", "median", "middle half", "`list` takes, of that"], host_rows(results)),
        "watch": watching(results) + owning(results),
        "counts": table(["sockets", "`sockalive inject`", "C", "Python", "against C"], count_rows(results)),
        "pauses": table(["target", "median", "99 of 100 below", "the slowest"], pause_rows(results)),
        "guard": guarding(results) or "It was not measured here.",
        "gaps": table(["what was done meanwhile", "longest standstill", "against ptrace"], gap_rows(results)),
    }
    pathlib.Path(docs, "Performance.md").write_text(string.Template(template).substitute(words))
    title = "Time to set keepalive, against the number of sockets in one process"
    pathlib.Path(docs, "performance.svg").write_text(plot.drawing(points, title, "sockets"))
    shown = ("machine", "claims", "host", "large", "counts", "pauses", "gaps", "guard", "watch")
    print("\n\n".join(words[name] for name in shown))


main(*sys.argv[1:])
