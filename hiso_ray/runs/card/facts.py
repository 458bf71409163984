"""What a model card says, and how its values are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiso_ray.config import Experiment

Scores = Mapping[str, float]
"""``eval_loss``, ``eval_METRIC``, and the same of ``validation_``."""


@dataclass(frozen=True)
class Facts:
    """What is known of an exported model.

    Attributes:
        experiment: resolved.
        name: of the model: its repository's, or its folder's.
        run: the run folder's name.
        versions: of the programs that ran it, as ``config.yaml`` has them.
        round: number of rounds that the model was trained for.
        model_sha256: of the trained weights.
        ledger_check: of the ledger's line of the last of these rounds.
        trained, frozen: number of weights.
        train_examples, test_examples: how many there are.
        scores: of this model.
        before: of x_0, on the same examples; None if they are not known.
        row: the columns of ``metrics.csv`` at this round; None if it has none.
        merge: whether adapters were folded into the model on request.
        repository: OWNER/NAME that the export is uploaded to; None if it is not.
    """

    experiment: Experiment
    name: str
    run: str
    versions: str
    round: int
    model_sha256: str
    ledger_check: str
    trained: int
    frozen: int
    train_examples: int
    test_examples: int
    scores: Scores
    before: Scores | None
    row: Mapping[str, Any] | None
    merge: bool
    repository: str | None

    @property
    def hub_data(self) -> str | None:
        """OWNER/NAME of the data on a hub; None if they are elsewhere."""
        data = self.experiment.task.data
        is_name = data.count("/") == 1 and not data.startswith((".", "/", "~"))
        return data if is_name and not Path(data).exists() else None


def short(text: str) -> str:
    """The last part of an absolute path; other values as they are."""
    return Path(text).name if Path(text).expanduser().is_absolute() else text


def of(part: str, scores: Scores) -> list[tuple[str, float]]:
    """The scores of ``eval`` or ``validation``, by metric."""
    return [(k.removeprefix(f"{part}_"), v) for k, v in scores.items() if k.startswith(f"{part}_")]
