"""Weights & Biases, online or offline.

Everything is read from its own variables: ``WANDB_API_KEY``, ``WANDB_PROJECT``, ``WANDB_ENTITY``,
``WANDB_MODE`` (by default ``online`` with a key and ``offline`` without).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiso_ray.run_folder.metrics_reader import Row
from hiso_ray.tracking.contract import Tracker

OPENING_SECONDS = 20.0


class WandB(Tracker):
    """A run of W&B whose step is the round. A process of its own, ``wandb-core``, writes what it is
    given to ``wandb/`` in the run folder, and uploads it if online."""

    library = "wandb"

    def open(self, earlier: str | None) -> str:
        import wandb

        usual = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        mode: Any = os.environ.get("WANDB_MODE") or usual
        self._run = wandb.init(
            id=earlier,
            resume="allow",
            reinit="create_new",  # a trial's process runs one run after the other
            project=os.environ.get("WANDB_PROJECT") or "hiso-ray",
            name=self._shown.name,
            group=self._shown.sweep,
            dir=self._shown.folder,
            config=self._shown.experiment.model_dump(),
            mode=mode,
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_stats=True,
                init_timeout=OPENING_SECONDS,
                login_timeout=1.0,  # it would ask for a key at the terminal
                finish_timeout=0.8 * self._shown.patience,  # its error is still heard
                finish_timeout_raises=True,
            ),
        )
        kept = Path(self._run.dir).parent
        self.place = f"offline in {kept}; wandb sync {kept}" if self._run.offline else self._run.url
        self._round: int | None = None
        return self._run.id

    def rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            shown = {name: value for name, value in row.items() if value is not None}
            self._round = shown.pop("round")
            self._run.log(shown, step=self._round)

    def summary(self, summary: Mapping[str, Any]) -> None:
        self._run.summary.update(summary)

    def pictures(self, paths: Sequence[Path]) -> None:
        import wandb

        self._run.log({path.stem: wandb.Image(str(path)) for path in paths}, step=self._round)

    def model(self, folder: Path) -> None:
        import wandb

        model = wandb.Artifact(f"{self._run.id}-model", type="model")
        model.add_dir(str(folder), policy="immutable")  # read where it lies, not copied
        self._run.log_artifact(model)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
