"""How clients encode their scalars, how the server combines them, and who attacks.

Shares of clients are exact decimals: 0.1 of 30 clients is 3, although the float 0.1 times 30 is
slightly more.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

from pydantic import Field, model_validator

from hiso_ray.config.section import Section, given
from hiso_ray.errors import UserError

# a rule that withstands f attackers among m clients needs m ≥ 2f + this
BEYOND_TWICE = {"trimmed_mean": 1, "krum": 3, "multi_krum": 3}


class UplinkConfig(Section):
    precision: Literal["float32", "float16", "int8", "sign"] = Field(
        "float32",
        description="how a client sends its scalars: float32 (4 bytes each), float16 (2), int8 "
        "(1, stochastic rounding, plus 4 a message for its scale), or sign (1 bit; the server "
        "gets ±1, so the learning rate means something else)",
    )


class AggregationConfig(Section):
    rule: Literal["mean", "median", "trimmed_mean", "krum", "multi_krum"] = Field(
        "mean",
        description="how the server combines the scalars of a cohort: mean, coordinate-wise "
        "median or trimmed mean (arXiv 1803.01498), krum or multi_krum (arXiv 1703.02757)",
    )
    weights: Literal["uniform", "examples"] = Field(
        "uniform",
        description="mean: every client counts alike, or in proportion to its examples",
    )
    byzantine: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description="share of the clients that answer which trimmed_mean, krum and multi_krum "
        "are to withstand, rounded up to f clients; they need it above 0",
    )

    @model_validator(mode="after")
    def _something_reads_them(self) -> AggregationConfig:
        if self.rule != "mean" and "weights" in given(self):
            raise ValueError(
                f"weights = {self.weights} is of the mean only, and rule is {self.rule}: set rule "
                "to mean, or leave weights out"
            )
        if self.rule in BEYOND_TWICE and self.byzantine == 0:
            raise ValueError(
                f"rule = {self.rule} with byzantine = 0 withstands nobody: set byzantine to the "
                "share of attackers to withstand (above 0 and below 0.5), or rule to mean or median"
            )
        if self.rule not in BEYOND_TWICE and self.byzantine > 0:
            raise ValueError(
                f"byzantine = {self.byzantine:g} is of {', '.join(BEYOND_TWICE)} only, and rule is "
                f"{self.rule}: set rule to one of those, or leave byzantine out"
            )
        return self


class AttackConfig(Section):
    kind: Literal["none", "sign_flip", "gaussian", "scaled", "constant", "colluding"] = Field(
        "none",
        description="what attackers send instead of their scalars g: sign_flip (-scale · g), "
        "gaussian (noise), scaled (scale · g), constant (scale), colluding (all the same: -scale "
        "times the mean of the honest clients)",
    )
    fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the federation's clients that attack, rounded down to whole "
        "clients, the same ones for the whole run",
    )
    scale: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="strength: factor on what is sent (sign_flip, scaled, colluding), the value "
        "itself (constant), or the noise's σ in units of the root mean square of the honest "
        "scalars of the round (gaussian)",
    )

    @model_validator(mode="after")
    def _something_reads_them(self) -> AttackConfig:
        if self.kind == "none":
            found = [name for name in ("fraction", "scale") if name in given(self)]
            if found:
                values = ", ".join(f"{name} = {getattr(self, name):g}" for name in found)
                raise ValueError(
                    f"{values}: nobody attacks with kind none; set kind, or leave "
                    f"{', '.join(found)} out"
                )
        elif self.fraction == 0:
            raise ValueError(
                f"kind = {self.kind} with fraction = 0: nobody attacks; set fraction to the share "
                "of clients that do, or kind to none"
            )
        if self.kind == "scaled" and self.scale == 1:
            raise ValueError(
                "kind = scaled with scale = 1 sends the honest scalars: set another scale"
            )
        return self


def withstood(byzantine: float, m: int) -> int:
    """f = ⌈byzantine · m⌉: the number of attackers a rule must withstand among m clients."""
    return math.ceil(Fraction(str(byzantine)) * m)


def count_attackers(fraction: float, num_clients: int) -> int:
    """⌊fraction · num_clients⌋."""
    return math.floor(Fraction(str(fraction)) * num_clients)


def smallest_cohort(rule: str, byzantine: float, m: int) -> int:
    """The smallest cohort of at least ``m`` clients that the rule can combine.

    Krum and multi-Krum need m ≥ 2f + 3 (Blanchard et al. 2017, 2f + 2 < n), the trimmed mean
    m ≥ 2f + 1, with f = ⌈byzantine · m⌉. Because f grows with m, a larger cohort can be too small
    again: krum with byzantine = 0.45 takes 31 clients (f = 14), not 32 (f = 15).
    """
    if rule not in BEYOND_TWICE:
        return max(m, 1)
    beyond, share = BEYOND_TWICE[rule], Fraction(str(byzantine))
    # cohorts of up to ⌊f / share⌋ clients must withstand f attackers; one of them is large enough
    # once f / share ≥ 2f + beyond
    f = max(withstood(byzantine, m), math.ceil(beyond * share / (1 - 2 * share)))
    return max(m, 2 * f + beyond)


def shortage(rule: str, byzantine: float, m: int) -> str | None:
    """Why ``m`` clients are too few for the rule, and how many are enough; None if they suffice.

    Decides both whether a configuration is rejected (m = ``clients_per_round``) and whether a
    round changes the model (m = the clients that answered).
    """
    enough = smallest_cohort(rule, byzantine, m)
    if enough == m:
        return None
    if rule not in BEYOND_TWICE:
        return f"{rule} of no clients: it needs one"
    f, beyond = withstood(byzantine, m), BEYOND_TWICE[rule]
    words = f"{rule} that withstands byzantine = {byzantine:g} of {m} clients (f = {f})"
    words += f" needs 2f + {beyond} = {2 * f + beyond}"
    if enough != 2 * f + beyond:
        words += f", and f grows with the cohort: the next that is enough has {enough}"
        words += f" (f = {withstood(byzantine, enough)})"
    return words


def check_cohort(aggregation: AggregationConfig, clients_per_round: int) -> None:
    """
    Raises:
        UserError: the rule needs more clients than a round has.
    """
    short = shortage(aggregation.rule, aggregation.byzantine, clients_per_round)
    if short:
        raise UserError(
            f"federation.clients_per_round = {clients_per_round} is too few for aggregation.rule = "
            f"{aggregation.rule}: {short}; raise clients_per_round, lower aggregation.byzantine, "
            "or use median, which takes any cohort"
        )


def check_attackers(attack: AttackConfig, num_clients: int) -> None:
    """
    Raises:
        UserError: the attackers' share of the federation is less than one client.
    """
    if attack.kind != "none" and count_attackers(attack.fraction, num_clients) == 0:
        raise UserError(
            f"attack.fraction = {attack.fraction:g} of federation.num_clients = {num_clients} is "
            f"less than one client: at least {_up(1 / num_clients)}"
        )


def _up(share: float) -> str:
    """The share as text, rounded up to three decimals."""
    return f"{math.ceil(share * 1000) / 1000:g}"
