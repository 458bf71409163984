"""What needs fewer rounds than tuned DeComFL, and which step size finds itself: candidates in plain
torch on the product's federation.

    python benchmarks/fewer_rounds.py scan|chosen|reviews OUT [--seeds 0 …] [--only NAME …]
    python benchmarks/fewer_rounds.py sst2|gemma OUT --data SST2 [--model MODEL] […]
    python benchmarks/fewer_rounds.py table|picture OUT [OUT …]
    python benchmarks/fewer_rounds.py answers SWEEP [SWEEP …] --data SST2
    python benchmarks/fewer_rounds.py noise

``scan`` tries everything on digits, ``chosen`` what matters, ``reviews`` the embedded language
model, ``sst2`` a small one and ``gemma`` a published one on real sentences. A run whose file is in
OUT is not repeated. ``table`` prints what OUT holds, as Markdown; it also takes sweep folders of
DeComFL on ``gemma``.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from candidates import noise, package_runs
from candidates.federation import Federation
from candidates.picture import draw
from candidates.run import Candidate, run
from candidates.settings import AFTER, SETTINGS, THRESHOLDS
from candidates.table import endings, markdown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*SETTINGS, "table", "picture", "answers", "noise"])
    parser.add_argument("out", type=Path, nargs="*", default=[Path("build/fewer-rounds")])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="names of candidates")
    parser.add_argument("--data", help="task.data")
    parser.add_argument("--model", help="task.model")
    args = parser.parse_args()
    if args.what == "table":
        tell(read(args.out))
        if sweeps := [folder for folder in args.out if (folder / "runs").is_dir()]:
            print(package_runs.differences(sweeps).to_markdown(index=False))
        return
    if args.what == "answers":
        if args.data is None:
            parser.error("answers: give --data, the folder with the labels")
        shown = package_runs.answers(args.out, Path(args.data))
        return print(shown.to_markdown(index=False, floatfmt=".3f"))
    if args.what == "picture":
        return draw(read(args.out), args.out[0] / "accuracy.png")
    if args.what == "noise":
        setting = SETTINGS["scan"]
        tuned = replace(setting.candidates["DeComFL"], grid=(0.04,))
        digits = Federation(setting.experiment(0, {}))
        rows = noise.along(digits, tuned, (0, 50, 100, 200, 400, 800))
        return print(rows.to_markdown(floatfmt=".3g"))
    (out,) = args.out
    out.mkdir(parents=True, exist_ok=True)
    setting = SETTINGS[args.what]
    sources = {f"task.{name}": getattr(args, name) for name in ("data", "model")}
    given = {name: value for name, value in sources.items() if value}
    some = {name: setting.candidates[name] for name in args.only or setting.candidates}
    for seed in args.seeds:
        missing = list(without_file(out, some, seed))
        federation = Federation(setting.experiment(seed, given)) if missing else None
        for candidate, file in missing:
            began = time.monotonic()
            rows = run(federation, candidate, setting.rounds, setting.every)
            pd.DataFrame(rows).assign(task=setting.task).to_parquet(file)
            print(f"seed {seed}, {candidate.name}: {time.monotonic() - began:.0f} s", flush=True)


def without_file(
    folder: Path, candidates: Mapping[str, Candidate], seed: int
) -> Iterator[tuple[Candidate, Path]]:
    for candidate in candidates.values():
        file = folder / f"{re.sub('[^a-zA-Z0-9.]+', '-', candidate.name)}-{seed}.parquet"
        if not file.exists():
            yield candidate, file


def read(folders: Sequence[Path]) -> pd.DataFrame:
    """All runs of some folders, those of the laboratory in the order in which they were made."""
    sweeps = [folder for folder in folders if (folder / "runs").is_dir()]
    files = [file for folder in folders for file in folder.glob("*.parquet")]
    frames = map(pd.read_parquet, sorted(files, key=lambda file: file.stat().st_mtime))
    of_package = [package_runs.rows(sweeps, "gemma")] if sweeps else []
    return pd.concat([*of_package, *frames], ignore_index=True)


def tell(rows: pd.DataFrame) -> None:
    """Prints runs against the baseline, and every rate's accuracy. A first rate is not chosen: each
    is a line of its own."""
    found = rows.candidate.str.startswith("auto")
    rows.loc[found, "candidate"] += ", from " + rows.lr[found].map("{:g}".format).astype(str)
    task = rows.task.iloc[0]
    rounds = [r for r in AFTER[task] if r in set(rows["round"])]
    print(markdown(rows, THRESHOLDS[task], rounds))
    print(endings(rows).map("{:.1%}".format).to_markdown())


if __name__ == "__main__":
    main()
