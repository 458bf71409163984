"""A laboratory for fewer rounds.

python benchmarks/fewer_rounds.py OUT [--seeds 0 1 …] [--only NAME …]
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

from candidates.catalogue import ALL
from candidates.federation import Federation
from candidates.run import run

from hiso_ray import Experiment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", default=list(ALL))
    parser.add_argument("--rounds", type=int, default=800)
    parser.add_argument("--every", type=int, default=10)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        federation = Federation(Experiment().changed(**{"task.name": args.task, "seed": seed}))
        for name in args.only:
            file = args.out / f"{re.sub('[^a-zA-Z0-9.]+', '-', name)}-{seed}.json"
            if file.exists():
                continue
            began = time.monotonic()
            rows = run(federation, ALL[name], args.rounds, args.every)
            file.write_text(json.dumps(rows))
            last = {r["lr"]: r["accuracy"] for r in rows if r["round"] == args.rounds}
            found = " ".join(f"{lr:g}:{a:.3f}" for lr, a in last.items())
            print(f"{seed} {name} {time.monotonic() - began:.0f}s {found}", flush=True)


if __name__ == "__main__":
    main()
