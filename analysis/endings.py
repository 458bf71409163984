"""How trials ended, and how tables and pictures report it, so that no trial goes unmentioned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hiso_ray.errors import NonFiniteLoss

ENDED = ("finished", "stopped")
COUNTS = ("failed", "diverged", "unfinished", "stopped")
KIND = NonFiniteLoss.__name__  # the error of a trial whose numbers became non-finite
# The same by its message, for trials from before the kind was recorded.
TEXT = "non-?finite|not finite|has overflowed"


def marked(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials with a boolean column for each of :data:`COUNTS`; ``diverged`` ones are ``failed``
    too.

    Args:
        trials: with ``status``, ``error`` and, except in older sweeps, ``error_kind``.
    """
    status = trials["status"]
    failed = status == "failed"
    return trials.assign(
        failed=failed,
        diverged=failed & _diverged(trials),
        unfinished=status == "unfinished",
        stopped=status == "stopped",
    )


def _diverged(trials: pd.DataFrame) -> pd.Series:
    said = trials["error"].astype("string").fillna("").str.contains(TEXT, case=False)
    if "error_kind" not in trials:
        return said.astype(bool)
    kind = trials["error_kind"].astype("string")
    return (kind == KIND).where(kind.notna(), said).astype(bool)


def in_words(counts: Mapping[str, Any]) -> str:
    """``2 diverged, 1 failed, 1 stopped early``: counts each trial once; empty if all finished.

    Args:
        counts: the number of trials for each of :data:`COUNTS`.
    """
    diverged = int(counts["diverged"])
    told = {
        "diverged": diverged,
        "failed": int(counts["failed"]) - diverged,
        "stopped early": int(counts["stopped"]),
        "unfinished": int(counts["unfinished"]),
    }
    return ", ".join(f"{count} {how}" for how, count in told.items() if count)


def told(trials: pd.DataFrame) -> str:
    """:func:`in_words` of trials, such as those of one method."""
    return in_words({name: marked(trials)[name].sum() for name in COUNTS})
