"""The learning rate of each round, a pure function of the configuration and the round.

With η = ``method.lr``, W = ``warmup_rounds``, T = ``schedule_rounds`` and φ = ``schedule_floor``,
the rate of round r, counted from 0, is::

    r < W     η (r + 1) / W
    r >= W    η (φ + (1 - φ) s(t)),  t = min(1, (r - W) / (T - W))

    constant  s = 1
    linear    s = 1 - t
    cosine    s = (1 + cos πt) / 2       (Loshchilov and Hutter 2017, arXiv 1608.03983, no restarts)

Round W is thus the first of the schedule and is at η, and rounds from T on are at φη: with φ = 0
the rate is down to 0 when a run of T rounds has ended, and no round is spent on it.
"""

from __future__ import annotations

import math

from hiso_ray.config.experiment import Experiment
from hiso_ray.config.method import MethodConfig


def rate(method: MethodConfig, round_: int) -> float:
    """η of a round: of its clients' local steps, and of its record where clients probe.

    Args:
        method: of a resolved experiment.
    """
    warmup = method.warmup_rounds
    if round_ < warmup:
        return method.lr * ((round_ + 1) / warmup)
    if method.schedule == "constant":
        return method.lr
    end, floor = method.schedule_rounds, method.schedule_floor
    assert end != "auto", "the experiment is not resolved"
    t = min(1.0, (round_ - warmup) / (end - warmup))
    share = 1 - t if method.schedule == "linear" else (1 + math.cos(math.pi * t)) / 2
    return method.lr * (floor + (1 - floor) * share)


def record_rate(method: MethodConfig, round_: int) -> float:
    """η of a round's record: the server's rate where ``lr`` is that of clients' own steps."""
    return method.server_lr if method.row.projects else rate(method, round_)


def resolve(experiment: Experiment) -> Experiment:
    """With the schedule's length as a number, so that a run that is given more rounds later keeps
    the rates of those it has run."""
    method = experiment.method
    if method.schedule == "constant" or method.schedule_rounds != "auto":
        return experiment
    return experiment.changed(**{"method.schedule_rounds": experiment.federation.rounds})
