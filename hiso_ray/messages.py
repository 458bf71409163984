"""What travels between the driver and whoever computes: plain data, no torch, no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class UserError(ValueError):
    """Something that the user can change; its text says what."""


class NonFiniteLoss(UserError):
    """A client measured a loss that is not a finite number."""


class Behind(Exception):
    """A replica was given records that do not continue its own; it stands at ``round``."""

    def __init__(self, round_: int) -> None:
        super().__init__(round_)
        self.round = round_


@dataclass(frozen=True)
class Turn:
    """What one client sends up, and the loss it saw.

    Attributes:
        scalars: (τ, P) float32.
        losses: (τ,) float64, at the point of each local step.
    """

    client: int
    scalars: np.ndarray
    losses: np.ndarray


class Score(NamedTuple):
    """Sums over one evaluation batch, so that batches of any sizes add up exactly.

    Attributes:
        loss: sum over ``terms``: examples, or for generation the tokens of their answers.
        points: of each metric, the sum over examples; a hit counts 1.
    """

    loss: float
    terms: int
    points: dict[str, float]
    examples: int


@dataclass(frozen=True)
class Description:
    """What a worker computes with; equal descriptions promise equal bits.

    Attributes:
        device: "cpu", or "cuda" and the GPU's name.
        torch: version.
        threads: torch threads.
        generator: name and version of the direction generator.
        dimension: d, the number of trainable weights.
        frozen: weights of the model that are not trained.
        eval_batches: how many evaluation batches the task has.
    """

    device: str
    torch: str
    threads: int
    generator: dict[str, str | int]
    dimension: int
    frozen: int
    eval_batches: int
