"""The style of all pictures: the looks and names of methods, sizes, and saving."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import LogLocator, NullFormatter

from hiso_ray.config.methods import METHODS
from hiso_ray.errors import UserError
from hiso_ray.run_folder.whole_files import whole

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
    "svg.hashsalt": "hiso-ray",  # else each save gives an SVG other random ids
}
COLUMN_HOLDS = 6  # methods that fit in a picture one column wide
LEGEND_HEIGHT = 0.7  # inches included in pictures' heights: three or four lines
SHORT = 50  # a logarithmic axis with highest ÷ lowest below this has ticks between powers of ten
# Dates left out, so that equal pictures are equal files.
METADATA: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
NAMES = {
    "hiso": "HiSo",
    "decomfl": "DeComFL",
    "mezo": "MeZO",
    "hizoo": "HiZOO",
    "feedsign": "FeedSign",
    "fedkseed": "FedKSeed",
    "ferret": "Ferret",
    "fedzo": "FedZO",
    "fedavg": "FedAvg",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "fedadagrad": "FedAdagrad",
    "fedprox": "FedProx",
}
# Clearer words for what a variant's label has in brackets.
VARIANTS = {
    "none": "H = 1",
    "diagonal": "diagonal H",
    "tensor": "H per tensor",
    "row": "H per row",
    "scalar": "scalar H",
    "frozen": "frozen H",
    "random": "random H",
    "permuted": "permuted H",
    "oracle": "oracle H",
    "per_client directions": "own directions",
    "rademacher": "±1 directions",
    "forward": "forward probe",
    "central": "central probe",
    "exact": "exact probe",
    "sign": "signs",
}
FIELDS = {
    "federation.alpha": "α",
    "federation.num_clients": "clients",
    "federation.clients_per_round": "clients per round",
    "federation.local_steps": "τ",
    "method.lr": "η",
    "method.mu": "μ",
    "method.num_perturbations": "P",
    "method.projections": "K",
    "method.hessian_retention": "β",
}


@dataclass(frozen=True)
class Look:
    """How a method's lines are drawn.

    Attributes:
        line: solid for methods that send scalars, dashed for those that send weights.
        filled: of the marker; hollow for variants of a method.
    """

    colour: str
    marker: str
    line: str = "-"
    filled: bool = True

    def strokes(self, size: float = 3.5, width: float = 1.4) -> dict[str, Any]:
        """Arguments of a line: colour, line style and marker, in points."""
        return {
            "color": self.colour,
            "ls": self.line,
            "lw": width,
            "marker": self.marker,
            "ms": size,
            "mfc": self.colour if self.filled else "white",
        }


KNOWN = {
    "hiso": Look(COLOURS[0], "o"),
    "decomfl": Look(COLOURS[1], "s"),
    "mezo": Look(COLOURS[2], "v"),
    "hizoo": Look(COLOURS[3], "P"),
    "feedsign": Look(COLOURS[4], "X"),
    "fedkseed": Look(COLOURS[6], "D"),
    "ferret": Look(COLOURS[5], "H"),
    "fedzo": Look(COLOURS[5], "<", "--"),
    "fedavg": Look(COLOURS[6], ">", "--"),
    "fedadam": Look(COLOURS[2], "^", "--"),
    "fedyogi": Look(COLOURS[3], "*", "--"),
    "fedadagrad": Look(COLOURS[4], "d", "--"),
    "fedprox": Look(COLOURS[0], "p", "--"),
    "hiso (scalar)": Look(COLOURS[2], "^", filled=False),
    "hiso (none)": Look(COLOURS[3], "D", filled=False),
    "hiso (tensor)": Look(COLOURS[4], "s", filled=False),
    "hiso (row)": Look(COLOURS[5], "v", filled=False),
    "hiso (frozen)": Look(COLOURS[2], "o", filled=False),
    "hiso (random)": Look(COLOURS[1], "P", filled=False),
    "hiso (permuted)": Look(COLOURS[0], "X", filled=False),
    "hiso (oracle)": Look(COLOURS[6], "*", filled=False),
    "hiso (H in probe only)": Look(COLOURS[3], "<", filled=False),
    "hiso (H in update only)": Look(COLOURS[4], ">", filled=False),
}
# Colour and marker of every other label: neighbours differ in both, and known labels use none.
OTHERS = tuple(
    look
    for i in range(49)
    if (look := (COLOURS[i % 7], "svDXo^P"[(i + i // 7) % 7]))
    not in {(known.colour, known.marker) for known in KNOWN.values()}
)


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """A look for each method: known ones look the same in every picture.

    Others take the remaining looks in the order of their names; up to 36 differ.
    """
    shown = set(methods)
    others = sorted(shown - set(KNOWN))
    left = {m: Look(*OTHERS[i % len(OTHERS)], _line(m), False) for i, m in enumerate(others)}
    return {method: look for method, look in KNOWN.items() if method in shown} | left


def _line(method: str) -> str:
    row = METHODS.get(method.partition(" (")[0])
    return "--" if row is not None and row.sends == "weights" else "-"


def name(method: str) -> str:
    """A method's name in a picture: ``hiso (scalar)`` -> HiSo (scalar H); the label itself, if it
    is not known."""
    base, bracket, inside = method.partition(" (")
    if not bracket:
        return NAMES.get(method, method)
    parts = (VARIANTS.get(part, part) for part in inside.removesuffix(")").split(", "))
    return f"{NAMES.get(base, base)} ({', '.join(parts)})"


def field_name(field: str) -> str:
    """``federation.alpha`` -> α; for a field without a symbol, its last part in words."""
    return FIELDS.get(field, field.rpartition(".")[2].replace("_", " "))


def value_name(value: Any) -> str:
    """A field's value, short: 0.1, 128, auto."""
    return value if isinstance(value, str) else f"{value:.6g}"


def percent(value: float, _: int | None = None) -> str:
    """A score on an axis: 0.925 -> 92.5%; a tick formatter."""
    return f"{100 * value:.4g}%"


def log(axes: Axes, which: Literal["x", "y"]) -> None:
    """Makes an axis logarithmic, with plain numbers; values that are not positive are left out.

    An axis that shows nothing positive stays as it is.
    """
    if (axes.dataLim.minposx if which == "x" else axes.dataLim.minposy) == float("inf"):
        return
    scale = axes.set_xscale if which == "x" else axes.set_yscale
    scale("log", nonpositive="mask")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if high < SHORT * low:  # powers of ten alone would give one tick or none
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(_plain)
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: float) -> str:
    """0.001, 20, 5,000, 1e+06."""
    return f"{value:,.0f}" if 1e3 <= value < 1e6 else f"{value:g}"


def single(methods: Iterable[str]) -> tuple[float, float]:
    """Width and height of a one-panel picture [inches]: one column wide, wider for many methods."""
    return (3.5, 3.0) if len(set(methods)) <= COLUMN_HOLDS else (5.5, 3.6)


def legend(figure: Figure, handles: Sequence[Artist]) -> Legend:
    """A legend above the panels, in as few lines as the figure's width allows.

    A tall one makes the figure taller, not its panels flatter.
    """
    for ncols in range(len(handles), 0, -1):
        made = figure.legend(handles=handles, loc="outside upper center", ncols=ncols)
        if ncols == 1 or made.get_window_extent().width <= figure.bbox.width:
            break
        made.remove()
    tall = made.get_window_extent().height / figure.dpi - LEGEND_HEIGHT
    figure.set_figheight(figure.get_figheight() + max(0.0, tall))
    return made


def save(figure: Figure, path: Path | str) -> list[Path]:
    """Writes a picture; equal figures give equal files.

    Args:
        path: ending in .pdf, .svg or .png, or without one of these: all three are written.

    Returns:
        the files.

    Raises:
        UserError: another ending.
    """
    path = Path(path)
    ending = path.suffix[1:].lower()
    if ending.isalpha() and ending not in METADATA:
        raise UserError(
            f"{path}: pictures are written as {', '.join(METADATA)}; end the name with one of "
            "these, or leave the ending out for all of them"
        )
    # "alpha0.1" has no ending: what follows its dot is part of the name.
    chosen = [ending] if ending in METADATA else list(METADATA)
    files = [path if kind == ending else path.with_name(f"{path.name}.{kind}") for kind in chosen]
    with matplotlib.rc_context(STYLE):
        for kind, file in zip(chosen, files, strict=True):
            with whole(file) as new:
                figure.savefig(new, format=kind, metadata=METADATA[kind])
    return files
