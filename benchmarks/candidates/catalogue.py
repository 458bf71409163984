"""The candidates, each with the rates it is tried at."""

from __future__ import annotations

from dataclasses import replace

from candidates import estimates, found, remembered, steps
from candidates.run import Candidate

STARTS = tuple(10.0**k for k in range(-5, 1))  # first rates of those that find their own
FEW_STARTS = STARTS[::2]  # 1e-5, 1e-3, 0.1


def _grid(first: float, number: int = 6) -> tuple[float, ...]:
    """Rates a factor of two apart."""
    return tuple(first * 2**i for i in range(number))


LESS_NOISE = (
    Candidate("DeComFL", _grid(0.01)),
    Candidate("P = 20", _grid(0.02), estimates.shared(20)),
    Candidate("calibrated, P = 20", _grid(0.02), estimates.shared(20), calibrated=True),
    Candidate("own directions", _grid(0.02), estimates.own()),
    Candidate("2 groups", _grid(0.01), estimates.groups(2)),
    Candidate("4 groups", _grid(0.02), estimates.groups(4)),
    Candidate("central differences", _grid(0.01), estimates.central()),
    Candidate("orthogonal directions", _grid(0.01), estimates.orthogonal()),
    Candidate("P from 8 to 2", _grid(0.01), estimates.changing(8, 2)),
    Candidate("P from 2 to 8", _grid(0.01), estimates.changing(2, 8)),
    Candidate("weights by labels", _grid(0.01), estimates.weighted_by_labels()),
    Candidate("calibrated", _grid(0.01), calibrated=True),
    Candidate("calibrated, own directions", _grid(0.02), estimates.own(), calibrated=True),
    Candidate("calibrated, 4 groups", _grid(0.02), estimates.groups(4), calibrated=True),
    Candidate("scalar H", _grid(0.005), remembered.scalar_h()),
    Candidate("regression over 40 rounds", _grid(0.64), remembered.recycled(40)),
    Candidate("least mean squares", _grid(0.32), remembered.residual(0.99)),
    Candidate("guided", _grid(0.01), remembered.guided()),
    Candidate("control variates", _grid(0.01), remembered.control_variates()),
    Candidate("own, control variates", _grid(0.02), remembered.control_variates("own")),
    Candidate("momentum 0.9", _grid(0.01), turn=steps.momentum(0.9)),
    Candidate("momentum 0.9, Nesterov", _grid(0.01), turn=steps.momentum(0.9, nesterov=True)),
    Candidate("own, momentum 0.9", _grid(0.02), estimates.own(), steps.momentum(0.9)),
    Candidate("average 0.95", _grid(0.01), average=0.95),
    Candidate("average 0.9, fed back", _grid(0.02), average=0.9, fed_back=10),
    Candidate("own, average 0.95", _grid(0.04), estimates.own(), average=0.95),
)

TUNED_RATES = (
    Candidate("linear", _grid(0.01), rate=steps.linear),
    Candidate("cosine", _grid(0.01), rate=steps.cosine),
    Candidate("warm-up, linear", _grid(0.01), rate=steps.warm_up(0.1, steps.linear)),
    Candidate("own, linear", _grid(0.02), estimates.own(), rate=steps.linear),
    Candidate("normalised", _grid(0.005), rate=steps.normalised()),
    Candidate("DoG", (0.1, 0.3, 1.0, 3.0), rate=steps.distance_over_gradients()),
    Candidate("trace", (0.03125, 0.0625, 0.125, 0.25), rate=found.trace()),
)

FOUND_RATES = (
    Candidate("line search, same cohort", STARTS, rate=found.line_search()),
    Candidate("vote of the next cohort", STARTS, rate=found.vote()),
    Candidate("auto", STARTS, rate=found.parabola()),
    Candidate("auto, no guard", STARTS, rate=found.parabola(guard=0)),
    Candidate("auto, retention 0.8", STARTS, rate=found.parabola(0.8)),
    Candidate("auto, retention 0.98", STARTS, rate=found.parabola(0.98)),
    Candidate("auto, safety 0.5", STARTS, rate=found.parabola(safety=0.5)),
    Candidate("auto, safety 1.5", STARTS, rate=found.parabola(safety=1.5)),
    Candidate("auto, each 5 rounds", STARTS, rate=found.parabola(0.9, every=5)),
    Candidate("auto, linear", STARTS, rate=found.parabola(then=steps.linear)),
    Candidate("auto, average 0.95", STARTS, rate=found.parabola(), average=0.95),
    Candidate("auto, P = 20", STARTS, estimates.shared(20), rate=found.parabola()),
    Candidate("auto, own", STARTS, estimates.own(), rate=found.parabola()),
    Candidate("auto, calibrated", STARTS, rate=found.parabola(), calibrated=True),
    Candidate(
        "auto, calibrated, own", STARTS, estimates.own(), rate=found.parabola(), calibrated=True
    ),
)

SCAN = {c.name: c for c in (*LESS_NOISE, *TUNED_RATES, *FOUND_RATES)}

# Those that matter, at rates around the best of the scan, on several seeds.
CHOSEN_RATES = {
    "DeComFL": _grid(0.02, 3),
    "momentum 0.9": _grid(0.02, 3),
    "linear": _grid(0.04, 3),
    "scalar H": _grid(0.01, 3),
    "P = 20": _grid(0.08, 3),
    "calibrated, P = 20": _grid(0.08, 4),
    "own directions": _grid(0.04, 4),
    "calibrated": _grid(0.04, 3),
    "calibrated, own directions": _grid(0.04, 4),
    "4 groups": _grid(0.04, 4),
    "calibrated, 4 groups": _grid(0.04, 4),
    "auto": FEW_STARTS,
    "auto, P = 20": FEW_STARTS,
    "auto, safety 0.5": FEW_STARTS,
    "auto, own": FEW_STARTS,
    "auto, calibrated": FEW_STARTS,
    "auto, calibrated, own": FEW_STARTS,
}
CHOSEN = {name: replace(SCAN[name], grid=rates) for name, rates in CHOSEN_RATES.items()}

REVIEWS = {
    "DeComFL": replace(SCAN["DeComFL"], grid=_grid(0.001, 4)),
    "auto": replace(SCAN["auto"], grid=FEW_STARTS),
    "auto, safety 0.5": replace(SCAN["auto, safety 0.5"], grid=FEW_STARTS),
    "auto, P = 20": replace(SCAN["auto, P = 20"], grid=FEW_STARTS),
}

# An OPT of 0.9M weights on SST-2, all of them trained.
SST2 = {
    "DeComFL": replace(SCAN["DeComFL"], grid=_grid(1e-4, 5)),
    "P = 20": replace(SCAN["P = 20"], grid=_grid(4e-4, 4)),
    "own directions": replace(SCAN["own directions"], grid=_grid(2e-4, 4)),
    "scalar H": replace(SCAN["scalar H"], grid=_grid(5e-5, 5)),
    "auto": replace(SCAN["auto"], grid=FEW_STARTS),
    "auto, P = 20": replace(SCAN["auto, P = 20"], grid=FEW_STARTS),
}

# The published model; its tuned methods are runs of the package (docs/results/gemma_fewer.yaml).
GEMMA = {name: replace(SCAN[name], grid=FEW_STARTS) for name in ("auto", "auto, P = 20")}
