"""Numbers that leave the finite: every way is one kind of error, in its class and in its words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from hiso_ray import Experiment, run
from hiso_ray.analysis import endings
from hiso_ray.client import replica
from hiso_ray.errors import NonFiniteLoss

Make = Callable[..., Experiment]


def failed(error: str, kind: str | None) -> bool:
    """Whether a trial with this error counts as diverged."""
    row = {"status": ["failed"], "error": [error], "error_kind": [kind]}
    return bool(endings.marked(pd.DataFrame(row))["diverged"].item())


def told(error: BaseException) -> None:
    """By its kind; and by its words, for those who have no more than these."""
    assert type(error) is NonFiniteLoss
    assert failed("whatever it says", type(error).__name__)
    assert failed(str(error), None)
    assert not failed(str(error), "TurnFailed")
    assert "lower method.lr" in str(error)


@pytest.mark.parametrize("name", ["hiso", "decomfl", "hizoo", "fedkseed", "fedzo", "fedavg"])
@pytest.mark.parametrize(("every", "words"), [(1, "non-finite eval|overflowed"), (50, "client")])
def test_a_rate_that_is_far_too_high(tmp_path: Path, name: str, every: int, words: str) -> None:
    """Seen by the evaluation where there is one in time, else by a client."""
    e = Experiment().changed(
        **{
            "task.name": "digits",
            "task.model": "mlp-8",
            "federation.num_clients": 12,
            "federation.rounds": 50,
            "method.name": name,
            "method.lr": 1e30,
            "resources.executor": "serial",
            "eval.every": every,
        }
    )
    with pytest.raises(NonFiniteLoss, match=words) as caught:
        run(e, tmp_path / "r")
    told(caught.value)


def test_the_hessian_of_an_oracle(
    experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = SimpleNamespace(hessian_diagonal=lambda _: torch.tensor([1.0, torch.inf]))
    monkeypatch.setattr(replica, "look", lambda *_: view)
    e = experiment(**{"method.curvature": "oracle"})
    with pytest.raises(NonFiniteLoss, match="Hessian's diagonal before round 0 has over") as caught:
        run(e, tmp_path / "r")
    told(caught.value)


@pytest.mark.parametrize("what", ["the update of round 3", "H of round 3"])
def test_an_overflow(experiment: Make, what: str) -> None:
    one: Any = SimpleNamespace(experiment=experiment())
    with pytest.raises(NonFiniteLoss) as caught:
        replica.Replica._check_finite(one, what, float("inf"))
    told(caught.value)


def test_the_words_of_older_errors() -> None:
    assert failed("the measured diagonal of the Hessian is not finite: lower method.lr", None)
    assert not failed("TurnFailed: client 3: the worker died", None)
    assert not failed("no room left on the device", "OSError")
