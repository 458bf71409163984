"""The candidates by section of the study, each with the grid of rates it is tried at."""

from __future__ import annotations

from candidates import estimates as e
from candidates import steps as s
from candidates.run import Candidate

STARTS = tuple(10.0**k for k in range(-5, 1))  # first rates of those that find their own


def _grid(first: float, number: int = 6) -> tuple[float, ...]:
    return tuple(first * 2**i for i in range(number))


BASELINE = Candidate("DeComFL", grid=_grid(0.01))

NOISE = (
    Candidate("P = 10", e.shared(10), grid=_grid(0.01)),
    Candidate("P = 20", e.shared(20), grid=_grid(0.02)),
    Candidate("own directions", e.own(), grid=_grid(0.02)),
    Candidate("own directions, P = 10", e.own(10), grid=_grid(0.02)),
    Candidate("2 groups", e.groups(2), grid=_grid(0.01)),
    Candidate("4 groups", e.groups(4), grid=_grid(0.02)),
    Candidate("central differences", e.antithetic(), grid=_grid(0.01)),
    Candidate("orthogonal", e.orthogonal(), grid=_grid(0.01)),
    Candidate("scalar H", e.scalar_h(), grid=_grid(0.005)),
    Candidate("momentum 0.5", turn=s.momentum(0.5), grid=_grid(0.01)),
    Candidate("momentum 0.9", turn=s.momentum(0.9), grid=_grid(0.01)),
    Candidate("momentum 0.9, corrected", turn=s.momentum(0.9, True), grid=_grid(0.01)),
    Candidate("momentum 0.9, Nesterov", turn=s.momentum(0.9, True, True), grid=_grid(0.01)),
    Candidate("momentum 0.97, corrected", turn=s.momentum(0.97, True), grid=_grid(0.02)),
    Candidate("average 0.9", average=0.9, grid=_grid(0.01)),
    Candidate("average 0.95", average=0.95, grid=_grid(0.01)),
    Candidate("average 0.98", average=0.98, grid=_grid(0.01)),
    Candidate("average 0.9, fed back each 10", average=0.9, fed_back=10, grid=_grid(0.02)),
    Candidate("regression, 10 rounds", e.recycled(10), grid=_grid(2.56)),
    Candidate("regression, 40 rounds", e.recycled(40), grid=_grid(0.64)),
    Candidate("least mean squares 0.99", e.residual(1.0, 0.99), grid=_grid(0.32)),
    Candidate("least mean squares 0.95", e.residual(1.0, 0.95), grid=_grid(0.32)),
    Candidate("guided", e.guided(), grid=_grid(0.01)),
    Candidate("control variates", e.control_variates(1.0), grid=_grid(0.01)),
    Candidate("P from 8 to 2", e.early(8, 2), grid=_grid(0.01)),
    Candidate("P from 2 to 8", e.early(2, 8), grid=_grid(0.01)),
    Candidate("weights by labels", e.weighted_by_label(), grid=_grid(0.01)),
    Candidate("own, least mean squares 0.95", e.residual(1.0, 0.95, of="own"), grid=_grid(0.16)),
    Candidate("own, momentum 0.9", e.own(), s.momentum(0.9, True), grid=_grid(0.02)),
    Candidate("own, average 0.95", e.own(), average=0.95, grid=_grid(0.04)),
    Candidate("own, control variates", e.control_variates(1.0, of="own"), grid=_grid(0.02)),
)

STEPS = (
    Candidate("linear", rate=s.linear, grid=_grid(0.01)),
    Candidate("cosine", rate=s.cosine, grid=_grid(0.01)),
    Candidate("warm-up, linear", rate=s.warm_up(0.1, s.linear), grid=_grid(0.01)),
    Candidate("own, linear", e.own(), rate=s.linear, grid=_grid(0.02)),
    Candidate("normalised", rate=s.normalised(), grid=_grid(0.005)),
    Candidate(
        "normalised, linear",
        rate=lambda c, st, d: s.normalised()(c, st, d) * (1 - st.round / st.rounds),
        grid=_grid(0.005),
    ),
    Candidate("line search, same cohort", rate=s.line_search(), grid=STARTS),
    Candidate("line search, next cohort", rate=s.fresh_line_search(), grid=STARTS),
    Candidate("DoG", rate=s.distance_over_gradients(1e-4), grid=(0.1, 0.3, 1.0, 3.0)),
    Candidate("DoG, own", e.own(), rate=s.distance_over_gradients(1e-4), grid=(0.1, 0.3, 1.0, 3.0)),
    Candidate("trace", rate=s.trace(1.0), grid=(0.125, 0.25, 0.5, 1.0)),
    Candidate("parabola", rate=s.parabola(), grid=STARTS),
    Candidate("parabola, at the end", rate=s.parabola(at_end=True), grid=STARTS),
    Candidate("parabola, retention 0.8", rate=s.parabola(0.8), grid=STARTS),
    Candidate("parabola, retention 0.9", rate=s.parabola(0.9), grid=STARTS),
    Candidate("parabola, retention 0.98", rate=s.parabola(0.98), grid=STARTS),
    Candidate("parabola, safety 0.5", rate=s.parabola(safety=0.5), grid=STARTS),
    Candidate("parabola, safety 1.5", rate=s.parabola(safety=1.5), grid=STARTS),
    Candidate("parabola, every 5", rate=s.parabola(0.9, every=5), grid=STARTS),
    Candidate("parabola, linear", rate=s.parabola(safety=1.5, then=s.linear), grid=STARTS),
    Candidate("parabola, average", rate=s.parabola(), average=0.95, grid=STARTS),
    Candidate("parabola, momentum 0.9", turn=s.momentum(0.9, True), rate=s.parabola(), grid=STARTS),
    Candidate("parabola, own", e.own(), rate=s.parabola(), grid=STARTS),
    Candidate("parabola, own, average", e.own(), rate=s.parabola(), average=0.95, grid=STARTS),
    Candidate("parabola, own, linear", e.own(), rate=s.parabola(then=s.linear), grid=STARTS),
    Candidate("parabola, own, momentum", e.own(), s.momentum(0.9, True), s.parabola(), grid=STARTS),
)

CALIBRATED = (
    Candidate("calibrated", calibrated=True, grid=_grid(0.01)),
    Candidate("calibrated, own", e.own(), calibrated=True, grid=_grid(0.02)),
    Candidate("calibrated, own, P = 10", e.own(10), calibrated=True, grid=_grid(0.04)),
)
FEW = (1e-5, 1e-3, 1e-1)
PARABOLAS = tuple(
    Candidate(f"{of}, {name}", {"shared": e.shared(), "own": e.own()}[of], rate=rate, grid=FEW)
    for of in ("shared", "own")
    for name, rate in {
        "p": s.parabola(),
        "p growth": s.parabola(growth=1.25),
        "p 0.8": s.parabola(0.8),
        "p 0.9 growth": s.parabola(0.9, growth=1.25),
        "p 0.9 growth cautious": s.parabola(0.9, growth=1.25, cautious=True),
        "p cautious": s.parabola(cautious=True),
        "p growth per length": s.parabola(growth=1.25, per_length=True),
        "p 0.9 growth per length": s.parabola(0.9, growth=1.25, per_length=True),
        "p growth cautious per length": s.parabola(growth=1.25, per_length=True, cautious=True),
        "p 0.9 growth delayed": s.parabola(0.9, growth=1.25, delayed=True),
    }.items()
)

FIVE = (
    Candidate("A DeComFL", grid=_grid(0.02, 3)),
    Candidate("B calibrated", calibrated=True, grid=_grid(0.04, 3)),
    Candidate("C own", e.own(), grid=_grid(0.04, 4)),
    Candidate("D calibrated own", e.own(), calibrated=True, grid=_grid(0.04, 4)),
    Candidate("E scalar H", e.scalar_h(), grid=_grid(0.01, 3)),
    Candidate("F P = 20", e.shared(20), grid=_grid(0.04, 4)),
    Candidate("G calibrated P = 20", e.shared(20), calibrated=True, grid=_grid(0.08, 4)),
    Candidate("H linear", rate=s.linear, grid=_grid(0.04, 3)),
    Candidate("I momentum 0.9", turn=s.momentum(0.9, True), grid=_grid(0.02, 3)),
    Candidate("J calibrated scalar H", e.scalar_h(), calibrated=True, grid=_grid(0.01, 4)),
)
AUTO = tuple(
    Candidate(
        f"{name}{', guard' if guard else ''}",
        estimate,
        rate=s.parabola(guard=guard),
        calibrated="calibrated" in name,
        grid=FEW,
    )
    for name, estimate in {
        "auto": e.shared(),
        "auto own": e.own(),
        "auto calibrated": e.shared(),
        "auto calibrated own": e.own(),
        "auto calibrated P = 20": e.shared(20),
    }.items()
    for guard in (0.0, 1.25)
)
REVIEWS = (
    Candidate("reviews DeComFL", grid=_grid(0.001, 4)),
    Candidate("reviews auto", rate=s.parabola(guard=1.25), grid=FEW),
)
ALL = {
    c.name: c for c in (BASELINE, *NOISE, *STEPS, *PARABOLAS, *CALIBRATED, *FIVE, *AUTO, *REVIEWS)
}
