"""The arms of H as data: what each takes and reads. Their mathematics is in ``method.curvature``,
which has a row for each of these names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Curvature:
    """One arm.

    Attributes:
        vectors: of d floats that it holds.
        few: what it holds where that is less than a vector, in words.
        learns: from the updates Δ of rounds.
        reads_rounds: ``method.curvature_rounds`` means something to it.
        control: it gives H another shape than what was learned.
        measures: it reads the Hessian of the loss.
        elementwise: weight by weight, so that a pass over the weights can be one kernel.
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
