"""Groups for the partition of language data: classes, lengths, or the values of a column."""

from __future__ import annotations

import numpy as np

from hiso_ray.tasks.text.prompts import Examples

LENGTH_BINS = 10


def column_of(by: str) -> str | None:
    """The column for :attr:`Examples.groups`; None if ``federation.by`` does not name one."""
    return None if by in ("label", "length") else by


def groups_of(
    by: str, train: Examples, classes: tuple[str, ...], lengths: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The group of every training example, (n,) int64, and the groups' names.

    Args:
        by: ``federation.by``: label, length (deciles), or the column in ``train.groups``.
        lengths: (n,) tokens of the prompts.
    """
    if by == "label":
        return train.labels, classes
    if by == "length":
        edges = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTH_BINS + 1))[1:-1])
        bins = np.searchsorted(edges, lengths, side="right")
        used, codes = np.unique(bins, return_inverse=True)
        spans = [(lengths[bins == b].min(), lengths[bins == b].max()) for b in used]
        return codes.astype(np.int64), tuple(f"{low}–{high} tokens" for low, high in spans)
    values, codes = np.unique(train.groups, return_inverse=True)
    return codes.astype(np.int64), tuple(map(str, values))
