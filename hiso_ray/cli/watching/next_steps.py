"""What can be done with a run or a sweep: commands that work as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path

from hiso_ray.analysis import sweep_files
from hiso_ray.analysis.sweep_state import SweepState
from hiso_ray.run_folder import files
from hiso_ray.run_folder.state import State

Step = tuple[str, str]
"""(what for, the command)."""
GENTLER = 0.5  # times the learning rate of a run that diverged


def next_steps(run: State, broken: str) -> list[Step]:
    """
    Args:
        broken: why the ledger cannot be trusted; empty if it can.
    """
    folder, begun = run.folder, (run.folder / files.LEDGER).exists()
    report = [("curves and tables", _hiso("report", folder))] if run.values("eval_loss") else []
    if run.phase == "running":
        live = [("the same in a browser", _hiso("report", folder, "--live"))] if report else []
        return [("watch it", _hiso("watch", folder)), *live]
    if broken:
        return [("run it again from the start", _again(folder, f"{folder}-again")), *report]
    if run.phase == "finished":
        export = _hiso("replay", folder, "--export", _free(f"{folder}-model"))
        steps = [*report, ("check the digest, write the model", export)]
        method, more = run.experiment.method, str(2 * run.planned)
        if method.schedule == "constant" or method.schedule_floor > 0:  # else its rate is 0 now
            steps.append(("more rounds", _hiso("resume", folder, "--federation.rounds", more)))
        return steps
    if run.phase == "diverged":
        lower = f"{GENTLER * run.experiment.method.lr:g}"
        out = f"{folder}-lr{lower}"
        return [("try a lower rate", _again(folder, out, "--method.lr", lower)), *report]
    sweep = sweep_files.sweep_of(folder)
    resume = _hiso("resume", folder) if sweep is None else _resume_sweep(sweep)
    export = _hiso("replay", folder, "--export", _free(f"{folder}-model"))
    model = [("the model as far as it came", export)] if begun else []
    return [("go on", resume), *report, *model]


def next_steps_of_sweep(sweep: SweepState) -> list[Step]:
    shown = any(trial.run.values("eval_loss") for trial in sweep.trials)
    report = [("curves and tables", _hiso("report", sweep.folder))] if shown else []
    if sweep.running:
        live = [("the same in a browser", _hiso("report", sweep.folder, "--live"))] if shown else []
        return [("watch it", _hiso("watch", sweep.folder)), *live]
    lacking = sweep.planned - len(sweep.of_status(sweep_files.FINISHED))
    resume = [(f"run the {lacking} that lack", _resume_sweep(sweep.folder))] if lacking else []
    return [*resume, *report, *_best(sweep)]


def _best(sweep: SweepState) -> list[Step]:
    best = sweep.ranked[:1]
    return [("the best trial alone", _hiso("show", trial.run.folder)) for trial in best]


def _again(folder: Path, out: str, *options: str) -> str:
    config = folder / files.CONFIG
    return _hiso("run", "--config", config, *options, "--out", _free(out))


def _resume_sweep(sweep: Path) -> str:
    return shlex.join(["python", "-m", "hiso_ray.sweeps", "--resume", "--out", str(sweep)])


def _hiso(*words: Path | str) -> str:
    return shlex.join(["hiso-ray", *map(str, words)])


def _free(name: str) -> str:
    """The name, or with the first number after it that makes it a new one."""
    number = 1
    while (path := Path(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return str(path)
