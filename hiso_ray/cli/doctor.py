"""``hiso-ray doctor``: its options, and the table that it prints."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hiso_ray.cli.options import FAILED, add_fields, experiment_given

if TYPE_CHECKING:  # loads torch, which the command line's help does not need
    from hiso_ray.doctor.finding import Finding

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def add_doctor(commands: Any) -> None:
    """Adds the command to argparse's subcommands."""
    command = commands.add_parser(
        "doctor",
        help="examine every node of the cluster before a run",
        usage="%(prog)s [--address ADDRESS] [--nodes N] [--config FILE] [--out DIR] "
        "[--SECTION.FIELD VALUE ...]",
        description="Examines every node of the cluster that a run would join, or this machine "
        "where there is none, and says what is wrong and what to do; exits with 1 if a run would "
        "fail. Takes the options of `run`: they say how many actors and GPUs it is to have. Each "
        "node also runs three rounds, so GPUs should be free.",
        allow_abbrev=False,
    )
    command.add_argument(
        "--address", metavar="ADDRESS", help="as RAY_ADDRESS, which it replaces: HOST:PORT or auto"
    )
    command.add_argument(
        "--nodes",
        type=int,
        metavar="N",
        help="how many nodes there should be; waits for them, five minutes at most (default: takes "
        "those that are there)",
    )
    command.add_argument("--config", metavar="FILE", help="YAML file with sections of fields")
    command.add_argument(
        "--out", metavar="DIR", default="runs", help="where run folders are to be (default: runs)"
    )
    add_fields(command)


def doctor(given: argparse.Namespace, console: Console) -> int:
    """Runs the command; returns the exit status."""
    if given.address:  # before the import of Ray, which reads it
        os.environ["RAY_ADDRESS"] = given.address
    from hiso_ray.doctor.examine import examine

    found = examine(experiment_given(given), Path(given.out), given.nodes)
    console.print(checks_table(found), highlight=False)
    return FAILED if any(finding.level == "fail" for finding in found) else 0


def checks_table(findings: Sequence[Finding]) -> Table:
    """One line per finding."""
    table = Table("check", "", "found", "what to do", show_lines=True)
    for finding in findings:
        level = f"[{STYLES[finding.level]}]{finding.level}[/]"
        table.add_row(finding.check, level, escape(finding.found), escape(finding.remedy))
    return table
