"""The method and its hyper-parameters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hiso_ray.config.section import PositiveFloat, PositiveInt, Section

CURVATURE_OF = {"hiso": "diagonal", "decomfl": "none"}


class MethodConfig(Section):
    name: Literal["hiso", "decomfl"] = Field(
        "hiso", description="hiso (arXiv 2506.02370) or decomfl (arXiv 2405.15861)"
    )
    lr: PositiveFloat = Field(
        1e-3,
        description="learning rate (η); the default suits reviews, digits want 0.02, cnn 2e-3, "
        "pretrained language models 1e-6 to 1e-3",
    )
    mu: PositiveFloat = Field(1e-3, description="smoothing radius of the finite difference (μ)")
    num_perturbations: PositiveInt = Field(5, description="directions per local step (P)")
    probe: Literal["forward", "central"] = Field(
        "forward", description="finite difference: forward (P+1 forward passes) or central (2P)"
    )
    curvature: Literal["auto", "none", "diagonal", "scalar"] = Field(
        "auto",
        description="H: none (H = 1), diagonal, or scalar (its mean); auto is the method's own",
    )
    hessian_retention: float = Field(
        0.95, ge=0, lt=1, description="share of the old H kept at each update (β)"
    )
    hessian_eps: PositiveFloat = Field(1e-8, description="floor added to Δ² inside the average (ε)")
    hessian_update: Literal["last", "all"] = Field(
        "last", description="H learns from the last local step of a round, or from each in turn"
    )

    @model_validator(mode="after")
    def _curvature_fits(self) -> MethodConfig:
        if self.name == "decomfl" and self.curvature not in ("auto", "none"):
            raise ValueError(
                f"curvature = {self.curvature}: decomfl has none; leave curvature at auto, or use "
                "method.name hiso"
            )
        return self
