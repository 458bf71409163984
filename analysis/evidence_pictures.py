"""Pictures of the evidence about H, each with what it shows and what a perfect H would show: the
Hessian's diagonal, of which the arm ``oracle`` is the closest estimate."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from hiso_ray.analysis import evidence, panels, style
from hiso_ray.analysis.pictures import Picture

RIDGES = 7  # rounds whose histogram is shown
READ = 1_000_000  # most entries that a correlation reads
SEEDS = "Lines are means over seeds, bands go from the lowest seed to the highest."


def every(rows: pd.DataFrame) -> list[Picture]:
    """All pictures that these measurements allow.

    Args:
        rows: from :func:`~.evidence.of`; a method in several settings has a line for each.
    """
    if rows.empty:
        return []
    made = [distribution(rows), ridges(rows), correlations(rows), ranks(rows), step_sizes(rows)]
    made += [alignment(rows), probe_errors(rows), sizes(rows)]
    return [picture for picture in made if picture is not None]


def distribution(rows: pd.DataFrame) -> Picture | None:
    """Smallest, median and largest entry of H over rounds; a panel for each method with an H."""
    curved = rows[evidence.has_curvature(rows)]
    if curved.empty:
        return None

    def draw(axes: Axes, own: pd.DataFrame, look: style.Look) -> None:
        ends = own.groupby("round").agg(low=("h_min", "min"), high=("h_max", "max"))
        axes.fill_between(
            ends.index, ends["low"], ends["high"], color=look.colour, alpha=0.25, lw=0
        )
        for _, run in own.groupby("run", sort=False):
            axes.plot(run["round"], run["h_median"], color=look.colour, lw=1.2)

    figure = panels.per_method(curved, draw, "Entries of H", log=True)
    with matplotlib.rc_context(style.STYLE):
        median = Line2D([], [], color="0.3", lw=1.2, label="median, each run")
        style.legend(figure, [median, Patch(color="0.5", alpha=0.3, lw=0, label="min–max")])
    without = sorted(set(rows["method"]) - set(curved["method"]))
    said = f" H = 1 throughout: {', '.join(map(style.name, without))}." if without else ""
    caption = (
        "The entries of H over rounds: the band goes from the smallest to the largest. If H were "
        "the Hessian's diagonal, the band would span the decades that the oracle's does; a flat, "
        f"narrow band is little more than one number for all weights.{said}"
    )
    return Picture("h-distribution", caption, figure)


def ridges(rows: pd.DataFrame) -> Picture | None:
    """H's histogram at some rounds, the first at the bottom; a panel for each method with an H."""
    curved = rows[evidence.has_curvature(rows)]
    if curved.empty:
        return None
    counts = evidence.histograms(curved)

    def draw(axes: Axes, own: pd.DataFrame, look: style.Look) -> None:
        measured = np.sort(own["round"].unique())
        chosen = measured[np.unique(np.linspace(0, len(measured) - 1, RIDGES).round().astype(int))]
        places = list(range(len(chosen)))
        for place, round_ in reversed(list(zip(places, chosen, strict=True))):
            bins = own[own["round"] == round_].groupby("low")["count"].sum()
            low = np.arange(bins.index.min() - evidence.BIN, bins.index.max() + 2 * evidence.BIN,
                            evidence.BIN).round(1)  # fmt: skip
            height = bins.reindex(low, fill_value=0).to_numpy() / bins.max()
            axes.fill_between(
                low, place, place + 0.9 * height, step="post", fc=look.colour, ec="white", lw=0.5
            )
        axes.set_yticks(places, map(str, chosen))

    figure = panels.per_method(counts, draw, "Communication round", x="Entries of H", sharey=False)
    for panel in figure.axes:
        panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        panel.xaxis.set_major_formatter(_power)
        panel.grid(visible=False, axis="y")
    caption = (
        "How the entries of H are spread (each histogram has its own height, bins are a tenth of a "
        "decade, seeds are added up). H begins as 1, the oracle's excepted. If H were the "
        "Hessian's diagonal, its histogram would be that of the oracle, but for its place: the "
        "oracle's mean is 1. Its leftmost bar are the weights at its floor, which the loss hardly "
        "bends."
    )
    return Picture("h-histogram", caption, figure)


def correlations(rows: pd.DataFrame) -> Picture | None:
    """Correlations of H with the Hessian's diagonal and with squared gradients, over rounds."""
    names = {
        f"h_{other}_{how}": f"{word}, with {what}"
        for other, what in (("hessian", "|diag ∇²f|"), ("gradient", "(∇f)²"))
        for how, word in (("pearson", "Pearson of logs"), ("spearman", "Spearman"))
    }
    shown = rows.dropna(subset=list(names), how="all")
    if shown.empty:
        return None
    chance = 2 / float(np.sqrt(min(evidence.dimension(shown).min(), READ)))

    def by_chance(axes: Axes) -> None:
        axes.axhspan(-chance, chance, color="0.85", lw=0, zorder=0)
        axes.set_ylim(min(-0.2, axes.get_ylim()[0]), 1)

    more = [Patch(color="0.85", lw=0, label="by chance")]
    figure = panels.over_rounds(shown, names, columns=2, also=by_chance, entries=more)
    caption = (
        "Correlation of H with the Hessian's diagonal (a Hutchinson estimate) and with squared "
        "gradients, over the weights. Grey: what vectors that have nothing to do with each other "
        "show (two standard errors). If H were the Hessian's diagonal, the upper panels would be "
        "near 1, or as near as the oracle gets, for both are estimates. An H of one number has no "
        "correlation, and no line; one per row or tensor has few numbers, so that chance moves it "
        f"further. {SEEDS}"
    )
    return Picture("h-correlation", caption, figure)


def ranks(rows: pd.DataFrame) -> Picture | None:
    """Whitening rank ζ, and effective ranks of the Hessian with and without whitening by H."""
    names = {
        "whitening_rank": "Whitening rank ζ",
        "effective_rank": "Effective rank, Hessian",
        "whitened_effective_rank": "Effective rank, whitened",
    }
    if rows[list(names)].isna().all(axis=None):
        return None
    d = evidence.dimension(rows).unique()

    def weights(axes: Axes) -> None:
        if axes.get_title() == names["whitening_rank"]:
            style.log(axes, "y")
            for number in d:
                axes.axhline(number, color="0.3", ls=":", lw=1)

    line = Line2D([], [], color="0.3", ls=":", lw=1, label="number of weights d")
    figure = panels.over_rounds(rows, names, also=weights, entries=[line])
    caption = (
        "Whitening rank ζ, the sum of |σ| ÷ H over the Hessian's diagonal σ; and effective rank, "
        "trace ÷ largest eigenvalue, of the Hessian and of the Hessian whitened by H. ζ moves with "
        "the scale of H alone, effective ranks do not: where the third panel repeats the second, H "
        "rescales and does not whiten. If H were the Hessian's diagonal, ζ would be d (the oracle "
        "has its shape, and 1 for a mean), and the third panel would lie where the oracle's does. "
        "Where curvatures of both signs cancel, a rank is small or negative and says nothing. "
        f"{SEEDS}"
    )
    return Picture("whitening", caption, figure)


def step_sizes(rows: pd.DataFrame) -> Picture | None:
    """The learning rate beside the largest stable one; a panel for each method that probes."""
    shown = rows[evidence.probes(rows)].dropna(subset=["lr_stable_low", "lr_stable_high"])
    if shown.empty:
        return None

    def draw(axes: Axes, own: pd.DataFrame, look: style.Look) -> None:
        bound = own.groupby("round").agg(
            low=("lr_stable_low", "min"), high=("lr_stable_high", "max")
        )
        axes.fill_between(bound.index, bound["low"], bound["high"], color="0.75", lw=0)
        for _, run in own.groupby("run", sort=False):
            axes.plot(run["round"], run["lr"], color=look.colour, lw=1.4)

    figure = panels.per_method(shown, draw, "Learning rate η", log=True)
    with matplotlib.rc_context(style.STYLE):
        rate = Line2D([], [], color="0.3", lw=1.4, label="η of the run")
        style.legend(figure, [rate, Patch(color="0.75", lw=0, label="the largest stable η")])
    caption = (
        "The learning rate beside the bound of zeroth-order steps on the local quadratic: below "
        "the grey band they are stable, above it they are not, and the largest stable rate lies in "
        "it. Rounds whose trace is not positive have no bound. If H were the Hessian's diagonal, "
        "the bound would be flat, near 2P ÷ d, and one rate would suit the whole run; the oracle, "
        "whose mean is 1, has its shape only, so its bound moves with the mean curvature."
    )
    return Picture("stable-rates", caption, figure)


def alignment(rows: pd.DataFrame) -> Picture | None:
    """Cosine between Δ and the gradient, beside that of directions drawn at random."""
    shown = rows.dropna(subset=["update_cosine"])
    if shown.empty:
        return None
    levels = np.unique(np.sqrt(shown["method.num_perturbations"] / evidence.dimension(shown)))

    def at_random(axes: Axes) -> None:
        for level in levels:
            axes.axhline(level, color="0.3", ls=":", lw=1)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))

    line = Line2D([], [], color="0.3", ls=":", lw=1, label="√(P ÷ d)")
    names = {"update_cosine": "Cosine of Δ and ∇f"}
    figure = panels.over_rounds(shown, names, also=at_random, entries=[line])
    caption = (
        "How far a step points along the gradient. P directions drawn at random see √(P ÷ d) of "
        "it. If H were the Hessian's diagonal, steps would go along H⁻¹∇f, as Newton's do, whose "
        f"cosine with ∇f is lower the more curvatures differ: compare the oracle. {SEEDS}"
    )
    return Picture("step-alignment", caption, figure)


def probe_errors(rows: pd.DataFrame) -> Picture | None:
    """Bias and error of the finite difference, relative to the spread of the scalars."""
    spread = rows["g_std"].where(rows["g_std"] > 0)
    shares = rows.assign(bias=rows["g_bias"] / spread, error=rows["g_error"] / spread)
    shown = shares.dropna(subset=["bias", "error"])
    if shown.empty:
        return None

    def zero(axes: Axes) -> None:
        axes.axhline(0, color="0.3", lw=0.8)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")

    names = {"bias": "Bias ÷ spread of g", "error": "Error ÷ spread of g"}
    figure = panels.over_rounds(shown, names, also=zero)
    caption = (
        "What the finite difference gets wrong against the exact directional derivative: mean "
        "(bias) and root mean square (error) over directions, beside the standard deviation of "
        "the scalars. A forward difference is biased by ½μ Tr(H⁻¹∇²f); if H were the Hessian's "
        f"diagonal that would be ½μd, so that μ would have to shrink with it. {SEEDS}"
    )
    return Picture("probe-error", caption, figure)


def sizes(rows: pd.DataFrame) -> Picture:
    """‖Δ‖, ‖∇f‖, and the mean and spread of scalars."""
    names = {
        "update_norm": "‖Δ‖",
        "gradient_norm": "‖∇f‖",
        "g_std": "Spread of g",
        "g_mean": "Mean of g",
    }

    def scale(axes: Axes) -> None:
        if axes.get_title() == names["g_mean"]:
            axes.axhline(0, color="0.3", lw=0.8)
        else:
            style.log(axes, "y")

    figure = panels.over_rounds(rows, names, columns=2, also=scale)
    caption = (
        "Length of the last step and of the gradient; standard deviation and mean of the scalars g "
        "over directions, whose mean is the probe's bias but for chance. The spread of g is the "
        "gradient's length in the metric of H: √(∇fᵀH⁻¹∇f), with the Hessian Newton's decrement. "
        f"{SEEDS}"
    )
    return Picture("step-sizes", caption, figure)


def _power(exponent: float, _: float) -> str:
    """0.01, 1, 100, 1e6."""
    return f"{10.0**exponent:g}" if abs(exponent) <= 3 else f"1e{exponent:g}"
