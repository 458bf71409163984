"""Clipping, noise, ε against the library and by hand, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from pydantic import ValidationError

from hiso_ray.config import put
from hiso_ray.config.guarantees import refusal
from hiso_ray.config.privacy import PrivacyConfig
from hiso_ray.config.sections import Sections
from hiso_ray.seeds import Purpose, generator
from hiso_ray.server.privacy import Accountant, clipped, noisy

ROOT = Path(__file__).resolve().parents[2]
REPLACE_ONE = dp_accounting.NeighboringRelation.REPLACE_ONE
DELTA = 1e-5


def test_clipping_by_hand() -> None:
    scalars = np.array([[3.0, 0.0], [0.0, -4.0]], np.float32)
    np.testing.assert_allclose(clipped(scalars, 2.5), scalars / 2, rtol=3e-7)
    assert clipped(scalars, 2.5).dtype == np.float32
    np.testing.assert_array_equal(scalars, [[3, 0], [0, -4]])


def test_clipping_leaves_what_is_within_alone() -> None:
    scalars = np.array([3.0, -4.0], np.float32)
    assert clipped(scalars, 5.0).tobytes() == scalars.tobytes()
    assert clipped(np.zeros((2, 3), np.float32), 1e-6).tobytes() == bytes(24)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e30])
def test_rounding_never_leaves_the_ball_and_twice_is_once(scale: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        scalars = (scale * rng.standard_normal((3, 5))).astype(np.float32)
        clip = float(rng.uniform(1e-4, 1e-3))
        once = clipped(scalars, clip)
        norm = math.sqrt(math.fsum(float(s) ** 2 for s in once.ravel()))
        assert clip * (1 - 1e-6) < norm <= clip
        assert clipped(once, clip).tobytes() == once.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scalars_that_no_factor_bounds(bad: float) -> None:
    with pytest.raises(ValueError, match="not all finite"):
        clipped(np.array([1.0, bad], np.float32), 1.0)


def test_the_noise_has_the_size_that_is_accounted_for() -> None:
    mean = np.linspace(-1, 1, 100_000, dtype=np.float32).reshape(4, -1)
    released = noisy(mean, 2.0, 3.0, 4, generator(7, Purpose.NOISE, 0))
    assert released.dtype == np.float32
    noise = (released - mean).ravel() / (2.0 * 3.0 / 4)
    n = noise.size
    assert abs(noise.mean()) < 5 / math.sqrt(n)
    assert abs(noise.std() - 1) < 5 / math.sqrt(2 * n)
    assert abs((noise**4).mean() - 3) < 5 * math.sqrt(96 / n)  # a Gaussian's
    assert abs((noise[1:] * noise[:-1]).mean()) < 5 / math.sqrt(n)


def test_noise_is_a_function_of_the_run_seed_and_the_round() -> None:
    mean = np.zeros((2, 3), np.float32)

    def released(seed: int, round_: int) -> bytes:
        return noisy(mean, 1.0, 1.0, 2, generator(seed, Purpose.NOISE, round_)).tobytes()

    assert released(0, 5) == released(0, 5)
    assert len({released(0, 5), released(0, 6), released(1, 5)}) == 3


def test_no_noise_releases_the_mean() -> None:
    mean = np.array([[1.5, -2.25]], np.float32)
    rng = np.random.default_rng(0)
    assert noisy(mean, 1.0, 0.0, 3, rng).tobytes() == mean.tobytes()


def directly(n: int, m: int, multiplier: float, rounds: int) -> float:
    """The library's answer for a sampled mechanism composed by the library itself."""
    event = dp_accounting.SampledWithoutReplacementDpEvent(
        n, m, dp_accounting.GaussianDpEvent(multiplier)
    )
    accountant = dp_accounting.rdp.RdpAccountant(neighboring_relation=REPLACE_ONE)
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, rounds))
    return float(accountant.get_epsilon(DELTA))


@pytest.mark.parametrize(
    ("n", "m", "noise", "rounds"),
    [(64, 8, 1.0, 200), (64, 8, 4.0, 1), (1000, 20, 2.0, 2000), (6, 2, 8.0, 50)],
)
def test_epsilon_is_the_librarys_composition_with_half_the_noise(
    n: int, m: int, noise: float, rounds: int
) -> None:
    found = Accountant(n, m, noise, DELTA).epsilon(rounds)
    assert found == pytest.approx(directly(n, m, noise / 2, rounds), rel=1e-12)


def test_a_sampled_round_by_hand() -> None:
    """Wang et al. 2019, Theorem 9 at order 2, the best one here: with the Gaussian's Rényi
    divergence ρ = 2 / (2 (z/2)²), ε(2) ≤ log(1 + q² min(4 (e^ρ − 1), 2 e^ρ))."""
    n, m, noise, rounds = 64, 8, 1.0, 200
    divergence = 2 / (2 * (noise / 2) ** 2)
    q = m / n
    one = math.log1p(q**2 * min(4 * math.expm1(divergence), 2 * math.exp(divergence)))
    by_hand = rounds * one + math.log(1 - 1 / 2) - math.log(DELTA * 2)  # conversion at order 2
    assert Accountant(n, m, noise, DELTA).epsilon(rounds) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize(("noise", "rounds"), [(10.0, 10), (1.0, 1), (50.0, 2000)])
def test_full_participation_by_hand(noise: float, rounds: int) -> None:
    """Balle, Wang 2018, Theorem 8: δ = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ), where μ is the sensitivity
    in units of σ, after r rounds 2C √r / (zC)."""
    epsilon = Accountant(16, 16, noise, DELTA).epsilon(rounds)
    mu = 2 * math.sqrt(rounds) / noise

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    delta = phi(mu / 2 - epsilon / mu) - math.exp(epsilon) * phi(-mu / 2 - epsilon / mu)
    assert delta == pytest.approx(DELTA, rel=1e-6)

    # Rényi DP, α μ²/2 at order α, with its plain conversion at the best α: close, and above.
    renyi = mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / DELTA))
    assert epsilon < renyi < 1.25 * epsilon


def test_replacing_is_twice_removing() -> None:
    """The library's other accountant doubles the sensitivity by itself."""
    pld = PLDAccountant(neighboring_relation=REPLACE_ONE)
    pld.compose(dp_accounting.GaussianDpEvent(10.0), 10)
    assert Accountant(8, 8, 10.0, DELTA).epsilon(10) == pytest.approx(
        pld.get_epsilon(DELTA), rel=1e-3
    )


def test_the_pinned_library_takes_multipliers_in_units_of_the_sensitivity() -> None:
    """If this fails, the library counts a replacement twice by itself: ``noise / 2`` in
    ``Accountant`` must go."""
    accountant = dp_accounting.rdp.RdpAccountant([2.0], REPLACE_ONE)
    accountant.compose(dp_accounting.GaussianDpEvent(1.0))
    assert accountant.rdp[0] == 2.0 / 2


def test_sampling_never_costs() -> None:
    """The bound with amplification alone would be worse than none for m close to N."""
    everyone = Accountant(10, 10, 1.0, DELTA).epsilon(200)
    nearly = Accountant(10, 9, 1.0, DELTA).epsilon(200)
    assert directly(10, 9, 0.5, 200) > 1.5 * everyone
    assert nearly == everyone
    assert Accountant(1000, 10, 1.0, DELTA).epsilon(200) < everyone / 2


def test_epsilon_grows_with_rounds_and_falls_with_noise() -> None:
    accountants = [Accountant(64, 8, noise, DELTA) for noise in (0.5, 1.0, 4.0, 30.0, 1000.0)]
    table = np.array([[a.epsilon(r) for r in (1, 2, 5, 20, 100, 2000)] for a in accountants])
    assert np.isfinite(table).all()
    assert (np.diff(table, axis=1) > 0).all()
    assert (np.diff(table, axis=0) < 0).all()
    assert accountants[0].epsilon(0) == 0


def test_a_smaller_delta_costs() -> None:
    assert Accountant(64, 8, 2.0, 1e-9).epsilon(10) > Accountant(64, 8, 2.0, 1e-3).epsilon(10)


def test_the_library_is_imported_only_for_an_accountant_and_without_torch() -> None:
    code = (
        "import sys, hiso_ray.server.privacy as p; assert 'dp_accounting' not in sys.modules; "
        "p.Accountant(4, 2, 1.0, 1e-5).epsilon(3); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"noise": 1.0}, "an unbounded update cannot be hidden"),
        ({"noise": 1.0, "delta": 1e-6}, "an unbounded update cannot be hidden"),
        ({"clip": 1.0, "noise": 0.001}, "hides nothing: use at least 0.01"),
        ({"clip": 1.0, "delta": 1e-6}, "no ε to report"),
        ({"delta": 1e-6}, "no ε to report"),
        ({"clip": 0.0}, "greater than or equal"),
        ({"clip": 1.0, "noise": -1.0}, "greater than or equal to 0"),
        ({"clip": 1.0, "noise": 1.0, "delta": 1.0}, "less than 1"),
        ({"clip": True}, "no field takes true or false"),
    ],
)
def test_sections_that_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PrivacyConfig(**fields)


def test_sections_that_are_not() -> None:
    assert PrivacyConfig().clip == "none"
    assert PrivacyConfig(clip=1.0).noise == 0
    assert PrivacyConfig(clip=1.0, noise=1.0, delta=1e-6).delta == 1e-6


PRIVATE = {"privacy.clip": 1.0, "privacy.noise": 1.0}
CLIPS = {"privacy.clip": 1.0}
ATTACKED = {"attack.fraction": 0.1, "attack.scale": 2.0}
LATE = {"devices.profile": "drawn", "devices.deadline": 3.0}


def sections(*dotted: dict[str, Any]) -> Sections:
    """The default job with changes, whether or not they fit each other."""
    values: dict[str, Any] = {}
    for name, value in (item for some in dotted for item in some.items()):
        put(values, name, value)
    return Sections.model_validate(values)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"method.curvature": "scalar"},
        {"attack.kind": "sign_flip", **ATTACKED},
        {"attack.kind": "scaled", **ATTACKED},
        {"attack.kind": "constant", **ATTACKED},
        {"federation.clients_per_round": 64, **LATE},
    ],
)
def test_guarantees_that_can_be_stated(change: dict[str, Any]) -> None:
    assert refusal(sections(PRIVATE, change)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method.name": "hizoo"}, "hizoo also publishes second differences"),
        ({"method.directions": "per_client"}, "one by one"),
        ({"method.curvature": "oracle"}, "reads the data"),
        ({"federation.participation": "size"}, "participation = size samples"),
        ({"federation.participation": "cyclic"}, "participation = cyclic samples"),
        (LATE, "deadline = 3.0 makes fast clients likelier"),
        ({"aggregation.rule": "median"}, "aggregation.rule = median"),
        ({"aggregation.rule": "krum", "aggregation.byzantine": 0.1}, "aggregation.rule = krum"),
        ({"aggregation.weights": "examples"}, "private number of examples"),
        ({"attack.kind": "colluding", "attack.fraction": 0.1}, "attack.kind = colluding"),
        ({"attack.kind": "gaussian", "attack.fraction": 0.1}, "attack.kind = gaussian"),
        ({"federation.num_clients": 100_000}, "not below 1/num_clients = 1e-05"),
    ],
)
def test_guarantees_that_cannot(change: dict[str, Any], words: str) -> None:
    told = refusal(sections(PRIVATE, change))
    assert told is not None
    assert words in told
    assert told.startswith("privacy.noise = 1 promises")
    assert told.endswith("or set privacy.noise to 0")
    assert refusal(sections(CLIPS, change)) is None  # it promises nothing
    assert refusal(sections(change)) is None


@pytest.mark.parametrize("privacy", [PRIVATE, CLIPS])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method.name": "fedavg"}, "fedavg sends weights"),
        ({"method.name": "feedsign"}, "the majority that feedsign decides by"),
    ],
)
def test_nothing_to_clip(privacy: dict[str, Any], change: dict[str, Any], words: str) -> None:
    told = refusal(sections(privacy, change))
    assert told is not None
    assert words in told
    assert refusal(sections(change)) is None
