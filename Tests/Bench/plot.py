"""Draws lines over an axis from 0, as SVG: readable on a light and on a dark page."""

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 30, 60

STYLE = """
    text { font: 13px sans-serif; fill: #24292f }
    .grid { stroke: #d0d7de } .ground { fill: #ffffff }
    .line { fill: none; stroke-width: 2.5 }
    .s0 { stroke: #0969da } .s1 { stroke: #57606a; stroke-dasharray: 6 4 } .s2 { stroke: #bc4c00; stroke-dasharray: 2 3 }
    circle.s0 { fill: #0969da } circle.s1 { fill: #57606a } circle.s2 { fill: #bc4c00 }
    @media (prefers-color-scheme: dark) {
        text { fill: #e6edf3 }
        .grid { stroke: #3d444d } .ground { fill: #0d1117 }
        .s0 { stroke: #4493f8 } .s1 { stroke: #9198a1 } .s2 { stroke: #f0883e }
        circle.s0 { fill: #4493f8 } circle.s1 { fill: #9198a1 } circle.s2 { fill: #f0883e }
    }
"""


def step(largest):
    """A round number, of which four to eight make the axis."""
    size = 10.0 ** -3
    while True:
        for factor in (1, 2, 5):
            if largest / (size * factor) <= 8:
                return size * factor
        size *= 10


def drawing(series, title, across):
    """Draws series: for each label, points (number, milliseconds). The horizontal axis is called across."""
    points = [point for line in series.values() for point in line]
    wide, high = (max(axis) for axis in zip(*points))
    x_step, y_step = step(wide), step(high)
    x_end, y_end = wide, y_step * -(-high // y_step)

    def x(count):
        return LEFT + (WIDTH - LEFT - RIGHT) * count / x_end

    def y(milliseconds):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * milliseconds / y_end

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}</title>",
        f'<style>{STYLE}</style><rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
    ]
    for index in range(round(y_end / y_step) + 1):
        at = y(index * y_step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{index * y_step:g}</text>')
    for index in range(int(x_end / x_step) + 1):
        at = x(index * x_step)
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{index * x_step:,.0f}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">{across}</text>')
    parts.append(f'<text x="{LEFT - 8}" y="{TOP - 12}" text-anchor="end">ms</text>')
    for index, (label, line) in enumerate(series.items()):
        path = " ".join(f"{x(count):.1f},{y(time):.1f}" for count, time in line)
        parts.append(f'<polyline class="line s{index}" points="{path}"/>')
        parts += [f'<circle class="s{index}" cx="{x(c):.1f}" cy="{y(t):.1f}" r="3.5"/>' for c, t in line]
        legend = TOP + 16 + 22 * index
        parts.append(f'<line class="line s{index}" x1="{LEFT + 16}" x2="{LEFT + 56}" y1="{legend}" y2="{legend}"/>')
        parts.append(f'<text x="{LEFT + 66}" y="{legend + 4}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])
