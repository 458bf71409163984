"""What an exported model is and how it is loaded, for its model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hiso_ray.tasks.pretrained.origin import Base


@dataclass(frozen=True)
class Exported:
    """A model in a folder.

    Attributes:
        what: a noun phrase without an article, such as ``LoRA adapter``.
        imports, load: Python that loads it from ``name``, without this package.
        library: the hub's name of the library that loads it, from a folder or by its name on the
            hub; None if the code takes a folder only.
        pipeline: the hub's name of what it does.
        scored_as: the hub's name of what its scores measure.
        base: the model that was trained, if it was pretrained.
        apart: whether ``base`` is needed beside it.
        details: further lines about it, by what they tell.
    """

    what: str
    imports: str
    load: str
    library: str | None = None
    pipeline: str | None = None
    scored_as: str | None = None
    base: Base | None = None
    apart: bool = False
    details: Mapping[str, str] = field(default_factory=dict)
