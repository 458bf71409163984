"""The arms of H as data: the memory each takes and the fields it reads. Their mathematics is in
``method.curvature``, which has a row for each of these names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Curvature:
    """One arm.

    Attributes:
        vectors: number of vectors of d floats that it holds.
        few: its memory in words, if it is less than one vector; else empty.
        learns: it learns from the updates Δ of rounds.
        reads_rounds: it reads ``method.curvature_rounds``.
        control: it is an experimental control, which rearranges or replaces the learned H.
        measures: it reads the Hessian of the loss.
        elementwise: it acts on each weight alone, so one kernel can pass over the weights.
    """

    vectors: int = 0
    few: str = ""
    learns: bool = True
    reads_rounds: bool = False
    control: bool = False
    measures: bool = False
    elementwise: bool = False


CURVATURES: dict[str, Curvature] = {
    "none": Curvature(few="nothing", learns=False, elementwise=True),
    "diagonal": Curvature(vectors=1, elementwise=True),
    "tensor": Curvature(few="4 bytes a tensor"),
    "row": Curvature(few="4 bytes a row of each matrix"),
    "scalar": Curvature(few="4 bytes"),
    "frozen": Curvature(vectors=1, reads_rounds=True, elementwise=True),
    "random": Curvature(vectors=2, control=True),
    "permuted": Curvature(vectors=3, control=True),
    "oracle": Curvature(
        vectors=1, learns=False, reads_rounds=True, measures=True, elementwise=True
    ),
}
