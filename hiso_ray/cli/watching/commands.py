"""The command line's part about looking: ``show``, ``watch`` and ``report --live``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from hiso_ray.cli.options import INTERRUPTED

PORT = 8619


def add_commands(commands: Any) -> None:
    """Adds ``show`` and ``watch`` to argparse's subcommands."""
    show = commands.add_parser(
        "show",
        help="explain a run or a sweep on one screen: what it is, how it went, what to do next",
        description="Explains a run folder or a sweep folder on one screen, whether it has "
        "finished, runs, or broke off. Reads the folder's files only.",
        allow_abbrev=False,
    )
    show.add_argument("folder", metavar="DIR", help="a run folder or a sweep folder")
    watch = commands.add_parser(
        "watch",
        help="follow a run or a sweep until it is over",
        description="Shows curves, pace, time left, faults and who is slow until the run or sweep "
        "is over; without a terminal, a line per change. Reads the folder's files only, so a copy "
        "that is kept up to date will do: give --every the time between two copies. Exits with 0 "
        "if all went as planned.",
        allow_abbrev=False,
    )
    watch.add_argument("folder", metavar="DIR", help="a run folder or a sweep folder")
    watch.add_argument(
        "--every",
        type=_seconds,
        metavar="S",
        default=2.0,
        help="seconds between two looks (default: 2)",
    )


def add_live(report: argparse.ArgumentParser) -> None:
    """Adds the options of a live report."""
    report.add_argument(
        "--live",
        action="store_true",
        help="keep the page up to date and serve it to browsers of this machine, until Ctrl-C",
    )
    report.add_argument(
        "--port",
        type=_port,
        metavar="P",
        default=PORT,
        help=f"of the live page; 0 for any that is free (default: {PORT})",
    )


def run_show(given: argparse.Namespace, console: Console) -> int:
    from hiso_ray.cli.watching.show import show

    return show(Path(given.folder), console)


def run_watch(given: argparse.Namespace, console: Console) -> int:
    from hiso_ray.cli.watching.watch import watch

    try:
        return watch(Path(given.folder), console, given.every)
    except KeyboardInterrupt:  # the usual way to leave; what is watched goes on
        return INTERRUPTED


def run_live(given: argparse.Namespace, console: Console) -> int:
    from hiso_ray.cli.watching.live import serve

    try:
        serve(given.folders, given.out, given.thresholds, given.port, console)
    except KeyboardInterrupt:  # the only way to leave
        return 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text}: give seconds, from 0.1 to 86400")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: give a port, from 0 to 65535")
    return int(text)
