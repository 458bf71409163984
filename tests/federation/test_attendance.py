"""Who answers, who drops, who is late, and the seconds, against turns worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hiso_ray import Experiment
from hiso_ray.federation import devices
from hiso_ray.federation.attendance import Attendance, attend, describe, outlook
from hiso_ray.federation.devices import Devices
from hiso_ray.federation.traffic import Sizes

# Turns of clients that missed 0, 10 and 0 records with P = 2, τ = 1: 3 forward passes, a request
# of 16 bytes, records of 24, 8 bytes up.
HAND = Devices(np.array([1.0, 2.0, 0.5]), np.array([0.5, 0.25, 1.0]), np.array([1.0, 2.0, 4.0]))
MISSED = np.array([0, 10, 0])
D = 1000  # weights; of no consequence where scalars travel
DOWNLOAD = (16 * 8 / 1e6, 256 * 8 / 2e6, 16 * 8 / 4e6)
TURN = (
    DOWNLOAD[0] + 3 * 0.5 + 64 / 0.5e6,
    DOWNLOAD[1] + (3 * 0.5 + 10 * 0.1) / 2 + 64 / 0.25e6,
    DOWNLOAD[2] + 3 * 0.5 / 0.5 + 64 / 1e6,
)  # 1.5, 1.25, 3.0 s and the links


def federation(**dotted: Any) -> Experiment:
    base = {
        "federation.num_clients": 3,
        "federation.clients_per_round": 3,
        "method.num_perturbations": 2,
        "devices.profile": "drawn",
        "devices.replay_seconds": 0.1,
        "devices.jitter": 0,
    }
    return Experiment().changed(**(base | dotted))


def of(experiment: Experiment, clients: list[int], round_: int = 0) -> Attendance:
    missed = (MISSED[clients], 24 * MISSED[clients])
    return attend(Sizes(experiment, D), HAND, round_, np.array(clients), missed)


def nothing(clients: int) -> tuple[np.ndarray, np.ndarray]:
    """Nobody missed a record."""
    return np.zeros(clients, np.int64), np.zeros(clients, np.int64)


@pytest.mark.parametrize("client", [0, 1, 2])
def test_turns_by_hand(client: int) -> None:
    found = of(federation(), [client])
    assert found == Attendance((client,), (), (), pytest.approx(TURN[client], abs=1e-9))


def test_local_steps_and_central_probes_count() -> None:
    e = federation(**{"federation.local_steps": 3, "method.probe": "central"})
    request, up, forwards = 8 * 3 + 8, 4 * 3 * 2, 3 * 4
    expected = request * 8 / 1e6 + forwards * 0.5 + up * 8 / 0.5e6
    assert of(e, [0]).seconds == pytest.approx(expected, abs=1e-9)


def test_weights_take_as_long_as_they_are_large() -> None:
    e = federation(**{"method.name": "fedavg", "method.num_perturbations": 5})
    found = attend(Sizes(e, 10**6), HAND, 0, np.array([0]), nothing(1))
    expected = (4 * 10**6 + 8) * 8 / 1e6 + 3 * 0.5 + 4 * 10**6 * 8 / 0.5e6
    assert found.seconds == pytest.approx(expected, abs=1e-9)


def test_a_round_lasts_as_long_as_its_slowest_answer() -> None:
    assert of(federation(), [0, 1, 2]) == Attendance((0, 1, 2), (), (), pytest.approx(TURN[2]))
    early = federation(**{"devices.deadline": 9})
    assert of(early, [0, 1, 2]) == of(federation(), [0, 1, 2])


def test_a_deadline_leaves_the_late_out_and_is_waited_for() -> None:
    e = federation(**{"devices.deadline": 2})
    assert of(e, [0, 1, 2]) == Attendance((0, 1), (), (2,), 2.0)
    assert of(e, [2]) == Attendance((), (), (2,), 2.0)
    assert of(e, [0, 1]).seconds == pytest.approx(TURN[0])
    assert of(federation(**{"devices.deadline": of(e, [0]).seconds}), [0]).late == ()


def rounds_in_which(experiment: Experiment, dropped: tuple[int, ...]) -> int:
    """The first round in which exactly these clients drop."""
    return next(r for r in range(1000) if of(experiment, [0, 1, 2], r).dropped == dropped)


def test_who_drops_costs_its_download_or_the_deadline() -> None:
    e = federation(**{"federation.dropout": 0.5})
    assert of(e, [0, 1, 2], rounds_in_which(e, (2,))).seconds == pytest.approx(TURN[0])
    nobody = of(e, [0, 1, 2], rounds_in_which(e, (0, 1, 2)))
    assert nobody == Attendance((), (0, 1, 2), (), pytest.approx(max(DOWNLOAD)))
    e = e.changed(**{"devices.deadline": 9})
    assert of(e, [0, 1, 2], rounds_in_which(e, (2,))) == Attendance((0, 1), (2,), (), 9.0)
    e = e.changed(**{"devices.deadline": 2})  # client 2 would be late, but has gone before
    assert of(e, [0, 1, 2], rounds_in_which(e, (2,))) == Attendance((0, 1), (2,), (), 2.0)


def test_without_devices_clients_drop_and_there_is_no_time() -> None:
    e = Experiment().changed(**{"federation.dropout": 0.5})
    clients = np.arange(64)
    found = attend(Sizes(e, D), None, 0, clients, nothing(64))
    assert found.seconds == 0
    assert found.late == ()
    assert found.answered
    assert found.dropped
    assert sorted(found.answered + found.dropped) == clients.tolist()
    assert list(found.answered) == sorted(found.answered)


def test_clients_drop_as_often_as_stated_and_independently() -> None:
    n, rounds, p = 100, 100, 0.3
    e = Experiment().changed(
        **{"federation.num_clients": n, "federation.clients_per_round": n, "federation.dropout": p}
    )
    gone = np.zeros((rounds, n))
    for round_ in range(rounds):
        found = attend(Sizes(e, D), None, round_, np.arange(n), nothing(n))
        gone[round_, list(found.dropped)] = 1
    assert abs(gone.mean() - p) < 4 * np.sqrt(p * (1 - p) / gone.size)
    for axis in (0, 1):  # sums of independent draws have the binomial's variance
        ratio = gone.sum(axis).var() / (n * p * (1 - p))
        assert abs(ratio - 1) < 4 * np.sqrt(2 / n)


def test_a_fate_does_not_depend_on_who_else_is_sampled() -> None:
    e = federation(
        **{
            "federation.num_clients": 50,
            "federation.dropout": 0.4,
            "devices.jitter": 1.0,
            "devices.deadline": 3,
        }
    )
    drawn = devices.of(e)
    assert drawn is not None
    sizes = Sizes(e, D)
    whole = attend(sizes, drawn, 7, np.arange(50), nothing(50))
    assert whole.answered
    assert whole.dropped
    assert whole.late
    for client in range(50):
        alone = attend(sizes, drawn, 7, np.array([client]), nothing(1))
        for fate in ("answered", "dropped", "late"):
            assert (client in getattr(alone, fate)) == (client in getattr(whole, fate))
    assert attend(sizes, drawn, 8, np.arange(50), nothing(50)) != whole
    other = Sizes(e.changed(seed=1), D)
    assert attend(other, drawn, 7, np.arange(50), nothing(50)) != whole


def test_jitter_is_log_normal_and_drawn_anew_for_every_turn() -> None:
    rounds, sigma = 2000, 0.5
    e = federation(**{"devices.jitter": sigma})
    links = TURN[0] - 1.5
    seconds = np.array([of(e, [0], r).seconds for r in range(rounds)])
    logs = np.log((seconds - links) / 1.5)
    assert abs(logs.mean()) < 4 * sigma / np.sqrt(rounds)
    assert abs(logs.std() - sigma) < 4 * sigma / np.sqrt(2 * rounds)
    assert abs(np.corrcoef(logs[1:], logs[:-1])[0, 1]) < 4 / np.sqrt(rounds)


def sized(**dotted: Any) -> Sizes:
    return Sizes(federation(**dotted), D)


def test_the_outlook_is_of_turns_that_missed_nothing() -> None:
    fresh = (TURN[0], 16 * 8 / 2e6 + 1.5 / 2 + 64 / 0.25e6, TURN[2])
    found = outlook(sized(**{"devices.deadline": 2, "devices.jitter": 1.0}), HAND)
    assert found.fastest == pytest.approx(fresh[1])
    assert found.median == pytest.approx(fresh[0])
    assert found.slowest == pytest.approx(fresh[2])
    assert found.in_time == 2
    assert outlook(sized(), HAND).in_time == 3


def test_a_deadline_that_nobody_can_meet_says_what_to_raise_it_to() -> None:
    words = r"none of the 3 clients .* raise it to 1.501 for half .* no less than 0.751"
    with pytest.raises(ValueError, match=words):
        outlook(sized(**{"devices.deadline": 0.75}), HAND)
    assert outlook(sized(**{"devices.deadline": 0.751}), HAND).in_time == 1
    assert outlook(sized(**{"devices.deadline": 1.501}), HAND).in_time == 2


def test_what_is_said_before_the_run() -> None:
    assert describe(Sizes(Experiment(), D), None) == []
    (line,) = describe(sized(), HAND)
    assert line.endswith("a turn takes 0.75 to 3 s, 1.5 s on the median device")
    (line,) = describe(sized(**{"devices.deadline": 2}), HAND)
    assert line.endswith("; 2 of 3 clients can meet the deadline of 2 s")
    with pytest.raises(ValueError, match="none of the 3 clients can meet"):
        describe(sized(**{"devices.deadline": 0.1}), HAND)
