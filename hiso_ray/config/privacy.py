"""Clipping and noise on the scalars, and the experiments that permit a privacy guarantee."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hiso_ray.config.curvatures import CURVATURES
from hiso_ray.config.section import Section, given

SMALLEST_NOISE = 0.01  # below it ε is in the thousands after one round

# What these attackers send depends on other clients' scalars of the same round.
ATTACKS_THAT_READ_OTHERS = ("gaussian", "colluding")


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


def refusal(
    privacy: PrivacyConfig,
    *,
    method: str,
    sends: str,
    second_differences: bool,
    directions: str,
    curvature: str,
    num_clients: int,
    clients_per_round: int,
    participation: str,
    deadline: float | Literal["none"],
    rule: str,
    weights: str,
    attack: str,
) -> str | None:
    """Why clipping is meaningless here, or why no guarantee can be stated; otherwise None.

    Checks everything that ``hiso_ray.server.privacy`` assumes. Clipping alone promises nothing and
    needs only something to clip. Not checked, because the guarantee holds with them: the precision
    of the uplink, attackers that know only their own scalars, and dropout.

    Args:
        method: its name, for the message.
        sends: scalars or weights.
        second_differences: whether clients send a second scalar for each probe.
        directions: shared or per_client.
        curvature: the arm; ``oracle`` reads the clients' data.
        deadline: after which the server ignores clients, or none.
        rule: how scalars are combined, including majority.
        weights: uniform or examples.
        attack: its kind.
    """
    if privacy.clip == "none":
        return None
    if sends == "weights":
        return (
            f"privacy.clip = {privacy.clip:g} bounds scalars, and {method} sends weights: leave "
            "the privacy section out, or use a method that sends scalars"
        )
    if rule == "majority":
        return (
            f"privacy.clip = {privacy.clip:g} cannot change the majority that {method} decides "
            "by: leave the privacy section out, or use a method with a mean of scalars"
        )
    if privacy.noise == 0:
        return None
    sampled = clients_per_round < num_clients
    obstacles = (
        (
            second_differences,
            f"method.name = {method} also publishes second differences, which are not clipped; "
            "use another method",
        ),
        (
            directions != "shared",
            f"method.directions = {directions} publishes every client's scalars one by one, so no "
            "mean hides them; use a method with shared directions",
        ),
        (
            CURVATURES[curvature].measures,
            f"method.curvature = {curvature} reads the data, not the noisy scalars alone; use "
            "another curvature",
        ),
        (
            participation != "uniform",
            f"federation.participation = {participation} samples some clients more often than "
            "others, or in turn; set it to uniform",
        ),
        (
            sampled and deadline != "none",
            f"devices.deadline = {deadline} makes fast clients likelier to be in the mean, and the "
            "guarantee rests on uniform sampling; set it to none, or sample every client",
        ),
        (
            rule != "mean",
            f"aggregation.rule = {rule} can move further than a mean when one client changes; set "
            "it to mean",
        ),
        (
            weights != "uniform",
            f"aggregation.weights = {weights} weighs a client by its private number of examples; "
            "set it to uniform",
        ),
        (
            attack in ATTACKS_THAT_READ_OTHERS,
            f"attack.kind = {attack} repeats what other clients computed, so one client moves more "
            "than its own scalars; use sign_flip, scaled or constant",
        ),
        (
            privacy.delta * num_clients >= 1,
            f"privacy.delta = {privacy.delta:g} is not below 1/num_clients = {1 / num_clients:g}: "
            "publishing one whole client at random would pass; lower it",
        ),
    )
    for stands, words in obstacles:
        if stands:
            return (
                f"privacy.noise = {privacy.noise:g} promises an ε that cannot be stated: {words}, "
                "or set privacy.noise to 0"
            )
    return None
