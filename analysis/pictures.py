"""The pictures of a study, each with its caption.

The notebooks show them, the report writes them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from hiso_ray.analysis import communication, curves, endings, panels, style, tables
from hiso_ray.analysis.bands import bands
from hiso_ray.analysis.forest import forest
from hiso_ray.analysis.heatmap import grid, heatmap
from hiso_ray.analysis.sensitivity import sensitivity
from hiso_ray.analysis.settings import View
from hiso_ray.analysis.study import BASELINE, SHOWN, Study

NOTEBOOK_DPI = 150
Y: dict[str, str] = {"score": "score", "eval_loss": "test loss"}
AGAINST = {
    "round": "rounds",
    "kib_per_client": "what each client sends and receives (protocol bytes)",
    "forward_passes": "forward passes of all clients",
    "seconds": "wall-clock time",
    "simulated_seconds": "simulated time",
}
BYTE_FIELDS = ("federation.local_steps", "method.num_perturbations")


@dataclass(frozen=True)
class Picture:
    """A figure with a caption, which notebooks display.

    Attributes:
        name: of its files, without a suffix.
        caption: what it shows and what its bands are.
    """

    name: str
    caption: str
    figure: Figure

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        file = io.BytesIO()
        with matplotlib.rc_context(style.STYLE):
            self.figure.savefig(file, format="png", dpi=NOTEBOOK_DPI, metadata={"Software": None})
        width, height = (round(100 * inches) for inches in self.figure.get_size_inches())
        return file.getvalue(), {"width": width, "height": height}

    def __repr__(self) -> str:
        return self.caption


def convergence(
    study: Study, x: str = "round", y: Literal["score", "eval_loss"] = "score"
) -> list[Picture]:
    """Methods at their best rates, mean and band over seeds."""
    found = []
    for view in study.views:
        rounds = view.of(study.best_rounds)
        if rounds.dropna(subset=[x, y]).empty:
            continue
        trials = view.of(study.best_trials)
        caption = (
            f"{Y[y].capitalize()} against {AGAINST[x]}{_at(view)}{_rate(study)}. Lines are means "
            "over all seeds, and end where the first of them does; bands go from the lowest seed "
            f"to the highest.{_lost(trials)}"
        )
        figure = bands(rounds, trials, x, y, view.columns, view.rows)
        found.append(Picture(_name(f"{y}-against-{x}", view), caption, figure))
    return found


def schedules(study: Study) -> list[Picture]:
    """The learning rate of each round; empty if no run changed its rate."""
    rounds = study.best_rounds
    if "lr" not in rounds or rounds.groupby("run")["lr"].nunique().max() < 2:
        return []
    figure = panels.over_rounds(rounds, {"lr": "Learning rate η"})
    return [Picture("schedules", f"The learning rate of each round{_rate(study)}.", figure)]


def every_run(folders: Sequence[Path], trials: pd.DataFrame) -> Picture:
    """Run folders one by one, with their training loss.

    Args:
        trials: those of the folders, possibly among others.
    """
    shown = trials[trials["run"].isin(map(str, folders))]
    caption = (
        "Every run by itself, in the colour of its method: score and loss against rounds and "
        "against what each client sends and receives (protocol bytes). Training loss is a mean "
        f"over {curves.TRAINING_WINDOW} rounds.{_lost(shown)}"
    )
    return Picture("every-run", caption, curves.every_run(folders))


def score_maps(study: Study) -> list[Picture]:
    """Heat maps of the score at the best rate over two varying fields, a panel per method."""
    found = []
    for view in _two_fields(study):
        best = view.of(study.best)
        panels, texts = {}, {}
        for method in style.looks(best["method"]):
            own = best[best["method"] == method]
            panels[method] = _map(own, view, f"{SHOWN}_mean")
            texts[method] = _map(own.assign(said=tables.of_some_seeds(own, SHOWN)), view, "said")
        figure = heatmap(
            panels,
            f"{curves.score_name(study.rounds)} after\nthe last round (mean)",
            number="{:.1%}",
            texts=texts,
        )
        caption = (
            f"Score after the last round, mean over seeds{_at(view)}{_rate(study)}; of how many, "
            "where not all have one. Hatched cells have no number."
            f"{_lost(view.of(study.best_trials))}"
        )
        found.append(Picture(_name("score-map", view), caption, figure))
    return found


def speedup_maps(study: Study, thresholds: Sequence[float]) -> list[Picture]:
    """Heat maps of the speedup over the baseline in rounds, a panel per threshold.

    Raises:
        UserError: as :meth:`~.study.Study.speedups`.
    """
    table = study.speedups(thresholds)
    # A mean or bound in the first line of a cell, its range over seeds in the second.
    table["said"] = [_two_lines(text) for text in tables.formatted(table)["speedup"]]
    found = []
    for view in _two_fields(study):
        for one, here in view.of(table).groupby("one", sort=False):
            panels, texts = {}, {}
            for threshold, own in here.groupby("threshold"):
                if own["speedup_mean"].isna().all():
                    continue  # nothing to map: the table says why
                title = f"to {100 * float(str(threshold)):g} %"
                panels[title] = _map(own, view, "speedup_mean")
                texts[title] = _map(own, view, "said")
            if not panels:
                continue
            who = f"{style.name(str(one))} over {style.name(BASELINE)}"
            figure = heatmap(
                panels,
                f"Times fewer rounds,\n{who}",
                centre=1,
                ratio=True,
                number="{:.2f}×",
                texts=texts,
            )
            caption = (
                f"Speedup of {who} in rounds to a score{_at(view)}{_rate(study)}: geometric mean "
                "over seeds of the ratio, lowest and highest below it. ≥ and ≤ are bounds: one of "
                "the two did not get there within its rounds. Hatched cells have no ratio: neither "
                f"got there, or seeds disagree on who did.{_lost(view.of(study.best_trials))}"
            )
            found.append(Picture(_name(f"speedup-{one}", view), caption, figure))
    return found


def sensitivities(study: Study) -> list[Picture]:
    """Score against learning rate; empty if there was only one rate."""
    if not study.has_grid:
        return []
    found = []
    for view in study.views:
        rates = view.of(study.rates)
        label = f"{curves.score_name(study.rounds)} after the last round"
        figure = sensitivity(rates, label, view.columns, view.rows, SHOWN)
        caption = (
            f"Score after the last round against the learning rate{_at(view)}; mean and range over "
            "the seeds that finished (a cross where not all did), each method's best rate ringed. "
            f"It was chosen by the {'validation score' if study.validated else 'score shown'}, for "
            f"every method alike.{_lost(view.of(study.trials))}"
        )
        found.append(Picture(_name("score-against-rate", view), caption, figure))
    return found


def differences(table: pd.DataFrame) -> list[Picture]:
    """What :meth:`~.study.Study.differences` found; empty if nothing was compared."""
    if (table["why"] != "").all():
        return []
    caption = (
        f"Differences from {style.name(table['other'].iloc[0])} on the same test examples, with "
        "95 % intervals from resampled examples and seeds. A true difference within the grey bar "
        "would have been missed more than one time in five."
    )
    return [Picture("differences", caption, forest(table))]


def turn_bytes(study: Study) -> list[Picture]:
    """Bytes per client and round against τ and P, if these were varied."""
    fields = [name for name in BYTE_FIELDS if name in study.within]
    views = [view for view in study.views if view.columns in fields and view.rows is None]
    if not views or communication.per_turn(study.trials)["paper_bytes"].isna().all():
        return []
    figure = communication.bytes_against(study.trials, views, [str(v.columns) for v in views])
    caption = (
        "Bytes per sampled client and round, over all finished trials, those of methods that send "
        "the same in one row. The paper's rule counts "
        "scalars up and down; the protocol adds seeds, and down, every record a client missed "
        "since its last turn; measured are Ray's messages, where actors took part: an actor "
        f"that serves many clients catches up once for all of them.{_lost(study.trials)}"
    )
    return [Picture("bytes-per-turn", caption, figure)]


def _two_fields(study: Study) -> list[View]:
    return [view for view in study.views if view.rows is not None]


def _map(table: pd.DataFrame, view: View, value: str) -> pd.DataFrame:
    return grid(table, value, str(view.rows), str(view.columns))


def _two_lines(text: str) -> str:
    return (
        text.replace(" (", "\n(")
        .replace("bounds both ways", "bounds\nboth ways")
        .replace("reached before training", "before\ntraining")
    )


def _lost(trials: pd.DataFrame) -> str:
    """A sentence on the trials that did not finish, if there are any."""
    how = endings.told(trials)
    return f" Of {len(trials)} runs {how}." if how else ""


def _at(view: View) -> str:
    return f", at {view.label}" if view.label else ""


def _rate(study: Study) -> str:
    return ", each method at its best learning rate" if study.has_grid else ""


def _name(what: str, view: View) -> str:
    """A file's name: letters, digits, dots and dashes."""
    parts = [f"{n.rpartition('.')[2]}-{style.value_name(v)}" for n, v in view.fixed.items()]
    joined = "-".join([what, *parts]).replace("_", "-")
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in joined)
