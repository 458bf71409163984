"""The clients: who takes part, which examples each holds, and on which device it runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hiso_ray.config.section import PositiveFloat, PositiveInt, Section, given


class FederationConfig(Section):
    num_clients: PositiveInt = Field(64, description="clients in the federation")
    clients_per_round: PositiveInt = Field(8, description="clients sampled per round (cohort)")
    rounds: PositiveInt = Field(200, description="communication rounds")
    local_steps: PositiveInt = Field(1, description="local steps per round (τ)")
    partition: Literal["dirichlet", "dirichlet_balanced", "shards", "sizes", "iid"] = Field(
        "dirichlet",
        description="how examples are split over clients: dirichlet (skewed groups and sizes), "
        "dirichlet_balanced (skewed groups, equal sizes: how the authors of DeComFL and HiSo "
        "split), shards (each client holds a few groups only), sizes (random contents, power-law "
        "sizes) or iid",
    )
    by: str = Field(
        "label",
        description="what the dirichlet kinds and shards group examples by: label, length (deciles "
        "of the prompt's tokens), or a column of the data (topic, author, ...)",
    )
    alpha: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="Dirichlet concentration (α); smaller means more skew. dirichlet: of each "
        "group's clients; dirichlet_balanced: of each client's groups, times their prior shares",
    )
    shards_per_client: PositiveInt = Field(
        2, description="shards: pieces of the sorted examples that a client holds"
    )
    size_exponent: float = Field(
        1.0, ge=0, le=10, description="sizes: the client at rank k holds a share like k^-exponent"
    )
    min_examples: PositiveInt = Field(1, description="fewest examples a client may hold")
    participation: Literal["uniform", "size", "cyclic"] = Field(
        "uniform",
        description="who is sampled: anyone alike (uniform), in proportion to the number of "
        "examples (size), or only clients of the group whose turn it is (cyclic)",
    )
    cycle_groups: PositiveInt = Field(
        4, description="cyclic: groups of clients that are available in turn, one round each"
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="probability that a sampled client goes away during its turn"
    )

    @model_validator(mode="after")
    def _cohort_fits(self) -> FederationConfig:
        if self.clients_per_round > self.num_clients:
            raise ValueError(
                f"clients_per_round = {self.clients_per_round} is larger than the federation: "
                f"at most num_clients = {self.num_clients}"
            )
        smallest = self.num_clients // self.cycle_groups
        if self.participation == "cyclic" and self.clients_per_round > smallest:
            raise ValueError(
                f"cycle_groups = {self.cycle_groups} of num_clients = {self.num_clients} leaves "
                f"{smallest} clients in the smallest group, clients_per_round = "
                f"{self.clients_per_round} must be found in each: at most "
                f"{self.num_clients // self.clients_per_round} groups"
            )
        if self.participation != "cyclic" and "cycle_groups" in given(self):
            raise ValueError(
                f"cycle_groups = {self.cycle_groups} is of cyclic participation only: set "
                "participation to cyclic, or leave cycle_groups out"
            )
        return self


class DevicesConfig(Section):
    profile: str = Field(
        "none",
        description="what the clients run on: none (no virtual clock), drawn (log-normal speeds "
        "and links), or a CSV file with columns client, speed, uplink_mbps, downlink_mbps",
    )
    forward_seconds: float = Field(
        0.5,
        gt=0,
        le=1e6,
        description="forward pass of one minibatch on a device of speed 1 [s]; measure it",
    )
    replay_seconds: float = Field(
        0.0, ge=0, le=1e6, description="applying one missed record on a device of speed 1 [s]"
    )
    speed_spread: float = Field(
        0.5, ge=0, le=5, description="drawn: σ of the log of a device's speed, whose median is 1"
    )
    uplink_mbps: float = Field(
        10.0, ge=1e-6, le=1e6, description="drawn: median rate up [Mbit/s]; 1 Mbit is 10^6 bits"
    )
    downlink_mbps: float = Field(
        50.0, ge=1e-6, le=1e6, description="drawn: median rate down [Mbit/s]"
    )
    bandwidth_spread: float = Field(
        0.5, ge=0, le=5, description="drawn: σ of the log of a link's rates, up and down alike"
    )
    jitter: float = Field(
        0.2, ge=0, le=5, description="σ of the log of how much slower or faster one turn computes"
    )
    deadline: Literal["none"] | PositiveFloat = Field(
        "none",
        description="time after which the server closes a round [s]; who answers later is left "
        "out of its mean; none waits for everybody",
    )

    @model_validator(mode="after")
    def _something_reads_them(self) -> DevicesConfig:
        if self.profile == "drawn":
            return self
        if self.profile == "none":
            unread = set(DevicesConfig.model_fields) - {"profile"}
            what = "there is no clock without devices: set profile to drawn or a CSV file, or"
        else:
            unread = {"speed_spread", "uplink_mbps", "downlink_mbps", "bandwidth_spread"}
            what = f"speeds and links are those of {self.profile}:"
        found = [name for name in DevicesConfig.model_fields if name in unread & given(self)]
        if found:
            values = ", ".join(f"{name} = {getattr(self, name)}" for name in found)
            raise ValueError(f"{values}: {what} leave {', '.join(found)} out")
        return self
