"""How the server combines the scalars of a cohort into the ḡ that enters the ledger.

Rows are clients in client-id order; sums run in that order, in float64, and are rounded to float32
once. A robust rule assumes at most f = ⌈byzantine · m⌉ of the m rows are malicious.

- *mean*: Σ w_i g_i / Σ w_i, w = 1 unless weights are given.
- *median*, *trimmed_mean*: per scalar; the trimmed mean drops its f smallest and its f largest
  values (Yin et al. 2018, arXiv 1803.01498).
- *krum*: the row with the lowest score, the sum of squared distances to its m - f - 2 nearest
  other rows; ties go to the smallest client id (Blanchard et al. 2017,
  arXiv 1703.02757). A row is all τ·P scalars of a client.
- *multi_krum*: the mean of the m - f rows with the lowest scores, scored once (the same
  paper's Multi-Krum, with as many rows as clients assumed honest).
- *majority*: +1 where at least half of the rows are not negative, else -1 (FeedSign, Cai et al.
  2025, arXiv 2501.17610: the sign of the sum of signs). A tie counts as +1, and so does a scalar
  of zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hiso_ray.config.aggregation import shortage, withstood
from hiso_ray.errors import UserError


def aggregate(
    sent: np.ndarray, rule: str, *, weights: np.ndarray | None = None, byzantine: float = 0.0
) -> np.ndarray:
    """ḡ of a cohort.

    Args:
        sent: (m, ...) float32 what the server received, finite, in client-id order.
        weights: (m,) positive weights; for the mean only.
        byzantine: share of the rows assumed malicious; read by trimmed_mean, krum and multi_krum.

    Returns:
        (...) float32.

    Raises:
        UserError: ``m`` rows are too few for the rule; ``shortage`` checks this in advance.
    """
    assert weights is None or rule == "mean", f"{rule} reads no weights"
    m = len(sent)
    short = shortage(rule, byzantine, m)
    if short:
        raise UserError(short)
    if weights is not None:
        combined = _weighted_mean(sent, weights)
    else:
        combined = _RULES[rule](sent, withstood(byzantine, m) if byzantine else 0)
    return np.asarray(combined, np.float32)


def _total(rows: np.ndarray) -> np.ndarray:
    # Row by row: how numpy's own sum groups its terms depends on the array's shape.
    return np.add.accumulate(rows, axis=0, dtype=np.float64)[-1]


def _mean(rows: np.ndarray, _: int) -> np.ndarray:
    return _total(rows) / len(rows)


def _weighted_mean(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    assert weights.shape == (len(rows),), weights.shape
    assert (weights > 0).all()
    weights = weights.astype(np.float64)
    return _total((weights * rows.T).T) / _total(weights)


def _median(rows: np.ndarray, _: int) -> np.ndarray:
    return np.median(rows.astype(np.float64), axis=0)


def _trimmed_mean(rows: np.ndarray, f: int) -> np.ndarray:
    return _mean(np.sort(rows, axis=0)[f : len(rows) - f], 0)


def _krum(rows: np.ndarray, f: int) -> np.ndarray:
    return rows[int(np.argmin(_scores(rows, f)))]


def _multi_krum(rows: np.ndarray, f: int) -> np.ndarray:
    best = np.argsort(_scores(rows, f), kind="stable")[: len(rows) - f]
    return _mean(rows[np.sort(best)], 0)


def _scores(rows: np.ndarray, f: int) -> np.ndarray:
    """(m,) float64 Krum scores."""
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    scores = np.empty(len(flat))
    for i, row in enumerate(flat):
        squared = ((flat - row) ** 2).sum(axis=1)
        others = np.delete(squared, i)
        scores[i] = np.sort(others)[: len(flat) - f - 2].sum()
    return scores


def _majority(rows: np.ndarray, _: int) -> np.ndarray:
    signs = np.where(rows >= 0, 1, -1)
    return np.where(signs.sum(axis=0) >= 0, 1.0, -1.0)


_RULES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "mean": _mean,
    "median": _median,
    "trimmed_mean": _trimmed_mean,
    "krum": _krum,
    "multi_krum": _multi_krum,
    "majority": _majority,
}
