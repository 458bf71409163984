"""Loss and scores of each evaluation example: ``outcomes.parquet`` in a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hiso_ray.errors import UserError
from hiso_ray.run_folder import files

FILE = files.OUTCOMES
KEYS = ("split", "example", "loss")  # the other columns are metrics
FACTS = ("round", "model_sha256", "evaluation_sha256")  # in the metadata of the file
AGAIN = f"`hiso-ray replay RUN --outcomes RUN/{FILE}` writes it"
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Outcomes:
    """The final evaluation of a run, example by example.

    Attributes:
        run: the run folder.
        round: the round after which it was made.
        model_sha256: of the weights that were evaluated.
        evaluation_sha256: of the evaluation examples as the model sees them.
        examples: one row per example in file order: ``split``, ``example``, ``loss``, and a column
            per metric.
    """

    run: str
    round: int
    model_sha256: str
    evaluation_sha256: str
    examples: pd.DataFrame

    @property
    def metrics(self) -> list[str]:
        return [name for name in map(str, self.examples) if name not in KEYS]

    def of(self, split: str) -> pd.DataFrame:
        """The rows of ``validation`` or ``test``."""
        return self.examples[self.examples["split"] == split].reset_index(drop=True)


def there(folder: Path | str) -> bool:
    """Whether a run folder has the file; unfinished and older runs do not."""
    return (Path(folder) / FILE).exists()


def read(folder: Path | str) -> Outcomes:
    """The outcomes of a run folder.

    Raises:
        UserError: there is no such file, it is torn or of another kind, or it has no row or a
            value that is not finite.
    """
    path = Path(folder) / FILE
    if not path.exists():
        raise UserError(
            f"{folder} has no {FILE}: the run has not ended, or is older than the file; {AGAIN}"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} cannot be read as parquet ({error}): remove it, and {AGAIN}"
        ) from error
    examples = table.to_pandas()
    told = table.schema.metadata or {}
    lacks = [name for name in KEYS if name not in examples]
    lacks += [name for name in FACTS if name.encode() not in told]
    if lacks:
        raise UserError(f"{path} lacks {', '.join(lacks)}: it holds no outcomes of an evaluation")
    _check(path, examples)
    round_, model, evaluation = (told[name.encode()].decode() for name in FACTS)
    return Outcomes(str(folder), int(round_), model, evaluation, examples)


def _check(path: Path, examples: pd.DataFrame) -> None:
    if examples.empty:
        raise UserError(f"{path} holds no example")
    if other := sorted(set(examples["split"]) - set(SPLITS)):
        raise UserError(f"{path}: split {other[0]!r} is neither {' nor '.join(SPLITS)}")
    if examples["example"].duplicated().any():
        raise UserError(f"{path} has an example twice")
    numbers = examples.drop(columns=["split", "example"]).to_numpy(float)
    if not np.isfinite(numbers).all():
        raise UserError(f"{path} has a loss or metric that is no finite number")


def refuse_others(several: Sequence[Outcomes]) -> None:
    """Raises unless all were scored on the same test examples by the same metrics.

    Raises:
        UserError: names two runs and what differs.
    """
    first, *others = several
    for other in others:
        both = f"{first.run} and {other.run}"
        if first.evaluation_sha256 != other.evaluation_sha256:
            raise UserError(
                f"{both} were scored on other evaluation data (evaluation_sha256 "
                f"{first.evaluation_sha256[:12]} and {other.evaluation_sha256[:12]}): compare runs "
                "with the same task.data, task.eval_examples and tokenizer"
            )
        mine, theirs = first.of("test")["example"], other.of("test")["example"]
        if not mine.equals(theirs):
            raise UserError(
                f"{both} keep other examples for the test ({len(mine)} and {len(theirs)}): compare "
                "runs with the same task.validation_examples"
            )
        if first.metrics != other.metrics:
            raise UserError(
                f"{both} have other metrics ({', '.join(first.metrics)}; "
                f"{', '.join(other.metrics)}): compare runs of the same task"
            )


def aligned(several: Sequence[Outcomes], value: str) -> np.ndarray:
    """(runs, examples) float64: ``loss`` or a metric on the test examples, in file order.

    Args:
        several: at least one, of the same examples (:func:`refuse_others`).

    Raises:
        UserError: the outcomes lack this value.
    """
    if value not in ("loss", *several[0].metrics):
        raise UserError(
            f"{several[0].run} has no {value} per example: choose from loss, "
            f"{', '.join(several[0].metrics)}"
        )
    return np.stack([outcomes.of("test")[value].to_numpy(float) for outcomes in several])
