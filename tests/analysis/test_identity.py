from __future__ import annotations

from typing import Any

import pytest

from hiso_ray import Experiment
from hiso_ray.analysis import identity


@pytest.mark.parametrize(
    ("name", "curvature", "label"),
    [
        ("hiso", "auto", "hiso"),
        ("hiso", "diagonal", "hiso"),
        ("hiso", "scalar", "hiso (scalar)"),
        ("decomfl", "none", "decomfl"),
    ],
)
def test_the_label_has_the_curvature_where_it_is_not_the_methods_own(
    name: str, curvature: str, label: str
) -> None:
    experiment = Experiment().changed(**{"method.name": name, "method.curvature": curvature})
    assert identity.label(experiment) == label


@pytest.mark.parametrize(
    ("changed", "label"),
    [
        ({"method.name": "mezo", "method.probe": "central"}, "mezo"),
        ({"method.name": "mezo", "method.probe": "forward"}, "mezo (forward)"),
        ({"method.name": "fedadam", "method.server_lr": 0.3}, "fedadam"),
        ({"method.curvature_in": "update"}, "hiso (H in update only)"),
        ({"method.directions": "per_client"}, "hiso (per_client directions)"),
        ({"method.distribution": "rademacher"}, "hiso (rademacher)"),
        ({"method.generator": "torch"}, "hiso"),  # other random numbers, as of another seed
        ({"method.momentum": 0.9}, "hiso (momentum 0.9)"),
        ({"uplink.precision": "int8"}, "hiso (int8)"),
        (
            {"method.schedule": "cosine", "method.warmup_rounds": 9, "method.averaging": 0.95},
            "hiso (cosine schedule, warm-up 9, averaging 0.95)",
        ),
        ({"method.client_loss": "calibrated"}, "hiso (calibrated loss)"),
        (
            {"method.curvature": "tensor", "method.curvature_in": "probe", "method.probe": "exact"},
            "hiso (tensor, H in probe only, exact)",
        ),
    ],
)
def test_the_label_has_what_departs_from_the_methods_own(
    changed: dict[str, Any], label: str
) -> None:
    alone = {"federation.num_clients": 1, "federation.clients_per_round": 1}
    experiment = Experiment().changed(**(alone | changed))
    assert identity.label(experiment) == label


def test_a_prompt_of_ones_own_is_in_the_fields_as_text() -> None:
    prompt = {"task.prompt.template": "{text} It was", "task.prompt.answers": " bad, good"}
    experiment = Experiment().changed(**{"task.name": "prompts"}, **prompt)
    fields = identity.fields_of(experiment)
    assert fields["task.prompt.answers"] == '[" bad", " good"]'
    assert "task.prompt.answers" not in identity.fields_of(Experiment())
    other = experiment.changed(**{"task.prompt.answers": " poor, good"})
    assert identity.cell(other) != identity.cell(experiment)


def test_a_cell_is_the_configuration_without_seed_and_resources() -> None:
    def cell(**changed: Any) -> str:
        return identity.cell(Experiment().changed(**changed))

    assert len(cell()) == 12
    assert cell() == cell(seed=5) == cell(**{"resources.executor": "serial"})
    assert len({cell(), cell(**{"method.lr": 0.3}), cell(**{"eval.every": 3})}) == 3


def test_fields_that_came_later_leave_older_cells_their_names() -> None:
    # Trials are found again by these names: this one is from before there was validation.
    assert identity.cell(Experiment()) == "b97f816dd3a9"
    with_validation = Experiment().changed(**{"task.validation_examples": 7})
    assert identity.cell(with_validation) != "b97f816dd3a9"
