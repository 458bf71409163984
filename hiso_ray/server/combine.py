"""Combines a cohort's answers for its record, in client-id order whatever the order of arrival.

Payloads are decoded, attackers' scalars are replaced, and clipping is enforced. Then the rule
reduces all scalars to one τ×P array (1×K where clients project), or, with directions per client,
they are put side by side. Privacy adds its noise to the mean. All of this is numpy on few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from hiso_ray.config import Experiment
from hiso_ray.federation.traffic import scalars_per_turn
from hiso_ray.federation.uplink import decode, encode
from hiso_ray.messages import Turn
from hiso_ray.seeds import Purpose, generator
from hiso_ray.server.aggregation import aggregate
from hiso_ray.server.attacks import attackers, corrupt
from hiso_ray.server.privacy import clipped, noisy


def in_order(turns: Iterable[Turn], clients: np.ndarray) -> list[Turn]:
    """The turns of a cohort by client id."""
    by_client = {turn.client: turn for turn in turns}
    return [by_client[int(client)] for client in clients]


def mean_loss(turns: Sequence[Turn]) -> float:
    """The mean over clients and local steps; all clients have the same number of steps."""
    losses = [loss for turn in turns for loss in turn.losses.tolist()]
    return math.fsum(losses) / len(losses)  # exact, so the same in any order


def received(experiment: Experiment, round_: int, turns: Sequence[Turn]) -> np.ndarray:
    """(m, τ, S) float32 scalars the server receives; S = P, or 2P with second differences."""
    steps, precision = experiment.record_steps, experiment.precision
    shape = (steps, scalars_per_turn(experiment) // steps)
    sent = decode([turn.payload for turn in turns], precision, shape)
    if experiment.attack.kind != "none":
        sent = _attacked(experiment, round_, turns, sent)
    clip = experiment.privacy.clip
    # Clients have clipped already; attackers have not, and rounding may have raised the norm.
    return sent if clip == "none" else np.stack([clipped(scalars, clip) for scalars in sent])


def _attacked(
    experiment: Experiment, round_: int, turns: Sequence[Turn], sent: np.ndarray
) -> np.ndarray:
    attack, precision = experiment.attack, experiment.precision
    who = attackers(experiment.seed, experiment.federation.num_clients, attack.fraction)
    bad = np.isin([turn.client for turn in turns], who)
    rng = generator(experiment.seed, Purpose.ATTACK, round_)
    lies = corrupt(sent, bad, attack.kind, attack.scale, rng)
    for i in np.flatnonzero(bad):  # lies, too, are sent in the run's precision
        (sent[i],) = decode([encode(lies[i], precision, rng)], precision, lies[i].shape)
    return sent


def combine(
    experiment: Experiment, round_: int, sent: np.ndarray, examples: np.ndarray
) -> np.ndarray:
    """What a record tells all clients: (τ, n, S/P) float32 over n directions, g and then c.

    Args:
        sent: (m, τ, S) float32 of the clients that answered.
        examples: (m,) int64 number of examples of each of them.
    """
    method, aggregation, privacy = experiment.method, experiment.aggregation, experiment.privacy
    weights = examples.astype(np.float64) if aggregation.weights == "examples" else None
    (m, steps, _), each = sent.shape, method.directions_per_step
    if method.row.second_differences:  # H learns from |c|: opposite signs must not cancel
        g, c = np.split(sent, 2, axis=2)
        sent = np.concatenate([g, np.abs(c)], axis=2)
    if method.directions == "per_client":
        if weights is not None:
            sent = (sent * (weights / weights.mean())[:, None, None]).astype(np.float32)
        apart = sent.reshape(m, steps, -1, each)
        return apart.transpose(1, 0, 3, 2).reshape(steps, m * each, -1)
    mean = aggregate(sent, experiment.rule, weights=weights, byzantine=aggregation.byzantine)
    if privacy.noise > 0:
        assert privacy.clip != "none"
        rng = generator(experiment.seed, Purpose.NOISE, round_)
        mean = noisy(mean, privacy.clip, privacy.noise, m, rng)
    return mean.reshape(steps, -1, each).transpose(0, 2, 1)
