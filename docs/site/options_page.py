"""The directive ``options``: every field of the experiment, from the schema that checks it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, get_args

from docutils import nodes
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hiso_ray.cli.options import kind, shown
from hiso_ray.config import METHODS
from hiso_ray.config.fields import known_fields
from hiso_ray.config.section import MOST
from hiso_ray.tasks.registry import TASKS
from hiso_ray.tasks.row import ALWAYS

SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}  # by the attributes of annotated_types


class Options(SphinxDirective):
    """The whole page; takes no arguments."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(page(), allow_section_headings=True)


def page() -> str:
    """The fields as Markdown: a heading for each section, and a ``confval`` for each field."""
    sections: dict[str, list[str]] = {}
    for name, info in known_fields().items():
        sections.setdefault(name.rpartition(".")[0] or "experiment", []).append(entry(name, info))
    return "\n\n".join("\n\n".join([f"## {name}", *of]) for name, of in sections.items())


def entry(name: str, info: FieldInfo) -> str:
    """
    Raises:
        ValueError: the field has no description.
    """
    if not info.description:
        raise ValueError(f"{name} has no description, of which the help and this page are made")
    takes = kind(info.annotation).replace(",", ", ")
    limits = " and ".join(_limits(info.metadata, info.annotation))
    return "\n".join(
        [
            f"```{{confval}} {name}",
            f":type: `{takes}` {limits}",
            f":default: `{shown(info.default)}`",
            "",
            re.sub(r"([*_<\[$])", r"\\\1", info.description),
            "",
            *_readers(*name.split(".")[:2]),
            "```",
        ]
    )


def _limits(metadata: Collection[Any], annotation: Any) -> Iterator[str]:
    """``> 0``: the bounds of the field, or of the one alternative of its values that has bounds."""
    for bound in metadata:
        if isinstance(bound, FieldInfo):
            yield from _limits(bound.metadata, None)
        for attribute, sign in SIGNS.items():
            value = getattr(bound, attribute, MOST)
            if value < MOST:
                yield f"{sign} {value:g}"
    for part in get_args(annotation):
        yield from _limits(getattr(part, "__metadata__", ()), part)


def _readers(section: str, field: str = "") -> Iterator[str]:
    """Which methods or tasks read a field, and where its default differs."""
    if section == "method" and field != "name":
        readers = [n for n, row in METHODS.items() if field in row.reads]
        yield f"*Read by* {_listed(readers, METHODS)}."
        fixed = [n for n in readers if field in METHODS[n].fixed]
        if fixed:
            yield f"*Fixed with* {_listed(fixed, ())}."
    elif section == "task" and field not in ALWAYS | {"prompt"}:  # whose fields name their task
        yield f"*Read by* {_listed([n for n, row in TASKS.items() if field in row.reads], TASKS)}."


def _listed(names: Collection[str], known: Collection[str]) -> str:
    if len(names) == len(known):
        return "all"
    return ", ".join(f"`{name}`" for name in names)


def setup(app: Sphinx) -> None:
    app.add_directive("options", Options)
