"""Models that are there and will not do."""

from __future__ import annotations

import os
from typing import Any

import torch


class Unfit(Exception):
    """Its text says why a model will not do; the model's name is for the catcher to add."""


def check_memory(need: int) -> None:
    """
    Args:
        need: to read a model [bytes].

    Raises:
        Unfit: it is more than the machine has: better now than killed halfway.
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
        found: what ``from_pretrained`` says of its loading.

    Raises:
        Unfit: weights that would be drawn at random.
    """
    lacking = [*sorted(found["missing_keys"]), *sorted(k[0] for k in found["mismatched_keys"])]
    if lacking:
        raise Unfit(f"its weights lack or do not fit {', '.join(lacking[:4])}")


def check_finite(model: torch.nn.Module) -> None:
    """
    Raises:
        Unfit: weights that are infinite or no numbers; names the tensors.
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
