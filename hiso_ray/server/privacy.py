"""Client-level differential privacy of the mean scalars, and what it costs in ε.

The server is trusted. With clip C and noise multiplier z, it releases of every round::

    s_i   τ·P scalars of client i, as decoded (attackers' too), scaled down to ‖s_i‖₂ ≤ C
    ḡ     (Σ_i s_i + N(0, (zC)²)) / answered                      float32, in the ledger

and nothing else that depends on the data: weights and H are functions of the ledger (DP-FedAvg
without the weights: McMahan et al. 2018, arXiv 1710.06963). Since the server clips after decoding,
the bound holds for every precision of the uplink, and for attackers that know no scalars but their
own.

**Neighbours** are two federations in which one client's data are replaced arbitrarily. That changes
the sum by up to 2C, not C: the noise is z/2 in units of the sensitivity.

**Accounting.** m of N clients are drawn uniformly without replacement each round. ε(rounds) is the
smaller of two valid bounds, both computed by Google's dp_accounting:

- with amplification by sampling: Rényi DP of the sampled Gaussian mechanism (Wang, Balle,
  Kasiviswanathan 2019, arXiv 1808.00087), composed over the rounds;
- without: the exact ε of one Gaussian mechanism per round (Balle, Wang 2018, arXiv 1805.06530),
  which is smaller for m close to N or for large noise, and tight for m = N.

Dropout changes neither: clients drop out independently with equal probability, so those that answer
are, given their number, again a uniform sample, of at most m.

**Not covered**: the training loss, evaluation, diagnostics and the ids of the cohort, which a
simulator logs for its researcher; tuning hyper-parameters on results; the gap between real numbers
and floats (Mironov 2012). ε holds against an observer of what the clients receive: step seeds, η, μ
and ḡ. Against an observer of cohort ids, only the bound without amplification holds. Noise drawn
from the run seed is for simulation only: anyone who knows or guesses the seed can subtract it, so a
deployment must draw noise and cohorts from a secret source.
"""

from __future__ import annotations

import math

import numpy as np

from hiso_ray.errors import NonFiniteLoss

# Rounding to float32 has a relative error of at most half of this.
FLOAT32_STEP = 2.0**-23


def clipped(scalars: np.ndarray, clip: float) -> np.ndarray:
    """s · min(1, C / ‖s‖₂), of norm at most C despite rounding.

    Args:
        scalars: float32 of any shape, everything that one client sent in a round.
        clip: C.

    Returns:
        float32 of the same shape; unchanged where ‖s‖₂ ≤ C.

    Raises:
        NonFiniteLoss: a scalar is infinite or NaN, so no factor can bound the norm.
    """
    wide = scalars.astype(np.float64)
    if not np.isfinite(wide).all():
        raise NonFiniteLoss("a client's scalars are not all finite: they cannot be clipped")
    norm = math.sqrt(math.fsum((wide**2).ravel()))  # exact, so the same on every machine
    if norm <= clip:
        return scalars
    return (wide * (clip / norm * (1 - FLOAT32_STEP))).astype(np.float32)


def noisy(
    mean: np.ndarray, clip: float, noise: float, answered: int, rng: np.random.Generator
) -> np.ndarray:
    """ḡ + N(0, (zC / answered)²), independently for each scalar.

    Args:
        mean: the mean of the answering clients' clipped scalars, any shape.
        noise: z.
        answered: number of clients in the mean, at least one.
        rng: for this round only: ``generator(run seed, Purpose.NOISE, round)``.

    Returns:
        float32 of the same shape.
    """
    assert answered > 0, "nobody answered: there is no mean to release"
    sigma = noise * clip / answered
    return (mean + sigma * rng.standard_normal(mean.shape)).astype(np.float32)


class Accountant:
    """ε after any number of rounds. It has no state, so a resumed run uses it like a new one.

    Rényi DP of one round is computed once; r rounds cost r times it at every order.

    Args:
        num_clients, clients_per_round: N and m.
        noise: z > 0; σ of the noise on the sum in units of the clip.
        delta: δ.
    """

    def __init__(
        self, num_clients: int, clients_per_round: int, noise: float, delta: float
    ) -> None:
        import dp_accounting  # takes a second, and only private runs need it

        # Its documentation gives multipliers in units of a record's norm, C, which under
        # REPLACE_ONE is half the sensitivity. But its Rényi accountant reads them in units of the
        # sensitivity under every relation (google/differential-privacy issue 378, version 0.6.0);
        # given z it would report ε for a sum that changes by C. Hence z / 2, and a pinned version.
        self._multiplier = noise / 2
        self._delta = delta
        rdp = dp_accounting.rdp.RdpAccountant(
            neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
        )
        rdp.compose(
            dp_accounting.SampledWithoutReplacementDpEvent(
                num_clients, clients_per_round, dp_accounting.GaussianDpEvent(self._multiplier)
            )
        )
        self._orders, self._rdp = rdp.orders, rdp.rdp
        self._sampled_epsilon = dp_accounting.rdp.compute_epsilon
        self._gaussian_epsilon = dp_accounting.get_epsilon_gaussian

    def epsilon(self, rounds: int) -> float:
        """ε such that the first ``rounds`` releases together are (ε, δ)-private."""
        if rounds == 0:
            return 0.0
        sampled, _ = self._sampled_epsilon(self._orders, rounds * self._rdp, self._delta)
        with np.errstate(divide="ignore"):  # log 0 at the ends of its search
            # r releases with multiplier σ are equivalent to one with σ / √r.
            gaussian = self._gaussian_epsilon(self._multiplier / math.sqrt(rounds), self._delta)
        return float(min(sampled, gaussian))
