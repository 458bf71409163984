"""The original file formats of MNIST, Fashion-MNIST and CIFAR-10, and encoded images.

Nothing here is unpickled: a pickle can run arbitrary code.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hiso_ray.errors import UserError

IDX_IMAGES, IDX_LABELS = 0x0803, 0x0801  # unsigned bytes in 3 dimensions, in 1
CIFAR_SHAPE = (3, 32, 32)


class Split(NamedTuple):
    """(n, channels, height, width) uint8 pixels and (n,) int64 classes, in file order."""

    images: np.ndarray
    labels: np.ndarray


def read_idx(files: Sequence[Path]) -> Split:
    """Images and labels of MNIST or Fashion-MNIST (yann.lecun.com/exdb/mnist, "IDX file format").

    Args:
        files: the image file and the label file.

    Raises:
        UserError: another format, a truncated file, or files that do not belong together.
    """
    images, labels = files
    pixels, classes = _idx(images, IDX_IMAGES), _idx(labels, IDX_LABELS)
    if len(pixels) != len(classes):
        raise UserError(
            f"{images} holds {len(pixels)} images, {labels} {len(classes)} labels: "
            "they do not belong together"
        )
    return Split(pixels[:, None], classes.astype(np.int64))


def _idx(path: Path, magic: int) -> np.ndarray:
    """Big-endian 32-bit magic number and sizes, one per dimension, then the bytes."""
    raw = _bytes(path)
    if raw[:4] != magic.to_bytes(4, "big"):
        kind = "images" if magic == IDX_IMAGES else "labels"
        raise UserError(
            f"{path} is no IDX file of {kind}: it begins with {raw[:4].hex()}, not {magic:08x}"
        )
    start = 4 + 4 * (magic & 0xFF)
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4))
    expected = start + math.prod(shape)
    if len(raw) != expected:
        raise UserError(
            f"{path} is damaged: {len(raw)} bytes, by its header {expected}; get it again"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_cifar(batches: Sequence[Path]) -> Split:
    """CIFAR-10's binary version (cs.toronto.edu/~kriz/cifar.html): each record is a byte for the
    class, then the red, green and blue planes, row by row.

    Raises:
        UserError: a file's size is not a whole number of records.
    """
    size = 1 + math.prod(CIFAR_SHAPE)
    parts = []
    for path in batches:
        raw = _bytes(path)
        if not raw or len(raw) % size:
            raise UserError(
                f"{path} is damaged: {len(raw)} bytes are no whole number of records of {size}; "
                "get it again"
            )
        parts.append(np.frombuffer(raw, np.uint8).reshape(-1, size))
    records = np.concatenate(parts)
    return Split(records[:, 1:].reshape(-1, *CIFAR_SHAPE), records[:, 0].astype(np.int64))


def _bytes(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be decompressed: {error}; get it again") from error


def decode(cell: Any, shape: tuple[int, int, int], where: str) -> np.ndarray:
    """One cell of an image column as the hub stores it, a struct with the bytes of a PNG file.

    Returns:
        ``shape`` uint8, channels first.

    Raises:
        UserError: no bytes, bytes that are not an image, or another size or colour mode.
    """
    from PIL import Image

    encoded = cell.get("bytes") if isinstance(cell, dict) else None
    if encoded is None:
        raise UserError(f"{where}: holds no image bytes (a struct of bytes and path is needed)")
    channels, height, width = shape
    wanted = ({1: "L", 3: "RGB"}[channels], width, height)
    try:
        image = Image.open(io.BytesIO(encoded))
        found = (image.mode, *image.size)
        pixels = np.asarray(image) if found == wanted else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's
        raise UserError(f"{where}: the image cannot be decoded: {error}") from error
    if pixels is None:
        raise UserError(
            f"{where}: the image is {found[0]} {found[1]}×{found[2]}, "
            f"not {wanted[0]} {wanted[1]}×{wanted[2]}"
        )
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)
