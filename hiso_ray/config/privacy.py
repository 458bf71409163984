"""Clipping and noise on the scalars."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hiso_ray.config.section import Section, given

SMALLEST_NOISE = 0.01  # below it ε is in the thousands after one round


class PrivacyConfig(Section):
    clip: Literal["none"] | Annotated[float, Field(ge=1e-6, le=1e9)] = Field(
        "none",
        description="largest L2 norm of all τ·P scalars of a client in one round; what is longer "
        "is scaled down to it",
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="noise multiplier (z): σ of the Gaussian noise on the sum of the clipped "
        "scalars, in units of clip; (ε, δ) is then reported for every round",
    )
    delta: float = Field(
        1e-5,
        gt=0,
        lt=1,
        description="δ for which ε is reported: below 1/num_clients, better far below",
    )

    @model_validator(mode="after")
    def _noise_has_a_bound(self) -> PrivacyConfig:
        if self.noise > 0 and self.clip == "none":
            raise ValueError(
                f"noise = {self.noise:g} with clip = none: an unbounded update cannot be hidden by "
                "noise; set clip to the largest norm of a client's scalars, or leave noise out"
            )
        if 0 < self.noise < SMALLEST_NOISE:
            raise ValueError(
                f"noise = {self.noise:g} hides nothing: use at least {SMALLEST_NOISE:g} (about 1 "
                "and above says something), or 0 for clipping alone"
            )
        if self.noise == 0 and "delta" in given(self):
            raise ValueError(
                f"delta = {self.delta:g}: there is no ε to report for it without noise; set clip "
                "and noise, or leave delta out"
            )
        return self
