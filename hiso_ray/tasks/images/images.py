"""Labelled images, from a hub dataset or from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hiso_ray.errors import UserError
from hiso_ray.tasks.files import parquet
from hiso_ray.tasks.images.image_files import Split, decode
from hiso_ray.tasks.images.image_sets import ImageSet, Original

SPLITS = ("train", "test")
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label",)


def read(images: ImageSet, data: str) -> tuple[Split, Split]:
    """Training and test images.

    A path that exists is read locally, anything else is a hub name.

    Raises:
        UserError: no data, damaged files, or images or classes that do not match the set.
    """
    local = Path(data).exists() or data.startswith((".", "/", "~"))
    splits = _local(images, Path(data).expanduser()) if local else _hub(images, data)
    classes = set(range(len(images.names)))
    for name, split in splits.items():
        found = set(np.unique(split.labels).tolist())
        # A partial test split may lack a class; the training split must have all.
        if not found or not found <= classes or (name == "train" and found != classes):
            raise UserError(
                f"task.data = {data} ({name}): its labels are {_some(sorted(found))}; "
                f"{images.name} has {len(classes)} classes, 0 to {len(classes) - 1}"
            )
        if split.images.shape[1:] != images.shape:
            raise UserError(
                f"task.data = {data} ({name}): its images are {_size(split.images.shape[1:])}, "
                f"those of {images.name} {_size(images.shape)} (channels × height × width)"
            )
    return splits["train"], splits["test"]


def _some(found: Sequence[Any]) -> str:
    return (", ".join(map(str, found[:12])) or "none") + (", …" if len(found) > 12 else "")


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _what_works(original: Original) -> str:
    return (
        "what works is a local folder with train-*.parquet and test-*.parquet in the hub's format "
        f"or with the original files {', '.join(original.train + original.test)} (or .gz)"
    )


def _hub(images: ImageSet, name: str) -> dict[str, Split]:
    from datasets import disable_progress_bars, load_dataset

    assert images.original is not None
    disable_progress_bars()
    try:
        tables = dict(load_dataset(name))
    except Exception as error:  # the hub library raises many unrelated types
        raise UserError(
            f"task.data = {name}: not a local path, and the hub did not give it "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); without a hub "
            f"{_what_works(images.original)}"
        ) from error
    if missing := [split for split in SPLITS if split not in tables]:
        raise UserError(
            f"task.data = {name}: no split {' or '.join(missing)}; it has {', '.join(tables)}"
        )
    return {split: _decoded(images, _bytes(tables[split]), f"{name} ({split})") for split in SPLITS}


def _local(images: ImageSet, folder: Path) -> dict[str, Split]:
    original = images.original
    assert original is not None
    if not folder.is_dir():
        problem = "a file" if folder.exists() else "no such folder"
        raise UserError(f"task.data = {folder}: {problem}; {_what_works(original)}")
    tables = {split: sorted(folder.glob(f"{split}[-.]*parquet")) for split in SPLITS}
    files = {"train": _present(folder, original.train), "test": _present(folder, original.test)}
    if any(tables.values()) and any(files.values()):
        raise UserError(
            f"task.data = {folder}: {images.name} is there more than once, as Parquet and as the "
            "original files; keep one"
        )
    if any(tables.values()):
        if missing := [split for split in SPLITS if not tables[split]]:
            raise UserError(f"task.data = {folder}: lacks {missing[0]}-*.parquet")
        return {split: _parquet(images, tables[split]) for split in SPLITS}
    if any(files.values()):
        there = {path.name.removesuffix(".gz") for paths in files.values() for path in paths}
        if missing := [n for n in original.train + original.test if n not in there]:
            raise UserError(f"task.data = {folder}: lacks {', '.join(missing)}")
        return {split: original.read(files[split]) for split in SPLITS}
    names = sorted(path.name for path in folder.iterdir())
    if pickled := [n for n in names if n.startswith(("data_batch_", "cifar-10-batches-py"))]:
        raise UserError(
            f"task.data = {folder}: {pickled[0]} is of the Python version of CIFAR-10: pickles, "
            f"which run code when they are read; {_what_works(original)}"
        )
    raise UserError(
        f"task.data = {folder}: no images of {images.name} there (found {_some(names)}); "
        f"{_what_works(original)}"
    )


def _present(folder: Path, names: Sequence[str]) -> list[Path]:
    """The file of each name, uncompressed if both exist: downloaders that unpack leave both."""
    either = ((folder / name, folder / f"{name}.gz") for name in names)
    found = (next((path for path in paths if path.is_file()), None) for paths in either)
    return [path for path in found if path]


def _bytes(table: Any) -> Any:
    """Makes a ``datasets.Dataset`` return images as stored bytes."""
    from datasets import Image

    for column, feature in table.features.items():
        if isinstance(feature, Image):
            table = table.cast_column(column, Image(decode=False))
    return table


def _parquet(images: ImageSet, files: list[Path]) -> Split:
    try:
        table = parquet.read(files)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return _decoded(images, table, str(files[0]))


def _decoded(images: ImageSet, table: Any, source: str) -> Split:
    """The rows of a ``datasets.Dataset`` or a ``Table``, their images decompressed."""
    image, label = (_column(table, names, source) for names in (IMAGE_COLUMNS, LABEL_COLUMNS))
    rows = [(row[image], row[label]) for row in table]
    labels = np.array([number for _, number in rows])
    if labels.size and labels.dtype.kind not in "iu":
        raise UserError(f"{source}: column label holds {labels.dtype}, not class numbers")
    pixels = np.empty((len(rows), *images.shape), np.uint8)
    for row, (cell, _) in enumerate(rows):
        pixels[row] = decode(cell, images.shape, f"{source}, row {row + 1}")
    return Split(pixels, labels.astype(np.int64))


def _column(table: Any, allowed: Sequence[str], source: str) -> str:
    have = table.column_names
    found = next((name for name in allowed if name in have), None)
    if found is None:
        raise UserError(f"{source}: no column {' or '.join(allowed)}; it has {', '.join(have)}")
    return found
