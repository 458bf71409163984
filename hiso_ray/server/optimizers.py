"""The server of the first-order methods: averages deltas and steps from x_r to x_{r+1}. No torch.

With Δ the mean of the clients' deltas, one round is (Reddi et al. 2021, arXiv 2003.00295,
algorithm 2; operations are per weight)::

    sgd       x <- x + η Δ                                           FedAvg, FedProx: η = 1
    others    m <- β1 m + (1-β1) Δ                                   m_{-1} = 0
              v <- v + Δ²                              adagrad       v_{-1} = τ²
                   β2 v + (1-β2) Δ²                    adam
                   v - (1-β2) Δ² sign(v - Δ²)          yogi
              x <- x + η m / (√v + τ)

There is no bias correction. The paper's own values: β1 = 0.9 (0 for adagrad), β2 = 0.99 (adagrad
has none), and τ = 1e-3, called ``eps`` here because τ is the number of local steps elsewhere.

Float sums depend on their order, so the order is fixed, whichever actors compute them: a cohort's
size alone determines its chunks; the weighted deltas of a chunk are added up in client order, then
the chunks' sums in chunk order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hiso_ray.errors import UserError

CHUNKS = 16  # per cohort: bounds the actors that share a round and the sums that reach the server
_SLICE = 1 << 16  # 256 KiB of float32: a slice and its temporaries stay in a core's cache


@dataclass
class ServerState:
    """x_r and the optimizer's moments. Only :func:`step` changes them, in place.

    Attributes:
        x: (d,) float32; copy it to keep it beyond the round.
        m: (d,) float32; None for sgd, and while β1 = 0: m is then Δ itself.
        v: (d,) float32; None for sgd.
        round: r, the number of steps taken.
    """

    x: np.ndarray
    m: np.ndarray | None = None
    v: np.ndarray | None = None
    round: int = 0


def _adagrad(v: np.ndarray, square: np.ndarray, beta2: float) -> None:
    v += square


def _adam(v: np.ndarray, square: np.ndarray, beta2: float) -> None:
    v *= beta2
    v += (1 - beta2) * square


def _yogi(v: np.ndarray, square: np.ndarray, beta2: float) -> None:
    v -= (1 - beta2) * square * np.sign(v - square)


_SECOND_MOMENTS: dict[str, Callable[[np.ndarray, np.ndarray, float], None]] = {
    "adam": _adam,
    "yogi": _yogi,
    "adagrad": _adagrad,
}
OPTIMIZERS = ("sgd", *_SECOND_MOMENTS)


def initial(optimizer: str, x0: np.ndarray, eps: float) -> ServerState:
    """The state before round 0.

    Args:
        optimizer: one of ``OPTIMIZERS``.
        x0: (d,) float32; copied.
        eps: the paper's τ; v_{-1} = τ².

    Raises:
        UserError: the optimizer is unknown, or it uses v and τ is not positive.
    """
    _check_name(optimizer)
    x = np.array(x0, np.float32)
    if optimizer == "sgd":
        return ServerState(x)
    if not eps > 0:
        raise UserError(
            f"the server's eps is {eps}; {optimizer} divides by sqrt(v) + eps and needs it above 0 "
            "(1e-3 is the usual value)"
        )
    return ServerState(x, v=np.full_like(x, eps**2))


def step(
    state: ServerState,
    update: np.ndarray,
    optimizer: str,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """x_r -> x_{r+1}, in place and slice by slice.

    Args:
        update: (d,) float32, Δ, the mean of the cohort's deltas; read only.
        optimizer: the one that ``state`` was made for.
        lr: η of the server.
        beta1, eps: not read by sgd.
        beta2: not read by sgd and adagrad.
    """
    assert update.shape == state.x.shape, (update.shape, state.x.shape)
    assert (state.v is None) == (optimizer == "sgd"), f"the state is not one of {optimizer}"
    if state.v is not None and state.m is None and beta1:
        state.m = np.zeros_like(state.x)
    for where in _slices(len(state.x)):
        x, delta = state.x[where], update[where]
        if state.v is None:
            x += lr * delta
            continue
        v, m = state.v[where], delta
        if state.m is not None:
            m = state.m[where]
            m *= beta1
            m += (1 - beta1) * delta
        _SECOND_MOMENTS[optimizer](v, np.square(delta), beta2)
        x += lr * m / (np.sqrt(v) + eps)
    state.round += 1


def tensors(state: ServerState) -> dict[str, np.ndarray]:
    """The arrays a snapshot must hold: x, and m and v if there are any. Not copies."""
    named = {"x": state.x, "m": state.m, "v": state.v}
    return {name: array for name, array in named.items() if array is not None}


def restored(optimizer: str, named: Mapping[str, np.ndarray], round_: int) -> ServerState:
    """The inverse of :func:`tensors`; copies.

    Raises:
        UserError: these are not the tensors of this optimizer.
    """
    _check_name(optimizer)
    needed, allowed = ({"x"}, {"x"}) if optimizer == "sgd" else ({"x", "v"}, {"x", "m", "v"})
    alike = len({array.shape for array in named.values()}) == 1
    if not needed <= set(named) <= allowed or not alike:
        given = {name: array.shape for name, array in named.items()}
        raise UserError(
            f"a server state of {optimizer} holds {sorted(needed)} (at most {sorted(allowed)}), "
            f"all of one shape; given was {given}: it was saved by another method or model"
        )
    return ServerState(round=round_, **{n: np.array(a, np.float32) for n, a in named.items()})


def chunks(cohort: Sequence[int]) -> list[tuple[int, ...]]:
    """Splits a cohort of m clients into at most 16 chunks of ⌈m/16⌉ clients or one fewer.

    The sizes depend on m alone. ``cohort`` is ascending, as everywhere.
    """
    largest = -(-len(cohort) // CHUNKS)
    count = -(-len(cohort) // largest) if largest else 0
    at = [i * len(cohort) // count for i in range(count)] + [len(cohort)]
    return [tuple(map(int, cohort[i:j])) for i, j in itertools.pairwise(at)]


def add_up(pieces: Iterable[np.ndarray]) -> np.ndarray:
    """((a + b) + c) + ... in the pieces' dtype, newly allocated; each piece is read once.

    Every sum over a chunk uses this on float32 arrays that are weighted *already*: a fused
    multiply-add would round differently, and a sum that starts from 0 would turn -0 into 0.
    """
    several = iter(pieces)
    total = next(several).copy()
    for piece in several:
        total += piece
    return total


def weighted_mean(
    parts: Mapping[int, np.ndarray], chunks: Sequence[tuple[int, ...]], total_weight: float
) -> np.ndarray:
    """Δ = (Σ_i w_i Δ_i) / Σ_i w_i, with the same bits whoever computed the parts.

    Args:
        parts: (d,) float32 sums of weighted deltas, keyed by the first client in each sum: for
            each chunk either its whole sum or one array for every client in it. Read only.
        chunks: from :func:`chunks`.
        total_weight: Σ_i w_i over the cohort.

    Returns:
        (d,) float32.
    """
    assert chunks, "an empty cohort has no mean"
    groups = [_pieces(parts, chunk) for chunk in chunks]
    assert len(parts) == sum(map(len, groups)), "parts of clients outside the cohort"
    mean = np.empty_like(groups[0][0])
    for where in _slices(len(mean)):
        sums = (add_up(piece[where] for piece in pieces) for pieces in groups)
        np.divide(add_up(sums), np.float32(total_weight), out=mean[where])
    return mean


def _pieces(parts: Mapping[int, np.ndarray], chunk: tuple[int, ...]) -> list[np.ndarray]:
    """One array if the chunk was summed as a whole, else one per client."""
    there = [client for client in chunk if client in parts]
    assert there in ([chunk[0]], list(chunk)), (
        f"of the chunk {chunk} the deltas of {there} are there: neither its sum nor every client's"
    )
    return [parts[client] for client in there]


def _slices(length: int) -> Iterator[slice]:
    return (slice(i, i + _SLICE) for i in range(0, length, _SLICE))


def _check_name(optimizer: str) -> None:
    if optimizer not in OPTIMIZERS:
        raise UserError(
            f"there is no server optimizer {optimizer!r}; choose one of {', '.join(OPTIMIZERS)}"
        )
