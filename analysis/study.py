"""A study: trials and rounds, their settings, and the learning rate that suits each method best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from hiso_ray.analysis import comparison, endings, load, settings, speedup
from hiso_ray.analysis.fairness import ALLOWANCES, refuse_unfair
from hiso_ray.analysis.selection import Score, at_best_rate, best_rate, by_rate, chosen_by
from hiso_ray.analysis.spread import over_seeds
from hiso_ray.analysis.thresholds import reached, to_threshold
from hiso_ray.errors import UserError

SHOWN: Score = "final_score"
BASELINE = "decomfl"  # speedups are over it, and differences from it
STEPS = (0.1, 0.05, 0.02, 0.01, 0.005)  # between the default thresholds
THRESHOLDS = 3


@dataclass(frozen=True)
class Study:
    """What was compared.

    Attributes:
        trials, rounds: as :mod:`~.load` gives them.
        within: the fields that make a setting.
        unfair: why the methods cannot be compared fairly, in words; empty if they can.
        comparable: whether they can still be shown side by side, with that reason.
    """

    trials: pd.DataFrame
    rounds: pd.DataFrame
    within: list[str]
    unfair: str = ""
    comparable: bool = True

    @property
    def allow(self) -> tuple[str, ...]:
        """The differences to permit in an unfair study, so that it can still be shown."""
        return ALLOWANCES if self.unfair else ()

    @cached_property
    def views(self) -> list[settings.View]:
        return settings.views(self.trials, self.within)

    @cached_property
    def best(self) -> pd.DataFrame:
        """Each method's best rate in each setting (:func:`~.selection.best_rate`)."""
        return best_rate(self.trials, self.within, SHOWN, self.allow)

    @cached_property
    def rates(self) -> pd.DataFrame:
        """Every rate (:func:`~.selection.by_rate`)."""
        return by_rate(self.trials, self.within, SHOWN, self.allow)

    @cached_property
    def best_trials(self) -> pd.DataFrame:
        return at_best_rate(self.trials, self.best)

    @cached_property
    def best_rounds(self) -> pd.DataFrame:
        return at_best_rate(self.rounds, self.best)

    @property
    def validated(self) -> bool:
        """Whether rates are chosen by a validation score rather than by the score that is shown."""
        return chosen_by(self.trials, SHOWN) != SHOWN

    @property
    def has_grid(self) -> bool:
        """Whether any method had several rates to choose from."""
        return bool((self.best["grid"].map(len) > 1).any())

    @property
    def rivals(self) -> list[str]:
        """The methods that are compared with the baseline, if there is one."""
        methods = list(self.trials["method"].unique())
        return [m for m in methods if m != BASELINE] if BASELINE in methods else []

    def summary(self) -> pd.DataFrame:
        """Final and best score over seeds at the best rates, and the grids of rates.

        The best is the highest test score along the way; with a validation set, the test score
        where the validation score was best.
        """
        keys = [*self.within, "method"]
        name = "score_at_best_validation" if self.validated else "best_score"
        ended = self.best_trials["status"].isin(endings.ENDED)
        scored = self.best_trials.assign(
            **{name: pd.to_numeric(self.best_trials[name]).where(ended)}
        )
        best = over_seeds(scored, [name], keys, partial=True)
        chosen = self.best if self.has_grid else self.best.drop(columns=["grid", "edge"])
        return chosen.merge(best.drop(columns=["seeds", "runs"]), on=keys, how="left")

    def to_thresholds(self, thresholds: Sequence[float]) -> pd.DataFrame:
        """The cost to reach each threshold (:func:`~.thresholds.to_threshold`), at best rates."""
        return to_threshold(self._reached(thresholds))

    def speedups(self, thresholds: Sequence[float], cost: str = "round") -> pd.DataFrame:
        """Each rival over the baseline (:func:`~.speedup.mean_ratios`), at best rates.

        Raises:
            UserError: fewer than two methods, or seeds or settings that only one of them has.
        """
        if not self.rivals:
            raise UserError(f"speedups are over {BASELINE}: give trials of it and of another")
        arrivals = self._reached(thresholds)
        pairs = [speedup.by_seed(arrivals, one, BASELINE, cost) for one in self.rivals]
        return pd.concat([speedup.mean_ratios(pair) for pair in pairs], ignore_index=True)

    def differences(self) -> pd.DataFrame:
        """Each method against the baseline, or against the first if there is no baseline, on the
        same examples (:func:`~.comparison.compared`), at best rates.

        With one method, or trials that cannot be compared as methods, every trial against the
        first (:func:`~.comparison.run_by_run`).
        """
        methods = list(self.trials["method"].unique())
        if not self.comparable or len(methods) == 1:
            return comparison.run_by_run(self.trials)
        baseline = BASELINE if BASELINE in methods else methods[0]
        return comparison.compared(self.best_trials, baseline, self.within)

    def thresholds(self) -> list[float]:
        """A few round scores that were reached, the same for every method and setting.

        They lie between the best score of an initial model and the best score of any trial; up to
        three, including the highest; empty if nothing was learnt.
        """
        scores = self.best_rounds.dropna(subset=["score"])
        low = scores.loc[scores["round"] == 0, "score"].max()
        high = scores["score"].max()
        found: list[float] = []
        for step in STEPS:
            count = round(1 / step)
            found = [k / count for k in range(1, count + 1) if low < k / count <= high]
            if len(found) >= THRESHOLDS:
                break
        if len(found) <= THRESHOLDS:
            return found
        last = len(found) - 1
        return [found[round(last * part / THRESHOLDS)] for part in range(1, THRESHOLDS + 1)]

    def _reached(self, thresholds: Sequence[float]) -> pd.DataFrame:
        return reached(self.best_trials, self.best_rounds, thresholds, self.within)


def read(*paths: Path | str) -> Study:
    """A study of run and sweep folders; an unfair one is returned too, with the reason.

    Raises:
        UserError: as :func:`~.load.trials`.
    """
    trials, rounds = load.both(paths)
    within = settings.setting_fields(trials)
    if within:  # tables in the order of their settings, whatever the order of the paths
        trials = trials.sort_values(within, kind="stable", ignore_index=True)
    try:
        refuse_unfair(trials, within)
    except UserError as refusal:
        try:
            refuse_unfair(trials, within, ALLOWANCES)
        except UserError as worse:
            return Study(trials, rounds, within, str(worse), comparable=False)
        return Study(trials, rounds, within, str(refusal))
    return Study(trials, rounds, within)
