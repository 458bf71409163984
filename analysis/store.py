"""A frame in a parquet file that says which format it is in."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hiso_ray.errors import UserError
from hiso_ray.run_folder.whole_files import whole

FORMAT = 1  # raised when a column changes its meaning or is removed
KEY = b"hiso_ray_format"


def write(path: Path | str, frame: pd.DataFrame) -> None:
    """Writes a frame atomically, without its index; equal frames give equal bytes.

    Raises:
        UserError: a column that mixes types.
    """
    path = Path(path)
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(
            f"{path} cannot hold a column of several types, pass the frame through "
            f"analysis.load.one_type: {error}"
        ) from error
    known = table.schema.metadata or {}
    with whole(path) as new:
        pq.write_table(table.replace_schema_metadata({**known, KEY: str(FORMAT).encode()}), new)


def read(path: Path | str) -> pd.DataFrame:
    """The frame that :func:`write` wrote.

    Raises:
        UserError: there is no such file, it is not parquet or not of this project, or its format
            is newer than this version knows.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"{path} does not exist: give the trials.parquet or rounds.parquet of a sweep"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} cannot be read as parquet: remove it, and the sweep's runs are read instead "
            f"({error})"
        ) from error
    found = (table.schema.metadata or {}).get(KEY)
    if found is None:
        raise UserError(
            f"{path} says no format, so it is not a table of a sweep: give the trials.parquet or "
            "rounds.parquet that a sweep wrote"
        )
    if int(found) > FORMAT:
        raise UserError(
            f"{path} is in format {int(found)}, this version reads format {FORMAT}: update hiso-ray"
        )
    return table.to_pandas()
