"""Small ``outcomes.parquet`` as a run leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write(
    folder: Path,
    accuracy: Sequence[float],
    loss: Sequence[float] | None = None,
    validation: int = 0,
    evaluation: str = "same",
    round_: int = 30,
) -> Path:
    """A run folder with outcomes: the first ``validation`` examples are kept apart."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(accuracy)
    columns = {
        "split": ["validation"] * validation + ["test"] * (count - validation),
        "example": np.arange(count),
        "loss": np.asarray(loss or [1 - a for a in accuracy], np.float32),
        "accuracy": np.asarray(accuracy, np.float32),
    }
    told = {
        b"round": f"{round_}".encode(),
        b"model_sha256": b"ab",
        b"evaluation_sha256": evaluation.encode(),
    }
    pq.write_table(pa.table(columns).replace_schema_metadata(told), folder / "outcomes.parquet")
    return folder
