"""Results of each evaluation example: their means for tables, and a file of all of them for
tests that pair two runs example by example.

The first examples may be for validation, to choose learning rates; the rest are the test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hiso_ray.messages import Score
from hiso_ray.run_folder.whole_files import whole


def joined(scores: Iterable[Score]) -> Score:
    """Joins the scores of evaluation batches, given in batch order."""
    losses, terms, points = zip(*scores, strict=True)
    names = points[0]
    return Score(
        np.concatenate(losses),
        np.concatenate(terms),
        {name: np.concatenate([some[name] for some in points]) for name in names},
    )


def means(score: Score, validation: int) -> dict[str, float]:
    """``eval_loss`` and ``eval_METRIC`` of the test examples; ``validation_loss`` and
    ``validation_METRIC`` if there are validation examples.

    The loss is a mean over examples, or for generation over the tokens of their answers; metrics
    are means over examples. Sums are exact before rounding, so they do not depend on batches or
    order.

    Args:
        validation: number of validation examples, which come first.
    """
    test = _means(_part(score, validation, None), "eval")
    return test | (_means(_part(score, 0, validation), "validation") if validation else {})


def _part(score: Score, start: int, stop: int | None) -> Score:
    ends = np.concatenate([[0], np.cumsum(score.terms)])
    own = slice(start, stop)
    losses = score.losses[ends[start] : ends[-1 if stop is None else stop]]
    return Score(losses, score.terms[own], {name: p[own] for name, p in score.points.items()})


def _means(score: Score, part: str) -> dict[str, float]:
    values = {"loss": score.losses} | score.points
    return {f"{part}_{name}": math.fsum(v.tolist()) / len(v) for name, v in values.items()}


def example_losses(score: Score) -> np.ndarray:
    """(n,) float32 loss of each example; for generation, the mean over its answer's tokens."""
    example = np.repeat(np.arange(len(score.terms)), score.terms)
    sums = np.bincount(example, score.losses, len(score.terms))  # in float64
    return (sums / score.terms).astype(np.float32)


def write(
    path: Path,
    score: Score,
    validation: int,
    *,
    round_: int,
    model_sha256: str,
    evaluation_sha256: str,
) -> None:
    """Writes a Parquet file, whole or not at all.

    Rows are the evaluation examples in the order of the data. Columns: ``split`` (``validation`` or
    ``test``), ``example`` (int64, from 0), ``loss`` (float32, as of :func:`example_losses`), and
    one per metric, with its name (float32). The schema's metadata are ``round``,
    ``model_sha256`` and ``evaluation_sha256``.

    Args:
        validation: as in :func:`means`.
        round_: number of rounds that the model was trained for.
        model_sha256: of its weights.
        evaluation_sha256: digest of the examples; see ``tasks.evaluation.digest``.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = len(score.terms)
    columns = {
        "split": ["validation"] * validation + ["test"] * (n - validation),
        "example": np.arange(n),
        "loss": example_losses(score),
        **score.points,
    }
    about = {
        "round": str(round_),
        "model_sha256": model_sha256,
        "evaluation_sha256": evaluation_sha256,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as new:
        pq.write_table(pa.table(columns).replace_schema_metadata(about), new)
