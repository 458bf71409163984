"""What a node says of itself, gathered there by :func:`gather`."""

from __future__ import annotations

import functools
import hashlib
import platform
import shutil
import tempfile
from dataclasses import dataclass
from glob import glob
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

from hiso_ray.config import ResourcesConfig
from hiso_ray.doctor.tiny_run import Bits, tiny_run
from hiso_ray.errors import UserError
from hiso_ray.version import __version__

SHARED_MEMORY = Path("/dev/shm")
CODE = "hiso_ray's code"


class Gpu(NamedTuple):
    """A GPU that torch sees.

    Attributes:
        total, free: memory [bytes].
    """

    name: str
    total: int
    free: int


class Access(NamedTuple):
    """What a node can do in the folder that is to hold the run folder.

    Attributes:
        sees: it is the folder of the machine that starts the run, not another of the same name.
        refused: why a file cannot be written there; None if it can.
    """

    sees: bool
    refused: str | None


@dataclass(frozen=True)
class Facts:
    """
    Attributes:
        versions: of Python, Ray, torch and hiso_ray, and a digest of hiso_ray's code.
        shared_memory: size of ``/dev/shm`` [bytes]; None if there is none.
        bits: of a tiny run, or why there was none.
    """

    versions: dict[str, str]
    gpus: tuple[Gpu, ...]
    shared_memory: int | None
    access: Access
    bits: Bits | str


def gather(mark: Path, resources: ResourcesConfig) -> Facts:
    """The facts of the machine that this is called on.

    Args:
        mark: a file that the machine that starts the run has just made, where the run folder is
            to be.
    """
    gpus = _gpus()  # before the tiny run takes memory
    try:
        bits: Bits | str = tiny_run(resources)
    except UserError as error:
        bits = str(error)
    return Facts(
        versions=versions(),
        gpus=gpus,
        shared_memory=shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.exists() else None,
        access=Access(mark.exists(), refused(mark.parent)),
        bits=bits,
    )


def versions() -> dict[str, str]:
    """``Facts.versions`` of this process."""
    return {
        "python": platform.python_version(),
        "ray": version("ray"),
        "torch": torch.__version__,
        "hiso_ray": __version__,
        CODE: _code(),
    }


@functools.cache
def _code() -> str:
    """The beginning of a digest of this package's Python files; a checkout, where some folders are
    links, has that of an installation."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for name in sorted(glob("**/*.py", root_dir=root, recursive=True)):
        digest.update(name.encode() + (root / name).read_bytes())
    return digest.hexdigest()[:12]


def _gpus() -> tuple[Gpu, ...]:
    found = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append(Gpu(torch.cuda.get_device_name(number), total, free))
    return tuple(found)


def refused(folder: Path) -> str | None:
    """Why a file cannot be written into a folder; None if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)
