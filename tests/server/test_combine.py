"""What the server makes of a cohort's payloads, by hand on a few numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hiso_ray import Experiment
from hiso_ray.federation.uplink import encode
from hiso_ray.messages import Turn
from hiso_ray.server.attacks import attackers
from hiso_ray.server.combine import combine, in_order, received

ALIKE = np.ones(3, np.int64)


def experiment(**dotted: Any) -> Experiment:
    base = {
        "federation.num_clients": 6,
        "federation.clients_per_round": 3,
        "federation.local_steps": 2,
        "method.num_perturbations": 2,
    }
    return Experiment().changed(**(base | dotted))


def turns(scalars: np.ndarray, e: Experiment, clients: tuple[int, ...] = (0, 2, 5)) -> list[Turn]:
    rng = np.random.default_rng(0)
    return [
        Turn(client, np.zeros(2), encode(sent, e.precision, rng))
        for client, sent in zip(clients, scalars.astype(np.float32), strict=True)
    ]


def numbers(scalars_per_step: int = 2) -> np.ndarray:
    """(3, 2, S) with the client in the hundreds, the step in the tens, the place in the ones."""
    client, step, place = np.meshgrid(
        [100, 200, 300], [10, 20], range(scalars_per_step), indexing="ij"
    )
    return client + step + place


def test_answers_are_put_in_the_order_of_clients() -> None:
    one = turns(numbers(), experiment())
    assert in_order(reversed(one), np.array([0, 2, 5])) == one


def test_shared_directions_are_averaged() -> None:
    e = experiment()
    found = combine(e, 0, received(e, 0, turns(numbers(), e)), ALIKE)
    assert found.tolist() == [[[210], [211]], [[220], [221]]]
    by_examples = experiment(**{"aggregation.weights": "examples"})
    found = combine(by_examples, 0, numbers().astype(np.float32), np.array([1, 1, 2]))
    assert found.tolist() == [[[235], [236]], [[245], [246]]]


def test_own_directions_stand_side_by_side_client_by_client() -> None:
    e = experiment(**{"method.directions": "per_client"})
    found = combine(e, 0, received(e, 0, turns(numbers(), e)), ALIKE)
    first = [[110], [111], [210], [211], [310], [311]]
    assert found.tolist() == [first, [[g + 10] for (g,) in first]]
    # what is divided by m·P later then is Σ w_i g_i / Σ w_i
    by_examples = e.changed(**{"aggregation.weights": "examples"})
    found = combine(by_examples, 0, numbers().astype(np.float32), np.array([1, 1, 2]))
    assert found[0].ravel().tolist() == [82.5, 83.25, 157.5, 158.25, 465, 466.5]


@pytest.mark.parametrize("directions", ["shared", "per_client"])
def test_second_differences_stand_beside_their_scalars(directions: str) -> None:
    e = experiment(**{"method.name": "hizoo", "method.directions": directions})
    found = combine(e, 0, received(e, 0, turns(numbers(4), e)), ALIKE)
    if directions == "shared":
        assert found.tolist() == [[[210, 212], [211, 213]], [[220, 222], [221, 223]]]
    else:
        assert found[1].tolist()[2:4] == [[220, 222], [221, 223]]
        assert found.shape == (2, 6, 2)


def test_second_differences_of_opposite_signs_do_not_cancel() -> None:
    e = experiment(**{"method.name": "hizoo", "method.num_perturbations": 1})
    sent = np.zeros((2, 2, 2), np.float32)
    sent[:, :, 0], sent[:, :, 1] = [[1, 2], [3, -4]], [[5, 6], [-7, 6]]
    assert combine(e, 0, sent, ALIKE[:2]).tolist() == [[[2, 6]], [[-1, 6]]]


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_a_rule_takes_the_place_of_the_mean(rule: str) -> None:
    byzantine = {"aggregation.byzantine": 0.3} if rule == "trimmed_mean" else {}
    e = experiment(**{"aggregation.rule": rule}, **byzantine)
    sent = numbers()
    sent[2] = 10**6
    found = combine(e, 0, received(e, 0, turns(sent, e)), ALIKE)
    assert found[..., 0].tolist() == sent[1].tolist()


def test_a_majority_of_signs() -> None:
    e = experiment(**{"method.name": "feedsign"})
    sent = np.array([[[1, -1], [2, 0]], [[-3, -1], [2, -5]], [[1e-9, 4], [-2, -1]]])
    assert received(e, 0, turns(sent, e)).ravel().tolist() == [
        1, -1, 1, 1, -1, -1, 1, -1, 1, 1, -1, -1,
    ]  # fmt: skip
    found = combine(e, 0, received(e, 0, turns(sent, e)), ALIKE)
    assert found[..., 0].tolist() == [[1, -1], [1, -1]]


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "sign"])
def test_attackers_send_what_the_precision_can_say(precision: str) -> None:
    lie = {"attack.kind": "sign_flip", "attack.fraction": 0.4, "attack.scale": 3.0}
    e = experiment(**lie, **{"uplink.precision": precision})
    bad = np.isin([0, 2, 5], attackers(0, 6, 0.4))
    assert 0 < bad.sum() < 3
    honest = received(experiment(**{"uplink.precision": precision}), 7, turns(numbers(), e))
    found = received(e, 7, turns(numbers(), e))
    assert np.array_equal(found[~bad], honest[~bad])
    size = {"float16": 1e-3, "int8": 2 / 127}.get(precision, 0)
    expected = -np.ones_like(honest) if precision == "sign" else -3 * honest
    assert found[bad] == pytest.approx(expected[bad], rel=size)
    assert np.array_equal(found, received(e, 7, turns(numbers(), e)))


def test_the_server_clips_what_attackers_lengthened() -> None:
    lie = {"attack.kind": "scaled", "attack.fraction": 0.4, "attack.scale": 1e5}
    e = experiment(**lie, **{"privacy.clip": 2.0})
    found = received(e, 0, turns(numbers() / 1000, e))
    norms = np.linalg.norm(found.reshape(3, -1), axis=1)
    assert (norms <= 2).all()
    assert norms.max() == pytest.approx(2)
    assert norms.min() < 1  # honest ones are left alone


def test_noise_is_that_of_the_round_on_the_sum() -> None:
    private = {"privacy.clip": 1e4, "privacy.noise": 0.5, "method.num_perturbations": 2000}
    e, sent = experiment(**private), np.zeros((3, 2, 2000), np.float32)
    found = combine(e, 4, sent, ALIKE)
    assert found.shape == (2, 2000, 1)
    assert found.std() == pytest.approx(0.5 * 1e4 / 3, rel=0.05)
    assert np.array_equal(found, combine(e, 4, sent, ALIKE))
    assert not np.array_equal(found, combine(e, 5, sent, ALIKE))
