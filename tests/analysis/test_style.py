from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import style


def picture() -> Figure:
    figure = Figure(figsize=(3, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], marker="o")
    axes.set_title("α = 0.1")
    return figure


def test_a_known_method_looks_the_same_whatever_else_is_shown() -> None:
    alone = style.looks(["decomfl"])["decomfl"]
    together = style.looks(["zzz", "hiso", "decomfl", "aaa", "hiso (scalar)", "hiso (none)"])
    assert together["decomfl"] == alone
    assert list(together) == ["hiso", "decomfl", "hiso (scalar)", "hiso (none)", "aaa", "zzz"]
    assert len({(look.colour, look.marker) for look in together.values()}) == 6
    assert style.looks(["aaa", "zzz", "aaa"]) == style.looks(["zzz", "aaa"])


def test_names() -> None:
    shown = [style.name(m) for m in ("hiso", "decomfl", "hiso (scalar)", "fedavg")]
    assert shown == ["HiSo", "DeComFL", "HiSo (scalar H)", "fedavg"]
    fields = ("federation.alpha", "federation.min_examples", "seed")
    assert [style.field_name(f) for f in fields] == ["α", "min examples", "seed"]
    assert [style.value_name(v) for v in (10.0, 0.1, 128, "auto")] == ["10", "0.1", "128", "auto"]
    assert [style.percent(v) for v in (0.4, 0.925, 1 / 3)] == ["40%", "92.5%", "33.33%"]


def test_saves_what_the_ending_says_or_all(tmp_path: Path) -> None:
    assert style.save(picture(), tmp_path / "one.svg") == [tmp_path / "one.svg"]
    # what follows the dot of "alpha0.1" is no ending
    files = style.save(picture(), str(tmp_path / "alpha0.1"))
    assert [file.name for file in files] == ["alpha0.1.pdf", "alpha0.1.svg", "alpha0.1.png"]
    begins = [file.read_bytes()[:4] for file in files]
    assert begins == [b"%PDF", b"<?xm", b"\x89PNG"]
    with pytest.raises(ValueError, match="written as pdf, svg, png"):
        style.save(picture(), tmp_path / "one.jpg")


def test_equal_pictures_are_equal_files(tmp_path: Path) -> None:
    for a, b in zip(
        style.save(picture(), tmp_path / "a"), style.save(picture(), tmp_path / "b"), strict=True
    ):
        assert a.read_bytes() == b.read_bytes()
    assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()


@pytest.mark.parametrize("entries", [1, 3, 9])
def test_a_legend_is_never_wider_than_the_picture(entries: int) -> None:
    figure = picture()
    lines = [Line2D([], [], label=f"a method, number {i}") for i in range(entries)]
    legend = style.legend(figure, lines)
    figure.draw_without_rendering()
    assert figure.legends == [legend]
    assert legend.get_window_extent().width <= figure.bbox.width
