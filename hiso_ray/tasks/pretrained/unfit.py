"""Checks that reject models that cannot be used."""

from __future__ import annotations

import os
from typing import Any

import torch


class Unfit(Exception):
    """Says why a model cannot be used; whoever catches it adds the model's name."""


def check_memory(need: int) -> None:
    """
    Args:
        need: memory to read a model [bytes].

    Raises:
        Unfit: the machine has less; failing early is better than being killed while reading.
    """
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > have:
        raise Unfit(
            f"reading it takes about {need / 2**30:.0f} GiB of memory, this machine has "
            f"{have / 2**30:.0f} GiB"
        )


def check_complete(found: dict[str, Any]) -> None:
    """
    Args:
        found: the loading info of ``from_pretrained``.

    Raises:
        Unfit: some weights are missing and would be drawn at random.
    """
    lacking = [*sorted(found["missing_keys"]), *sorted(k[0] for k in found["mismatched_keys"])]
    if lacking:
        raise Unfit(f"its weights lack or do not fit {', '.join(lacking[:4])}")


def check_finite(model: torch.nn.Module) -> None:
    """
    Raises:
        Unfit: some weights are infinite or nan; names the tensors.
    """
    broken = [
        name for name, p in model.named_parameters()
        if p.numel() and not all(torch.isfinite(edge) for edge in p.detach().aminmax())
    ]  # fmt: skip
    if broken:
        raise Unfit(
            f"{len(broken)} of its tensors hold weights that are infinite or not numbers "
            f"({', '.join(broken[:4])}): the file is damaged, or was saved after a training that "
            "had diverged"
        )
