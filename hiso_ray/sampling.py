"""Who takes part in a round, and on which examples: pure functions of the run seed."""

from __future__ import annotations

import numpy as np

from hiso_ray.seeds import Purpose, generator


def cohort(run_seed: int, round_: int, num_clients: int, clients_per_round: int) -> np.ndarray:
    """The sampled clients of a round.

    Returns:
        (m,) int64, ascending, drawn uniformly without replacement.
    """
    rng = generator(run_seed, Purpose.COHORT, round_)
    return np.sort(rng.choice(num_clients, size=clients_per_round, replace=False))


def minibatch(
    run_seed: int, round_: int, client: int, step: int, examples: np.ndarray, batch_size: int
) -> np.ndarray:
    """The examples on which a client evaluates every probe of one local step.

    Args:
        examples: (n_i,) indices of the client's own examples.
        batch_size: the most examples to draw; a client that holds fewer uses all of them.

    Returns:
        (min(n_i, batch_size),) indices, drawn without replacement.
    """
    rng = generator(run_seed, Purpose.MINIBATCH, round_, client, step)
    return rng.choice(examples, size=min(batch_size, len(examples)), replace=False)
