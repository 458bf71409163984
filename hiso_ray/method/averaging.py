"""The average of the iterates: recent ones weigh more, and the start is corrected for.

With ρ = ``method.averaging``, after round r::

    m_r = ρ m_{r-1} + (1 - ρ) x_r,   m_0 = 0
    average = m_r / (1 - ρ^r) = Σ_i ρ^{r-i} x_i / Σ_i ρ^{r-i}              i = 1..r

Averaging is Polyak and Juditsky's (1992, SIAM J. Control Optim. 30), its weights and the correction
are those of Adam's moments (arXiv 1412.6980, section 3). Here m is never kept: the same average
moves towards x_r by a share w_r = (1 - ρ) / (1 - ρ^r), of which w_1 = 1.
"""

from __future__ import annotations

from torch import Tensor


def absorb(average: Tensor, x: Tensor, retention: float, round_: int) -> None:
    """The average of x_1 to x_{r-1} becomes that of x_1 to x_r, in one pass, in place.

    Args:
        average: (d,) float32; for r = 1 its values do not matter.
        x: (d,) float32, x_r.
        retention: ρ, in (0, 1).
        round_: r, at least 1.
    """
    average.lerp_(x, (1 - retention) / (1 - retention**round_))
