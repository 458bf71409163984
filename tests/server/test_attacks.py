"""Who attacks, and what is sent instead, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hiso_ray.config.aggregation import AttackConfig, check_attackers
from hiso_ray.seeds import Purpose, generator
from hiso_ray.server.aggregation import aggregate
from hiso_ray.server.attacks import attackers, corrupt

SENT = np.array([[[1, -2]], [[3, 4]], [[-5, 6]], [[7, 8]]], np.float32)
BAD = np.array([False, True, False, True])
KINDS = ("sign_flip", "gaussian", "scaled", "constant", "colluding")


def noise(round_: int = 0) -> np.random.Generator:
    return generator(0, Purpose.ATTACK, round_)


def received(kind: str, scale: float, bad: np.ndarray = BAD) -> np.ndarray:
    return corrupt(SENT, bad, kind, scale, noise())


@pytest.mark.parametrize(
    ("num_clients", "fraction", "count"),
    [(10, 0.3, 3), (100, 0.29, 29), (10, 0.39, 3), (6, 0.1, 0), (1000, 0.999, 999), (5, 0, 0)],
)
def test_as_many_attackers_as_whole_clients(num_clients: int, fraction: float, count: int) -> None:
    # Trap: ⌊0.29 · 100⌋ is 28 in floats.
    found = attackers(0, num_clients, fraction)
    assert len(set(found.tolist())) == count
    assert found.tolist() == sorted(found)
    assert all(0 <= client < num_clients for client in found)


def test_attackers_are_a_function_of_the_seed_and_grow_with_the_fraction() -> None:
    few, many = attackers(7, 200, 0.1), attackers(7, 200, 0.3)
    assert np.array_equal(few, attackers(7, 200, 0.1))
    assert set(few) < set(many)
    assert not np.array_equal(few, attackers(8, 200, 0.1))


def test_any_client_may_be_an_attacker() -> None:
    counts = np.bincount(
        np.concatenate([attackers(seed, 10, 0.3) for seed in range(1000)]), minlength=10
    )
    assert (np.abs(counts - 300) < 5 * np.sqrt(1000 * 0.3 * 0.7)).all()


@pytest.mark.parametrize(
    ("kind", "scale", "lies"),
    [
        ("sign_flip", 1, [[[-3, -4]], [[-7, -8]]]),
        ("sign_flip", 2, [[[-6, -8]], [[-14, -16]]]),
        ("scaled", 10, [[[30, 40]], [[70, 80]]]),
        ("constant", 2.5, [[[2.5, 2.5]], [[2.5, 2.5]]]),
        ("colluding", 3, [[[6, -6]], [[6, -6]]]),  # honest mean (-2, 2)
    ],
)
def test_lies_by_hand(kind: str, scale: float, lies: list[Any]) -> None:
    assert received(kind, scale)[BAD].tolist() == lies


def test_gaussian_noise_has_the_honest_scalars_magnitude() -> None:
    sent = np.full((400, 1, 5), 3, np.float32)
    sent[200:] = 1000  # attackers' own scalars do not matter
    bad = np.arange(400) >= 200
    lies = corrupt(sent, bad, "gaussian", 2.0, noise())[bad]
    assert lies.std() == pytest.approx(6, rel=0.1)
    assert abs(lies.mean()) < 4 * 6 / np.sqrt(1000)
    assert len(np.unique(lies)) == 1000
    assert np.array_equal(corrupt(sent, bad, "gaussian", 2.0, noise())[bad], lies)
    assert not np.array_equal(corrupt(sent, bad, "gaussian", 2.0, noise(1))[bad], lies)


@pytest.mark.parametrize("kind", KINDS)
def test_honest_clients_send_what_they_computed(kind: str) -> None:
    before = SENT.copy()
    found = received(kind, 3.0)
    assert found.dtype == np.float32
    assert found[~BAD].tobytes() == SENT[~BAD].tobytes()
    assert not np.array_equal(found[BAD], SENT[BAD])
    assert np.array_equal(SENT, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cohort_without_attackers_is_a_copy(kind: str) -> None:
    found = received(kind, 3.0, np.zeros(4, bool))
    assert np.array_equal(found, SENT)
    assert not np.shares_memory(found, SENT)


def test_among_themselves_attackers_know_only_each_other() -> None:
    everyone = np.ones(4, bool)
    assert received("colluding", 2, everyone).tolist() == [[[-3, -8]]] * 4  # own mean (1.5, 4)
    assert np.isfinite(received("gaussian", 2, everyone)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_stays_finite(kind: str) -> None:
    loud = np.full((3, 1, 2), 1e37, np.float32)
    found = corrupt(loud, np.array([False, True, True]), kind, 1e6, noise())
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("rule", "byzantine"),
    [("median", 0), ("trimmed_mean", 0.3), ("krum", 0.3), ("multi_krum", 0.3)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_three_of_ten_loud_attackers_are_withstood(kind: str, rule: str, byzantine: float) -> None:
    rng = np.random.default_rng(6)
    honest = (1 + 0.1 * rng.standard_normal((10, 1, 5))).astype(np.float32)
    bad = np.arange(10) % 4 == 1
    sent = corrupt(honest, bad, kind, 100.0, noise())
    assert np.abs(aggregate(sent, rule, byzantine=byzantine) - 1).max() < 0.3
    assert np.abs(aggregate(sent, "mean") - 1).max() > 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fraction": 0.1}, "fraction = 0.1: nobody attacks with kind none"),
        ({"scale": 2}, "scale = 2: nobody attacks"),
        ({"kind": "sign_flip"}, "sign_flip with fraction = 0"),
        ({"kind": "scaled", "fraction": 0.1}, "set another scale"),
        ({"kind": "sign_flip", "fraction": 1}, "less than 1"),
        ({"kind": "sign_flip", "fraction": 0.1, "scale": 0}, "greater than 0"),
    ],
)
def test_options_that_nobody_reads_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AttackConfig(**values)
    assert words in str(caught.value)


def test_less_than_one_attacker_is_refused() -> None:
    attack = AttackConfig(kind="constant", fraction=0.1)
    with pytest.raises(ValueError, match=r"less than one client: at least 0\.167"):
        check_attackers(attack, 6)
    check_attackers(attack, 10)
    check_attackers(AttackConfig(), 1)
