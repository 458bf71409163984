"""Shared by the command lines: options for fields, hints, exit statuses."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

from pydantic import ValidationError
from rich.console import Console

from hiso_ray import config
from hiso_ray.config import Experiment
from hiso_ray.config.fields import explain, known_fields
from hiso_ray.errors import TurnFailed, UserError

USER_ERROR, FAILED, INTERRUPTED = 2, 1, 130
NEGATIVE_NUMBER = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray where `ray job submit` runs its command
PLAIN_WIDTH = 120  # columns, without a terminal


class Parser(argparse.ArgumentParser):
    """Suggests the option that was probably meant."""

    def error(self, message: str) -> NoReturn:
        unknown = [word for word in message.split() if word.startswith("--")]
        if "unrecognized arguments" in message and unknown:
            near = difflib.get_close_matches(unknown[0], self.options(), n=1, cutoff=0.5)
            message += f" (did you mean {near[0]}?)" if near else ""
        super().error(message)

    def options(self) -> list[str]:
        subs = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        parsers = [self, *(p for s in subs for p in s.choices.values())]
        return [o for p in parsers for a in p._actions for o in a.option_strings]


def add_fields(parser: argparse.ArgumentParser, **more: Any) -> None:
    """Adds one option per field of the experiment, grouped by section.

    Args:
        more: further arguments to each ``add_argument``.
    """
    parser._negative_number_matcher = NEGATIVE_NUMBER  # argparse's pattern has no exponents
    groups: dict[str, Any] = {}
    for name, info in known_fields().items():
        section = name.rpartition(".")[0] or "experiment"
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        groups[section].add_argument(
            f"--{name}",
            dest=f"field:{name}",
            metavar=kind(info.annotation),
            default=argparse.SUPPRESS,
            help=f"{info.description} (default: {shown(info.default)})".replace("%", "%%"),
            **more,
        )


def shown(default: Any) -> Any:
    """A default value as the help shows it."""
    return "none" if default in ("", ()) else default


def kind(annotation: Any) -> str:
    """The values a field takes: its choices, or INT, FLOAT, TEXT, TEXT,TEXT."""
    if get_origin(annotation) is Literal:
        return "{" + ",".join(get_args(annotation)) + "}"
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    kinds: dict[Any, str] = {int: "INT", float: "FLOAT", str: "TEXT", tuple[str, ...]: "TEXT,TEXT"}
    if annotation in kinds:
        return kinds[annotation]
    return "|".join(kind(part).strip("{}") for part in get_args(annotation))


def fields_given(given: argparse.Namespace) -> dict[str, Any]:
    """The fields among the parsed options, by their dotted names."""
    fields = vars(given).items()
    return {name.removeprefix("field:"): v for name, v in fields if name.startswith("field:")}


def experiment_given(given: argparse.Namespace) -> Experiment:
    """The experiment of --config and the fields among the parsed options, resolved."""
    from hiso_ray.tasks import resolve

    values = config.read_yaml(given.config) if given.config else {}
    for name, value in fields_given(given).items():
        config.put(values, name, value)
    return resolve(Experiment.model_validate(values))


def print_anywhere() -> None:
    """Prints "?" for characters that a console or pipe cannot encode, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def console() -> Console:
    """The console that a command prints to."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def guarded(program: str, command: Callable[[], int], interrupted: str) -> int:
    """Runs a command; an error that the user can fix becomes a message and an exit status.

    Args:
        interrupted: what to print about work that was stopped.
    """
    signal.signal(signal.SIGTERM, _interrupt)  # `ray job stop`
    status, message = FAILED, ""
    try:
        return command()
    except ValidationError as error:
        status, message = USER_ERROR, explain(error)
    except TurnFailed as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        message = str(error)
    except (UserError, OSError) as error:
        status, message = USER_ERROR, str(error)
    except KeyboardInterrupt:
        status, message = INTERRUPTED, f"interrupted; {interrupted}"
    print(f"{program}: error: {message}", file=sys.stderr)
    return status


def _interrupt(signum: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def warn_of_job_copy(console: Console, folder: Path, given: str | None) -> None:
    """Warns if output goes to a Ray job's working directory: that is a copy, which may be lost."""
    if os.environ.get(JOB) and not Path(given or "").is_absolute():
        console.print(
            f"note: a Ray job runs in a copy of its working directory, so {folder} may be removed "
            "with it; give --out an absolute path",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
