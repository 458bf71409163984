"""The model card of an export: ``README.md`` in the format of the Hugging Face hub.

Everything in it is from the run folder or from the export itself. Files of this machine are named
by the last part of their path, since a card may be published.
"""

from __future__ import annotations

from pathlib import Path

from hiso_ray.runs.card.body import body
from hiso_ray.runs.card.facts import Facts
from hiso_ray.runs.card.front_matter import front_matter
from hiso_ray.tasks.exported import Exported


def write(folder: Path, exported: Exported | None, facts: Facts) -> None:
    """Writes the card into an exported folder, in place of one that a library wrote.

    Args:
        exported: None if the task says nothing about what it exports.
    """
    from huggingface_hub import ModelCard

    text = "\n\n".join(body(exported, facts))
    card = ModelCard(f"---\n{front_matter(exported, facts).to_yaml()}\n---\n\n{text}\n")
    (folder / "README.md").write_text(str(card), encoding="utf-8", newline="\n")
