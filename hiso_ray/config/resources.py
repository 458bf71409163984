"""What a run may use, and how often it is evaluated and diagnosed; no effect on the weights."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hiso_ray.config.section import MOST, Auto, NaturalInt, PositiveFloat, PositiveInt, Section


def even_share(actors: int) -> float:
    """The share of a GPU per actor so that ``actors`` fit on one; Ray counts in units of 1e-4."""
    return math.floor(1e4 / actors) / 1e4


class ResourcesConfig(Section):
    executor: Literal["ray", "serial"] = Field("ray", description="ray actors, or a plain for-loop")
    cpus_per_client: PositiveFloat = Field(1.0, description="CPUs an actor holds [cores]")
    gpus_per_client: Auto | Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="share of a GPU an actor holds [GPUs]; auto measures a round's memory and "
        "packs a GPU with as many actors as it holds",
    )
    clients_per_actor: Auto | PositiveInt = Field(
        "auto", description="clients packed on one actor; auto is one where all fit, else evenly"
    )
    max_actors: Auto | PositiveInt = Field(
        "auto", description="most client actors; auto is what CPUs and GPUs hold at once"
    )
    direction_cache_mb: float = Field(
        256.0,
        ge=0,
        description="memory for the directions of one round per actor [MiB]; "
        "directions that do not fit are generated again",
    )
    frozen_states_mb: float = Field(
        1024.0,
        ge=0,
        description="memory for the states that task.frozen_layers keeps, per actor [MiB]; those "
        "that do not fit are computed for each batch; the results are the same",
    )
    probe_weights: Literal["whole", "layer"] = Field(
        "whole",
        description="what of the perturbed weights x + μz exists at once: all of them, or a layer, "
        "which takes the memory of the largest one instead of the model's and makes directions "
        "that are not kept again for each minibatch; the results are the same",
    )
    snapshot_every: NaturalInt = Field(
        500,
        description="rounds between snapshots of the weights in the run folder, from which "
        "restarted actors and resume start; 0 writes none",
    )
    tries: int = Field(
        4,
        ge=3,
        le=MOST,
        description="how often a client's turn is tried before the run stops: twice as it was "
        "sent, then alone",
    )
    answer_seconds: Auto | PositiveFloat = Field(
        "auto",
        description="an actor that has not answered for so long counts as hung and is restarted "
        "[s]; auto goes by what answers took so far: a minute and twenty times the slowest",
    )
    reserve_seconds: PositiveFloat = Field(
        60.0, description="how long to wait for all actors' resources on a busy cluster [s]"
    )

    @model_validator(mode="after")
    def _whole_gpus(self) -> ResourcesConfig:
        if self.gpus_per_client == "auto":
            return self
        if self.gpus_per_client > 1 and self.gpus_per_client != int(self.gpus_per_client):
            raise ValueError(
                f"gpus_per_client = {self.gpus_per_client}: a share below 1, or whole GPUs"
            )
        return self


class EvalConfig(Section):
    every: PositiveInt = Field(25, description="rounds between evaluations")


class DiagnosticsConfig(Section):
    every: NaturalInt = Field(
        0,
        description="rounds between measurements of H, Δ, the gradient and the Hessian, written to "
        "diagnostics.csv; 0 for none (small models: it differentiates twice)",
    )
