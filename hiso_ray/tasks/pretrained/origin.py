"""Where a pretrained model comes from, and its licence where that is stated: for model cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from hiso_ray.tasks.pretrained.model_files import EMBEDDED, PACKAGED


@dataclass(frozen=True)
class Licence:
    """
    Attributes:
        id: the hub's identifier, such as ``apache-2.0``.
        source: who states it, for people.
        name, link: of a licence that the hub has no identifier for.
    """

    id: str
    source: str
    name: str | None = None
    link: str | None = None


@dataclass(frozen=True)
class Base:
    """A model that another one was trained from.

    Attributes:
        name: for people; of files of this machine, the last part of their path.
        repository: OWNER/NAME on a hub; None for files of this machine or of a package.
        licence: None if nobody states it.
    """

    name: str
    repository: str | None
    licence: Licence | None


EMBEDDED_LICENCE = Licence("apache-2.0", "that of hiso_ray, which brings the base model")


def repository_of(name: str) -> str | None:
    """The hub repository that ``task.model`` of a language task names; None if it names files of
    this machine or of a package."""
    if name in EMBEDDED or name in PACKAGED or Path(name).expanduser().exists():
        return None
    return "/".join(name.split("/")[:2]) if name.endswith(".gguf") else name


def origin(name: str) -> Base:
    """
    Args:
        name: ``task.model`` of a language task, which has been loaded.
    """
    repository = repository_of(name)
    if repository is not None:
        return Base(name, repository, _on_hub(repository))
    if name in EMBEDDED:
        return Base(name, None, EMBEDDED_LICENCE)
    if name in PACKAGED:
        packaged = PACKAGED[name]
        return Base(name, None, Licence(packaged.licence_id, packaged.licence))
    return Base(Path(name).name, None, _of_card(Path(name).expanduser() / "README.md"))


def _on_hub(repository: str) -> Licence | None:
    from huggingface_hub import hf_hub_download

    try:
        return _of_card(Path(hf_hub_download(repository, "README.md")))
    except OSError:  # no card, or neither in the local cache nor within reach
        return None


def _of_card(file: Path) -> Licence | None:
    """What the front matter of a model's README.md states."""
    from huggingface_hub import ModelCard

    if not file.is_file():
        return None
    try:
        card = ModelCard.load(file, ignore_metadata_errors=True).data
    except (OSError, ValueError, TypeError, yaml.YAMLError):  # not a model card
        return None
    if not isinstance(card.license, str):
        return None
    name, link = (x if isinstance(x, str) else None for x in (card.license_name, card.license_link))
    if link is not None and not link.startswith(("https://", "http://")):
        link = None  # a file beside that card
    return Licence(card.license, "as the card of the base model states", name, link)
