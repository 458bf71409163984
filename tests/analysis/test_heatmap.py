from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hiso_ray.analysis.heatmap import grid, heatmap, ink

NAN = float("nan")


def panel(values: list[list[float]], alphas: tuple[float, ...] = (0.1, 1.0)) -> pd.DataFrame:
    index = pd.Index([16, 64][: len(values)], name="federation.num_clients")
    return pd.DataFrame(values, index, pd.Index(alphas, name="federation.alpha"))


def said(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def hatched(axes: Axes) -> list[tuple[float, float]]:
    """(column, row) of the hatched cells."""
    return [(p.get_x() + 0.5, p.get_y() + 0.5) for p in axes.patches if p.get_hatch()]


def limits(figure: Figure) -> list[tuple[float, float]]:
    return [axes.images[0].get_clim() for axes in figure.axes if axes.images]


def test_grid_by_hand() -> None:
    table = pd.DataFrame(
        {
            "federation.num_clients": [64, 16, 16],
            "federation.alpha": [0.1, 1.0, 0.1],
            "score": [0.5, 0.7, 0.6],
        }
    )
    found = grid(table, "score")
    pd.testing.assert_frame_equal(found, panel([[0.6, 0.7], [0.5, NAN]]))
    assert grid(table, "score", "federation.alpha", "federation.num_clients").shape == (2, 2)
    with pytest.raises(ValueError, match=r"federation\.alpha = 0\.1 has several rows"):
        grid(pd.concat([table, table.tail(1)]), "score")


def test_cells_say_their_numbers_and_panels_share_colours() -> None:
    panels = {"hiso": panel([[0.5, 0.75], [0.25, 1.0]]), "decomfl": panel([[0.1, 0.2], [0.3, 0.4]])}
    figure = heatmap(panels, "Test accuracy", number="{:.0%}")
    hiso, decomfl, bar = figure.axes
    assert said(hiso) == ["50%", "75%", "25%", "100%"]
    assert (hiso.get_title(), decomfl.get_title()) == ("HiSo", "DeComFL")
    assert [label.get_text() for label in hiso.get_xticklabels()] == ["0.1", "1"]
    assert [label.get_text() for label in hiso.get_yticklabels()] == ["16", "64"]
    assert (hiso.get_xlabel(), hiso.get_ylabel()) == ("α", "clients")
    assert bar.get_ylabel() == "Test accuracy"
    assert limits(figure) == [(0.1, 1.0)] * 2


def test_missing_cells_are_hatched_and_say_why() -> None:
    words = panel([[NAN, NAN], [NAN, NAN]]).astype(object)
    words.loc[16, 0.1], words.loc[64, 1.0] = "≥ 3.1", "not reached"
    panels = {"hiso": panel([[3.1, NAN], [2.0, NAN]]), "decomfl": panel([[1.0, 1.5]])}
    hiso, decomfl, _ = heatmap(panels, "Speed-up", texts={"hiso": words}).axes
    assert said(hiso) == ["≥ 3.1", "no run", "2.00", "not reached"]
    assert hatched(hiso) == [(1, 0), (1, 1)]
    assert said(decomfl) == ["1.00", "1.50", "no run", "no run"]
    assert hatched(decomfl) == [(0, 1), (1, 1)]


def test_two_sided_colours_have_the_centre_in_the_middle() -> None:
    values = panel([[0.5, 1.0], [4.0, 2.0]])
    figure = heatmap({"hiso": values}, "Speed-up", 1, ratio=True)
    assert limits(figure) == [(0.25, 4.0)]  # as far as 4 is above 1, by ratio
    assert limits(heatmap({"hiso": 1 / values}, "Speed-up", 1, ratio=True)) == [(0.25, 4.0)]
    image = figure.axes[0].images[0]
    assert image.cmap(image.norm(1.0))[:3] == pytest.approx((1, 1, 1), abs=0.01)
    assert image.norm(2.0) == pytest.approx(0.75)
    ticks = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert ticks == ["0.25", "0.50", "1.00", "2.00", "4.00"]
    figure = heatmap({"hiso": values - 1}, "Difference", 0, number="{:+.1f}")
    assert limits(figure) == limits(heatmap({"hiso": 1 - values}, "Difference", 0)) == [(-3, 3)]
    assert said(figure.axes[0])[0] == "−0.5"  # a minus, not a hyphen


def test_maps_of_one_value_and_of_none_are_drawn() -> None:
    one = heatmap({"hiso": panel([[0.5, 0.5]])}, "Score")
    assert limits(one) == [(0.0, 1.0)]
    none = heatmap({"hiso": panel([[NAN, NAN]])}, "Rounds")
    (axes,) = none.axes  # no colour bar: it would be of nothing
    assert said(axes) == ["no run", "no run"]
    for figure in (one, none):
        figure.draw_without_rendering()


def test_what_cannot_be_mapped_is_said() -> None:
    with pytest.raises(ValueError, match="no cells to map"):
        heatmap({}, "Score")
    with pytest.raises(ValueError, match="a ratio is positive, -1 is not"):
        heatmap({"hiso": panel([[-1.0, 2.0]])}, "Speed-up", 1, ratio=True)


def test_text_can_be_read_on_every_colour() -> None:
    assert (ink((1, 1, 1)), ink((0, 0, 0)), ink((1, 1, 0)), ink((0, 0, 1))) == (
        "black", "white", "black", "white",
    )  # fmt: skip
    values = np.linspace(0, 1, 40).reshape(2, 20)
    figure = heatmap({"hiso": panel(values.tolist(), tuple(range(20)))}, "Score")
    assert {text.get_color() for text in figure.axes[0].texts} == {"black", "white"}


def test_many_panels_are_in_rows_and_long_names_in_lines() -> None:
    methods = ["hiso", "decomfl", *(f"hiso ({arm}, H in probe only)" for arm in "abcdef")]
    figure = heatmap({m: panel([[0.5, 0.75], [0.25, 1.0]]) for m in methods}, "Score")
    *maps, _ = figure.axes
    assert len(maps) == 8
    assert {axes.get_subplotspec().rowspan.start for axes in maps} == {0, 1}
    assert [bool(axes.get_ylabel()) for axes in maps] == [True, *[False] * 5, True, False]
    assert maps[-1].get_title().replace("\n", " ") == "HiSo (f, H in probe only)"
    assert "\n" in maps[-1].get_title()
