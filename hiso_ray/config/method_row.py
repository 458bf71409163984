"""The row that declares a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        paper: its source.
        rule: what a round does, in a line.
        reads: the fields of ``method`` that it uses, besides ``name``.
        sends: scalars (a client's finite differences, or the projections of its change; the model
            is a fold over the ledger) or weights (d floats up and down).
        own: its default values of fields, where they differ from those of HiSo.
        fixed: fields of ``own`` that define the method and cannot be changed.
        second_differences: a probe gives a second scalar, from which H learns (HiZOO).
        uplink, aggregation: precision and rule that are part of the method.
        server: the server's optimizer, for methods that send weights: sgd, adam, yogi or adagrad.
        one_client: it is not federated and has one client.
        on_sphere: directions are uniform on the sphere of radius √d.
    """

    paper: str
    rule: str
    reads: frozenset[str]
    sends: Literal["scalars", "weights"] = "scalars"
    own: Mapping[str, Any] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    second_differences: bool = False
    uplink: Literal["float32", "sign"] = "float32"
    aggregation: Literal["mean", "majority"] = "mean"
    server: Literal["sgd", "adam", "yogi", "adagrad"] = "sgd"
    one_client: bool = False
    on_sphere: bool = False

    @property
    def first_order(self) -> bool:
        """Whether clients compute gradients; otherwise they probe."""
        return "mu" not in self.reads

    @property
    def projects(self) -> bool:
        """Whether clients compute gradients and send their change's scalars along directions."""
        return self.first_order and self.sends == "scalars"

    @property
    def draws(self) -> bool:
        """Whether clients use random directions, whose seeds they need."""
        return self.projects or not self.first_order
