"""Curves in a terminal, of Braille dots: two across and four down in each character."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # bits of U+2800, by column and row
MARGIN = 9  # characters for the numbers on the left
Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """
    Attributes:
        points: (round, value); values that are not finite are left out.
        style: of rich.
    """

    name: str
    points: Sequence[Point]
    style: str


@dataclass(frozen=True)
class Plot:
    """Curves over rounds, as wide as there is room; later curves cover earlier ones.

    Attributes:
        number: how values are written at the axis.
        height: in lines, without those for the rounds and the names.
    """

    curves: Sequence[Curve]
    number: Callable[[float], str] = "{:.4g}".format
    height: int = 8

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        drawn = [
            Curve(curve.name, points, curve.style)
            for curve in self.curves
            if (points := [p for p in curve.points if math.isfinite(p[1])])
        ]
        if not drawn:
            yield Text("nothing measured yet", style="dim")
            return
        width = max(1, options.max_width - MARGIN - 1)
        xs, ys = zip(*(point for curve in drawn for point in curve.points), strict=True)
        bits = [[0] * width for _ in range(self.height)]
        styles = [[""] * width for _ in range(self.height)]
        across, down = _scale(xs, 2 * width), _scale(ys, 4 * self.height)
        for curve in drawn:
            dots = [(across(x), 4 * self.height - 1 - down(y)) for x, y in curve.points]
            for x, y in _joined(dots):
                bits[y // 4][x // 2] |= DOTS[x % 2][y % 4]
                styles[y // 4][x // 2] = curve.style
        labels = {0: self.number(max(ys)), self.height - 1: self.number(min(ys))}
        for row in range(self.height):
            line = Text(f"{labels.get(row, ''):>{MARGIN}} ")
            for bit, style in zip(bits[row], styles[row], strict=True):
                shown = chr(0x2800 + bit) if not options.ascii_only else "*" if bit else " "
                line.append(shown, style)
            yield line
        first, last = f"{min(xs):,.0f}", f"{max(xs):,.0f}"
        yield Text(f"{'':{MARGIN}} {first}{last:>{max(0, width - len(first))}}", style="dim")
        names = [Text(curve.name, style=curve.style) for curve in drawn]
        yield Text(f"{'':{MARGIN}} ") + Text("  ").join(names)


def _scale(values: Sequence[float], dots: int) -> Callable[[float], int]:
    """Maps the range of the values to 0..dots - 1; a single value to the middle."""
    low, high = min(values) / 2, max(values) / 2  # halves, so that no difference overflows
    if low == high:
        return lambda _: dots // 2
    return lambda value: round((value / 2 - low) / (high - low) * (dots - 1))


def _joined(dots: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The dots of straight lines from each dot to the next."""
    yield dots[0]
    for (x, y), (to_x, to_y) in itertools.pairwise(dots):
        steps = max(abs(to_x - x), abs(to_y - y))
        for i in range(1, steps + 1):
            yield x + round(i * (to_x - x) / steps), y + round(i * (to_y - y) / steps)
