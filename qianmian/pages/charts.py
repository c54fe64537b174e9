"""Charts as inline SVG: lines over categories or numbers, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qianmian.pages.markup import Markup, element

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 44  # margins
STYLES = (("#1f5fa8", None), ("#b4530a", "7 4"), ("#6b7280", "2 3"))  # colour and dashes of each line
TICKS = 4


@dataclass(frozen=True)
class ChartLine:
    """A line of a chart.

    Attributes
    ----------
    name : str
        Its name in the key.
    points : sequence of (float, float)
        Places, each from 0 to 1 of the width, and values.
    intervals : sequence of (float, float)
        Lowest and highest value of each point; empty without.
    marked : bool
        Whether each point has a mark.
    """

    name: str
    points: Sequence[tuple[float, float]]
    intervals: Sequence[tuple[float, float]] = ()
    marked: bool = False


def chart(
    title: str,
    lines: Sequence[ChartLine],
    labels: Sequence[tuple[float, str]],
    shown: Callable[[float], str],
    x_title: str = "",
) -> Markup:
    """A chart of lines.

    Parameters
    ----------
    title : str
        What it shows, for readers who cannot see it.
    lines : sequence of ChartLine
        At most three.
    labels : sequence of (float, str)
        Places on the horizontal axis, from 0 to 1, and their texts.
    shown : callable
        Value → its text on the vertical axis.
    x_title : str
        What the horizontal axis is.
    """
    values = [value for line in lines for _, value in line.points]
    values += [high for line in lines for _, high in line.intervals]
    top = _round_up(max(values, default=1.0))
    parts = []
    for tick in range(TICKS + 1):
        value = top * tick / TICKS
        y = _y(value, top)
        parts += [
            element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, stroke="#e2e5ea"),
            element("text", shown(value), x=LEFT - 8, y=y + 4, text_anchor="end"),
        ]
    for place, text in labels:
        parts.append(element("text", text, x=_x(place), y=HEIGHT - BOTTOM + 20, text_anchor="middle"))
    if x_title:
        parts.append(element("text", x_title, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, text_anchor="middle"))
    at = float(LEFT)
    for line, (colour, dashes) in zip(lines, STYLES, strict=False):
        for (place, _), (low, high) in zip(line.points, line.intervals, strict=False):
            x = _x(place)
            parts.append(
                element("line", x1=x, x2=x, y1=_y(low, top), y2=_y(high, top), stroke=colour, stroke_opacity=0.45)
            )
        path = " ".join(f"{_x(place)},{_y(value, top)}" for place, value in line.points)
        parts.append(
            element("polyline", points=path, fill="none", stroke=colour, stroke_width=2, stroke_dasharray=dashes)
        )
        if line.marked:
            parts += [element("circle", cx=_x(p), cy=_y(value, top), r=3.5, fill=colour) for p, value in line.points]
        parts += [
            element("line", x1=at, x2=at + 24, y1=14, y2=14, stroke=colour, stroke_width=2, stroke_dasharray=dashes),
            element("text", line.name, x=at + 30, y=18),
        ]
        at += 44 + sum(13 if ord(letter) > 255 else 6.6 for letter in line.name)
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)


def bar(share: float) -> Markup:
    """A bar of a share, from 0 to 1, for a cell of a table; the number stands beside it."""
    width = round(max(0.0, min(1.0, share)) * 100, 1)
    filled = element("rect", width=width, height=10, rx=2, fill=STYLES[0][0])
    return element("svg", filled, viewBox="0 0 100 10", class_="bar", aria_hidden="true")


def _x(place: float) -> float:
    return round(LEFT + place * (WIDTH - LEFT - RIGHT), 1)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM), 1)


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 4, 5 and 10 times a power of ten, so that the ticks have short numbers.

    Examples
    --------
    >>> _round_up(0.17), _round_up(1.0), _round_up(0.0)
    (0.2, 1.0, 1.0)
    """
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return float(next(f"{step * power:.6g}" for step in (1, 2, 2.5, 4, 5, 10) if step * power >= value * 0.9999))
