"""Line charts as SVG, with nothing but the standard library."""

import math
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 34, 44
COLOURS = ["#1b6ca8", "#c8553d", "#3a7d44", "#8a5a9e", "#b8860b", "#4d4d4d", "#d1698b", "#2a9d8f", "#7f7f00", "#00507f"]


@dataclass
class Line:
    name: str
    points: list  # (x, y)
    dashed: bool = False


def chart(title, x_name, y_name, lines, logarithmic=False, y_limit=100):
    """An SVG text; `y` runs from 0 to `y_limit`, `x` over all points."""
    scale = math.log2 if logarithmic else float
    xs = sorted({x for line in lines for x, _ in line.points})
    low, high = scale(xs[0]), scale(xs[-1])
    across = lambda x: LEFT + (scale(x) - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)
    up = lambda y: HEIGHT - BOTTOM - y / y_limit * (HEIGHT - TOP - BOTTOM)
    parts = [_text(LEFT, 18, title, "start", 14), _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_name)]
    parts.append(f'<g transform="rotate(-90 14 {HEIGHT / 2})">{_text(14, HEIGHT / 2, y_name)}</g>')
    for tick in range(5):
        y = y_limit * tick / 4
        parts.append(f'<path d="M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, up(y) + 4, f"{y:g}", "end"))
    for x in _ticks(xs, across):
        parts.append(_text(across(x), HEIGHT - BOTTOM + 16, f"{x:.0f}"))
    for index, line in enumerate(lines):
        parts += _drawn(line, COLOURS[index % len(COLOURS)], across, up, TOP + 10 + 17 * index)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>\n"])


def _ticks(xs, across):
    """As many of the values as have room beside each other."""
    shown = []
    for x in xs:
        if not shown or across(x) - across(shown[-1]) > 44:
            shown.append(x)
    return shown


def _drawn(line, colour, across, up, legend_y):
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    stroke = f'stroke="{colour}" stroke-width="2" fill="none"{dash}'
    dots = [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in line.points]
    legend = WIDTH - RIGHT + 12
    return [
        f'<polyline points="{path}" {stroke}/>',
        *dots,
        f'<path d="M{legend} {legend_y}h18" {stroke}/>',
        _text(legend + 24, legend_y + 4, line.name, "start"),
    ]


def _text(x, y, text, anchor="middle", size=11):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222">{text}</text>'
