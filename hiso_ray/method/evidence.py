"""Statistics of H and of its effect on the problem: distributions, correlations, spectra.

Whitening by a diagonal H turns the curvature Σ into H^{-1/2} Σ H^{-1/2}. HiSo's rate (arXiv
2506.02370) is independent of d and of the largest eigenvalue if the trace of that matrix, the low
whitening rank ζ, is small. The same trace determines the largest stable step size of zeroth-order
steps (arXiv 2604.14669).

Undefined correlations and cosines are nan. Sums over entries are float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiso_ray.method.hutchinson import HessianVector

PER_DECADE = 10
EDGES = 10.0 ** torch.linspace(-12, 8, 20 * PER_DECADE + 1, dtype=torch.float64)
"""Edges of the histogram of H: ten bins per factor of ten, from 1e-12 to 1e8."""

SAMPLE = 1_000_000  # entries that a correlation reads: its standard error is 0.001 at most

NAN = float("nan")


def histogram(h: Tensor) -> Tensor:
    """Counts the entries between consecutive :data:`EDGES`, lower edge included.

    Args:
        h: (d,) float32.

    Returns:
        (202,) int64, on the CPU: below the first edge, in each of 200 bins, from the last edge on.
    """
    bins = torch.bucketize(h, EDGES.to(h), out_int32=True, right=True)
    return torch.bincount(bins, minlength=len(EDGES) + 1).cpu()


def log_pearson(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of log a with log b, over the entries where both are positive.

    Args:
        a, b: (d,); of more than a million entries, a million evenly spaced ones are read.

    Returns:
        Between -1 and 1; nan with fewer than 3 such entries, or when one of the two is constant.
    """
    a, b = _sample(a), _sample(b)
    both = (a > 0) & (b > 0)
    return _pearson(a[both].log(), b[both].log())


def spearman(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of the ranks; equal entries share the mean of their ranks.

    Args:
        a, b: (d,); of more than a million entries, a million evenly spaced ones are read.

    Returns:
        Between -1 and 1; nan with fewer than 3 entries, or when one of the two is constant.
    """
    return _pearson(_ranks(_sample(a)), _ranks(_sample(b)))


def cosine(a: Tensor, b: Tensor) -> float:
    """⟨a, b⟩ / (‖a‖ ‖b‖); nan when one of them is zero."""
    norms = [float(torch.linalg.vector_norm(v, dtype=torch.float64)) for v in (a, b)]
    return _dot(a, b) / (norms[0] * norms[1]) if min(norms) > 0 else NAN


def whitening_rank(h: Tensor, curvature_diagonal: Tensor) -> float:
    """ζ = Tr(H^{-1/2} Σ H^{-1/2}) = Σ_i |σ_i| / H_i (HiSo, arXiv 2506.02370).

    The paper's Σ bounds the Hessian from above and is positive, hence the absolute value. The
    noise of an estimated σ adds to the sum, so compare only estimates from equally many samples. ζ
    scales with 1/H; :func:`effective_rank` of the same matrix does not.

    Args:
        h: (d,), or (1,) for one H shared by all weights; positive.
        curvature_diagonal: σ = diag(Σ), (d,).
    """
    return float((curvature_diagonal.abs() / h).sum(dtype=torch.float64))


def whitened(hessian_vector: HessianVector, h: Tensor) -> HessianVector:
    """v -> H^{-1/2} ∇²f H^{-1/2} v.

    Args:
        h: (d,) or (1,), positive.
    """
    root = h.rsqrt()
    return lambda v: root * hessian_vector(root * v)


def largest_eigenvalue(hessian_vector: HessianVector, start: Tensor, iterations: int) -> float:
    """λmax of a symmetric matrix, by power iteration: approached from below.

    Power iteration finds the eigenvalue that is largest in magnitude. If that is negative, a second
    iteration on the matrix shifted by it finds λmax.

    Args:
        start: (d,) float32, a random vector.
        iterations: matrix-vector products, at least 1; twice as many if there is a shift.
    """
    found = _dominant(hessian_vector, start, iterations)
    if found >= 0:
        return found
    return found + _dominant(lambda v: hessian_vector(v) - found * v, start, iterations)


def effective_rank(trace: float, largest: float) -> float:
    """Tr(Σ) / λmax(Σ), between 1 and d for a positive Σ; nan when λmax is not positive."""
    return trace / largest if largest > 0 else NAN


def stability_bound(trace: float, largest: float, perturbations: int = 1) -> tuple[float, float]:
    """Bounds on the largest stable lr: (low, high).

    For P = 1 directions z ~ N(0, I) per step 2 / (Tr + 2 λmax) ≤ η* ≤ 2 / Tr (arXiv 2604.14669): a
    step below ``low`` is stable in mean square on the quadratic with this Hessian, one above
    ``high`` is not. The mean of P directions has the second moment E[MAM] = (1 + 1/P) A + Tr(A)/P I
    for M = (1/P) Σ z zᵀ, and the same argument gives 2P / (Tr + (P+1) λmax) ≤ η* ≤ 2P / Tr.

    Args:
        trace, largest: of the Hessian, or for whitened steps of H^{-1/2} ∇²f H^{-1/2}.
        perturbations: P.

    Returns:
        (nan, nan) when the trace is not positive: the bound assumes a minimum.
    """
    if not trace > 0:
        return NAN, NAN
    double = 2 * perturbations
    return double / (trace + (perturbations + 1) * max(largest, 0.0)), double / trace


def _sample(v: Tensor) -> Tensor:
    """Evenly spaced entries, float64. A fixed stride could read one column of a matrix only."""
    if v.numel() > SAMPLE:
        v = v[torch.arange(SAMPLE, device=v.device) * v.numel() // SAMPLE]
    return v.double()


def _ranks(v: Tensor) -> Tensor:
    _, which, counts = torch.unique(v, return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2)[which].double()


def _pearson(a: Tensor, b: Tensor) -> float:
    if a.numel() < 3 or a.min() == a.max() or b.min() == b.max():
        return NAN
    return cosine(a - a.mean(), b - b.mean())


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))


def _dominant(matrix_vector: HessianVector, start: Tensor, iterations: int) -> float:
    """The Rayleigh quotient after ``iterations`` products; 0 for the zero matrix."""
    assert iterations >= 1
    v, quotient = start / start.norm(), 0.0
    for _ in range(iterations):
        product = matrix_vector(v)
        norm = float(product.norm())
        if norm == 0:
            return 0.0
        quotient, v = _dot(v, product), product / norm
    return quotient
