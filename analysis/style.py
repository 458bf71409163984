"""The one style of the pictures: what a method looks like and is called, sizes, and saving."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.legend import Legend

# Okabe and Ito's colours, which colour-blind readers can tell apart; yellow is too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.4,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "svg.hashsalt": "hiso-ray",  # else the ids in an SVG are drawn anew each time
}
# Dates left out, so that equal pictures are equal files.
METADATA: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
NAMES = {
    "hiso": "HiSo",
    "decomfl": "DeComFL",
    "hiso (scalar)": "HiSo (scalar H)",
    "hiso (none)": "HiSo (H = 1)",
}
FIELDS = {
    "federation.alpha": "α",
    "federation.num_clients": "clients",
    "federation.clients_per_round": "clients per round",
    "federation.local_steps": "τ",
    "method.lr": "η",
    "method.mu": "μ",
    "method.num_perturbations": "P",
    "method.hessian_retention": "β",
}


@dataclass(frozen=True)
class Look:
    """How a method's lines are drawn."""

    colour: str
    marker: str


KNOWN = {
    "hiso": Look(COLOURS[0], "o"),
    "decomfl": Look(COLOURS[1], "s"),
    "hiso (scalar)": Look(COLOURS[2], "^"),
    "hiso (none)": Look(COLOURS[3], "D"),
}
OTHERS = tuple(Look(colour, marker) for marker in "vPX" for colour in COLOURS[4:])


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """A look for each method: known ones have the same in every picture, whatever else it shows.

    Others follow, and take what is left in the order of their names.
    """
    shown = set(methods)
    others = sorted(shown - set(KNOWN))
    cycle = {method: OTHERS[i % len(OTHERS)] for i, method in enumerate(others)}
    return {method: look for method, look in KNOWN.items() if method in shown} | cycle


def name(method: str) -> str:
    """What a method is called in a picture; one that is not known, by its label."""
    return NAMES.get(method, method)


def field_name(field: str) -> str:
    """``federation.alpha`` -> α; a field without a symbol by its last part, in words."""
    return FIELDS.get(field, field.rpartition(".")[2].replace("_", " "))


def value_name(value: Any) -> str:
    """A field's value, short: 0.1, 128, auto."""
    return value if isinstance(value, str) else f"{value:.6g}"


def percent(value: float, _: int | None = None) -> str:
    """A score on an axis: 0.925 -> 92.5%; a tick formatter."""
    return f"{100 * value:.4g}%"


def legend(figure: Figure, handles: Sequence[Artist]) -> Legend:
    """A legend above the panels, in as few lines as the figure's width allows."""
    for ncols in range(len(handles), 0, -1):
        made = figure.legend(handles=handles, loc="outside upper center", ncols=ncols)
        if ncols == 1 or made.get_window_extent().width <= figure.bbox.width:
            break
        made.remove()
    return made


def save(figure: Figure, path: Path | str) -> list[Path]:
    """Writes a picture; equal figures give equal files.

    Args:
        path: ending in .pdf, .svg or .png, or without one of these: all three are written.

    Returns:
        the files.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    ending = path.suffix[1:].lower()
    if ending.isalpha() and ending not in METADATA:
        raise ValueError(
            f"{path}: pictures are written as {', '.join(METADATA)}; end the name with one of "
            "these, or leave the ending out for all of them"
        )
    # "alpha0.1" has no ending: what follows its dot is part of the name.
    chosen = [ending] if ending in METADATA else list(METADATA)
    files = [path if kind == ending else path.with_name(f"{path.name}.{kind}") for kind in chosen]
    with matplotlib.rc_context(STYLE):
        for kind, file in zip(chosen, files, strict=True):
            figure.savefig(file, format=kind, metadata=METADATA[kind])
    return files
