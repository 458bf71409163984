"""Diagnostics of H at one round: a row of ``diagnostics.csv``.

Σ is the Hessian of the federation's loss on one batch, its diagonal a Hutchinson estimate. H is the
one in use, for every arm.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hiso_ray.client.landscape import Landscape, look
from hiso_ray.client.replica import Replica
from hiso_ray.config import Experiment
from hiso_ray.config.schedule import rate
from hiso_ray.method import evidence
from hiso_ray.method.curvature import Curvature
from hiso_ray.method.naming import Name
from hiso_ray.method.perturbed import perturb
from hiso_ray.seeds import Purpose

PROBES = 32  # directions along which finite differences are compared with exact derivatives
SAMPLES = 32  # random vectors for the estimate of diag Σ
ITERATIONS = 30  # of a power iteration
NAN = float("nan")

COLUMNS = (
    "round", "h_min", "h_median", "h_max", "h_mean", "update_norm", "gradient_norm",
    "g_mean", "g_std", "g_bias", "g_error", "update_cosine",
    "h_hessian_pearson", "h_hessian_spearman", "h_gradient_pearson", "h_gradient_spearman",
    "trace", "largest_eigenvalue", "effective_rank",
    "whitening_rank", "whitened_largest", "whitened_effective_rank",
    "lr_stable_low", "lr_stable_high", "lr", "h_histogram",
)  # fmt: skip
Row = dict[str, float | int | str | None]


def diagnose(replica: Replica) -> Row:
    """All of ``COLUMNS`` at x_r; None where a number is undefined."""
    experiment, state = replica.experiment, replica.state
    view = look(
        replica.task,
        state.x,
        replica.train_examples,
        experiment.seed,
        Purpose.DIAGNOSTICS,
        replica.round,
    )
    h = _in_use(state.curvature, state.x)
    gradient, diagonal = view.gradient(), view.hessian_diagonal(SAMPLES)
    row: Row = {"round": replica.round, "update_norm": state.update_norm}
    lr = rate(experiment.method, max(0, replica.round - 1))
    row |= {"lr": lr, "gradient_norm": float(gradient.norm())}
    row |= _of_h(h) | _correlations(h, gradient, diagonal) | _probes(replica, view, gradient)
    row |= _spectrum(replica, view, h, diagonal)
    return {name: _number(row.get(name)) for name in COLUMNS}


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def _in_use(curvature: Curvature, like: Tensor) -> Tensor:
    """(d,) the H in use, expanded to every weight."""
    everywhere = slice(0, like.numel())
    return curvature.color(torch.ones_like(like), everywhere).square()


def _of_h(h: Tensor) -> Row:
    counts = evidence.histogram(h).tolist()
    # a bin is named by log10 of its lower edge; the bin below all edges is -inf
    edges = (round(edge, 1) + 0.0 for edge in evidence.EDGES.log10().tolist())  # 0, never -0
    lows = ["-inf", *map(str, edges)]
    filled = (f"{low}:{count}" for low, count in zip(lows, counts, strict=True) if count)
    return {
        "h_min": float(h.min()),
        "h_median": float(h.median()),
        "h_max": float(h.max()),
        "h_mean": float(h.mean(dtype=torch.float64)),
        "h_histogram": " ".join(filled),
    }


def _correlations(h: Tensor, gradient: Tensor, diagonal: Tensor) -> Row:
    squares, size = gradient.square(), diagonal.abs()
    return {
        "h_hessian_pearson": evidence.log_pearson(h, size),
        "h_hessian_spearman": evidence.spearman(h, size),
        "h_gradient_pearson": evidence.log_pearson(h, squares),
        "h_gradient_spearman": evidence.spearman(h, squares),
    }


def _probes(replica: Replica, view: Landscape, gradient: Tensor) -> Row:
    """Compares scalars of the method's own probe with <∇f, z> along the same directions, on the
    view's batch, and the step they make with the gradient."""
    experiment, state = replica.experiment, replica.state
    if experiment.method.row.first_order:
        return {}
    key = (experiment.seed, int(Purpose.DIAGNOSTICS), replica.round)
    names: list[Name] = [(*key, p) for p in range(PROBES)]
    g, _ = replica.measure(state.x, [view.batch], names)
    measured = torch.from_numpy(g[0, :PROBES]).double()
    exact, step = torch.empty(PROBES, dtype=torch.float64), torch.zeros_like(state.x)
    for p, name in enumerate(names):
        z = torch.zeros_like(state.x)
        perturb(z, z, name, state.in_probe, replica.directions, 1.0)
        scale = replica.probe.scale(replica.directions, name)
        exact[p] = torch.dot(gradient.double(), z.double()) * scale**2
        if p < experiment.method.num_perturbations:
            u = torch.zeros_like(state.x)
            perturb(u, u, name, state.in_update, replica.directions, 1.0)
            step.add_(u, alpha=float(measured[p]))
    replica.directions.forget()
    error = measured - exact
    return {
        "g_mean": float(measured.mean()),
        "g_std": float(measured.std()),
        "g_bias": float(error.mean()),
        "g_error": float(error.square().mean().sqrt()),
        "update_cosine": evidence.cosine(step, gradient),
    }


def _spectrum(replica: Replica, view: Landscape, h: Tensor, diagonal: Tensor) -> Row:
    """Traces, largest eigenvalues and derived ranks of Σ and of H^{-1/2} Σ H^{-1/2}. The
    stability bound holds for plain steps by the mean of g z; other methods have none."""
    experiment, start = replica.experiment, view.random_vector()
    # directions that a step averages over
    own = 1 if replica.naming.shared else experiment.federation.clients_per_round
    averaged = own * experiment.method.num_perturbations
    trace = float(diagonal.sum(dtype=torch.float64))
    largest = evidence.largest_eigenvalue(view.hessian_vector, start, ITERATIONS)
    white = evidence.whitened(view.hessian_vector, h)
    white_trace = float((diagonal / h).sum(dtype=torch.float64))
    white_largest = evidence.largest_eigenvalue(white, start, ITERATIONS)
    low, high = NAN, NAN
    if _is_plain(experiment):
        low, high = evidence.stability_bound(white_trace, white_largest, averaged)
    return {
        "trace": trace,
        "largest_eigenvalue": largest,
        "effective_rank": evidence.effective_rank(trace, largest),
        "whitening_rank": evidence.whitening_rank(h, diagonal),
        "whitened_largest": white_largest,
        "whitened_effective_rank": evidence.effective_rank(white_trace, white_largest),
        "lr_stable_low": low,
        "lr_stable_high": high,
    }


def _is_plain(experiment: Experiment) -> bool:
    """Whether a round is x - η mean(g z), as the stability bound assumes."""
    method = experiment.method
    return (
        not (experiment.sends_weights or method.row.first_order)
        and method.curvature_in == "both"
        and method.momentum == 0
        and method.distribution == "gaussian"  # its fourth moments are in the bound
        and experiment.precision != "sign"
    )
