"""What needs fewer rounds than tuned DeComFL, and which step size finds itself: candidates in plain
torch on the product's federation.

    python benchmarks/fewer_rounds.py scan|chosen|reviews OUT [--seeds 0 …] [--only NAME …]
    python benchmarks/fewer_rounds.py table|picture OUT
    python benchmarks/fewer_rounds.py noise

``scan`` tries everything on digits, ``chosen`` what matters, ``reviews`` the embedded language
model. A run whose file is in OUT is not repeated. ``table`` prints what OUT holds, as Markdown.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
from candidates import catalogue, noise
from candidates.federation import Federation
from candidates.picture import draw
from candidates.run import Candidate, run
from candidates.table import endings, markdown

from hiso_ray import Experiment

SETS = {"scan": catalogue.SCAN, "chosen": catalogue.CHOSEN, "reviews": catalogue.REVIEWS}
ROUNDS = {"scan": (800, 10), "chosen": (600, 10), "reviews": (100, 25)}  # and a look every so many
THRESHOLDS = {"digits": (0.65, 0.75, 0.85), "reviews": (0.75, 0.8, 0.85)}
AFTER = {"digits": (100, 200, 400, 600), "reviews": (25, 50, 75, 100)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*SETS, "table", "picture", "noise"])
    parser.add_argument("out", type=Path, nargs="?", default=Path("build/fewer-rounds"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="names of candidates")
    args = parser.parse_args()
    if args.what == "table":
        return tell(read(args.out))
    if args.what == "picture":
        return draw(read(args.out), args.out / "accuracy.png")
    if args.what == "noise":
        tuned = replace(catalogue.SCAN["DeComFL"], grid=(0.04,))
        rows = noise.along(federation_of("digits", 0), tuned, (0, 50, 100, 200, 400, 800))
        return print(rows.to_markdown(floatfmt=".3g"))
    args.out.mkdir(parents=True, exist_ok=True)
    some = {name: SETS[args.what][name] for name in args.only or SETS[args.what]}
    for seed in args.seeds:
        missing = list(without_file(args.out, some, seed))
        if missing:
            task = "reviews" if args.what == "reviews" else "digits"
            federation = federation_of(task, seed)
            for candidate, file in missing:
                began = time.monotonic()
                rows = run(federation, candidate, *ROUNDS[args.what])
                pd.DataFrame(rows).assign(task=task).to_parquet(file)
                print(
                    f"seed {seed}, {candidate.name}: {time.monotonic() - began:.0f} s", flush=True
                )


def federation_of(task: str, seed: int) -> Federation:
    return Federation(Experiment().changed(**{"task.name": task, "seed": seed}))


def without_file(
    folder: Path, candidates: dict[str, Candidate], seed: int
) -> Iterator[tuple[Candidate, Path]]:
    for candidate in candidates.values():
        file = folder / f"{re.sub('[^a-zA-Z0-9.]+', '-', candidate.name)}-{seed}.parquet"
        if not file.exists():
            yield candidate, file


def read(folder: Path) -> pd.DataFrame:
    """All runs of a folder, in the order in which they were made."""
    files = sorted(folder.glob("*.parquet"), key=lambda file: file.stat().st_mtime)
    return pd.concat(map(pd.read_parquet, files), ignore_index=True)


def tell(rows: pd.DataFrame) -> None:
    """Prints runs against the baseline, and every rate's accuracy. A first rate is not chosen: each
    is a line of its own."""
    found = rows.candidate.str.startswith("auto")
    rows.loc[found, "candidate"] += ", from " + rows.lr[found].map("{:g}".format)
    task = rows.task.iloc[0]
    rounds = [r for r in AFTER[task] if r in set(rows["round"])]
    print(markdown(rows, THRESHOLDS[task], rounds))
    print(endings(rows, rounds[-1]).map("{:.1%}".format).to_markdown())


if __name__ == "__main__":
    main()
