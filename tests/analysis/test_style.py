from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hiso_ray.analysis import style
from hiso_ray.config.methods import METHODS


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
    variants = [f"{method} (int8)" for method in METHODS]
    assert style.looks([*METHODS, *variants])["fedprox"] == style.looks(["fedprox"])["fedprox"]
    assert style.looks(["aaa", "zzz", "aaa"]) == style.looks(["zzz", "aaa"])


def test_every_method_has_its_own_look_and_name() -> None:
    looks = style.looks(METHODS)
    assert set(METHODS) <= set(style.KNOWN) & set(style.NAMES)
    assert {m for m, look in looks.items() if look.line == "--"} == {
        m for m, row in METHODS.items() if row.sends == "weights"
    }
    # told apart by colour and line alone within a family, and by markers alone in grey
    assert len({(look.colour, look.line) for look in looks.values()}) == len(METHODS)
    assert len({look.marker for look in looks.values()}) == len(METHODS)


def test_variants_are_hollow_and_all_differ() -> None:
    arms = ("none", "tensor", "row", "scalar", "frozen", "random", "permuted", "oracle", "exact",
            "H in probe only", "H in update only", "scalar, H in probe only", "int8", "sign",
            "per_client directions", "rademacher", "momentum 0.9")  # fmt: skip
    variants = [f"{method} ({arm})" for method in ("hiso", "decomfl") for arm in arms]
    looks = style.looks([*METHODS, *variants, "fedavg (momentum 0.9)"])
    assert {m for m, look in looks.items() if look.filled} == set(METHODS)
    assert looks["fedavg (momentum 0.9)"].line == "--"
    assert looks["hiso (int8)"].line == "-"
    assert len({(look.colour, look.marker, look.filled) for look in looks.values()}) == len(looks)
    assert looks["hiso"].strokes()["mfc"] == looks["hiso"].colour
    assert looks["hiso (int8)"].strokes()["mfc"] == "white"


def test_names() -> None:
    shown = [style.name(m) for m in ("hiso", "decomfl", "hiso (scalar)", "fedavg", "mine")]
    assert shown == ["HiSo", "DeComFL", "HiSo (scalar H)", "FedAvg", "mine"]
    long = [style.name(m) for m in ("hiso (oracle, H in probe only)", "decomfl (int8)")]
    assert long == ["HiSo (oracle H, H in probe only)", "DeComFL (int8)"]
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


def test_a_tall_legend_leaves_its_panels_their_height() -> None:
    def panel(entries: int) -> float:
        figure = picture()
        style.legend(figure, [Line2D([], [], label=f"a method, {i}") for i in range(entries)])
        figure.draw_without_rendering()
        return figure.axes[0].get_window_extent().height

    assert panel(24) == pytest.approx(panel(6), rel=0.1)


def test_a_logarithmic_axis_has_plain_numbers() -> None:
    axes = Figure().subplots()
    axes.plot([0, 0.001, 1e6], [0, 1, 2])
    style.log(axes, "x")
    said = [axes.xaxis.get_major_formatter()(value, 0) for value in (0.001, 20, 5000, 1e6)]
    assert said == ["0.001", "20", "5,000", "1e+06"]
    assert axes.get_xlim()[0] > 0
    short = Figure().subplots()
    short.plot([0, 1], [0.15, 0.6])
    style.log(short, "y")
    assert {0.2, 0.5} <= {round(float(place), 6) for place in short.get_yticks()}
    none = Figure().subplots()
    none.plot([0, 1], [0, 0])
    style.log(none, "y")
    assert none.get_yscale() == "linear"


@pytest.mark.parametrize("entries", [1, 3, 9])
def test_a_legend_is_never_wider_than_the_picture(entries: int) -> None:
    figure = picture()
    lines = [Line2D([], [], label=f"a method, number {i}") for i in range(entries)]
    legend = style.legend(figure, lines)
    figure.draw_without_rendering()
    assert figure.legends == [legend]
    assert legend.get_window_extent().width <= figure.bbox.width
