"""Curves of dots: drawn where they should be, whatever the values."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hiso_ray.cli.watching.curves import Curve, Plot


def drawn(*curves: Curve, width: int = 14, height: int = 2, encoding: str = "utf-8") -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width)
    with console.capture() as capture:
        console.print(Plot(curves, height=height))
    return [line.rstrip(" ") for line in capture.get().splitlines()]


def test_a_straight_line_goes_from_corner_to_corner() -> None:
    # 4 characters wide and 2 high: 8 by 8 dots, so the diagonal is a dot in each row and column.
    curve = Curve("loss", [(0, 1.0), (7, 8.0)], "blue")
    assert drawn(curve) == [
        "        8 ⠀⠀⡠⠊",
        "        1 ⡠⠊⠀⠀",
        "          0  7",
        "          loss",
    ]
    assert drawn(curve, encoding="ascii")[:2] == ["        8   **", "        1 **"]


def test_two_curves_share_their_axes() -> None:
    low, high = Curve("a", [(0, 0.0), (3, 0.0)], "blue"), Curve("b", [(0, 1.0), (3, 1.0)], "red")
    assert drawn(low, high)[:2] == ["        1 ⠉⠉⠉⠉", "        0 ⣀⣀⣀⣀"]


@pytest.mark.parametrize("points", [[], [(0, float("nan"))], [(0, float("inf"))]])
def test_nothing_to_draw_is_said(points: list[tuple[int, float]]) -> None:
    assert drawn(Curve("loss", points, "blue"), width=40) == ["nothing measured yet"]


def test_any_width_and_any_values_can_be_drawn() -> None:
    wild = [(0, 1e308), (1, -1e308), (2, float("nan")), (3, 5e-324)]
    for points in (wild, [(5, 2.0)]):
        for width in (1, 9, 11, 200):
            assert len(drawn(Curve("x", points, "red"), width=width)) >= 3
