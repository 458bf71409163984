"""MLflow, on a server or in local files.

Everything is read from MLflow's own variables: ``MLFLOW_TRACKING_URI`` (by default the folder
``mlruns`` beside the run folder), ``MLFLOW_EXPERIMENT_NAME``, and the credentials.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiso_ray.run_folder import files
from hiso_ray.run_folder.locks import hold
from hiso_ray.run_folder.metrics_reader import COLUMNS, Row
from hiso_ray.tracking.contract import Tracker
from hiso_ray.tracking.secrets import without_secrets

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

DEFAULTS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",  # MLflow asks for consent to a store in plain files
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
MOST_METRICS, MOST_PARAMS, LONGEST_PARAM = 1000, 100, 6000  # MLflow's limits per request and value
OPENING_SECONDS = 20.0


class MLflow(Tracker):
    """A run of MLflow: the configuration as parameters, rows as metrics whose step is the round,
    files as artifacts.

    A metric's time is the start of MLflow's run and the row's ``seconds``, so that a row sent twice
    is the same metric.
    """

    library = "mlflow"

    def open(self, earlier: str | None) -> str:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        store = self._shown.folder.parent / "mlruns"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or store.as_uri()
        self._client = MlflowClient(uri)
        if uri == store.as_uri():
            store.mkdir(exist_ok=True)
            with open(store / ".lock", "ab") as lock:  # of two trials, one makes the experiment
                hold(lock, OPENING_SECONDS)
                run = self._run(earlier)
        else:
            run = self._run(earlier)
        self._id, self._start = run.info.run_id, run.info.start_time
        self.place = f"run {self._id} in {without_secrets(uri)}"
        return self._id

    def _run(self, earlier: str | None) -> Run:
        from mlflow.exceptions import MlflowException

        client: MlflowClient = self._client
        if earlier is not None:
            try:
                client.update_run(earlier, status="RUNNING")
                return client.get_run(earlier)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "hiso-ray"
        sweep = self._shown.sweep
        tags = {} if sweep is None else {"sweep": sweep}
        run = client.create_run(self._experiment(name), run_name=self._shown.name, tags=tags)
        self._params(run.info.run_id)
        return run

    def _experiment(self, name: str) -> str:
        """The id of the experiment of that name, which is created if needed."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self._client.get_experiment_by_name(name)  # another process was faster
            assert found is not None
        return found.experiment_id

    def _params(self, run_id: str) -> None:
        """Logs the configuration; a text that is too long for a parameter is cut."""
        from mlflow.entities import Param

        fields = self._shown.experiment.dotted().items()
        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in fields]
        for at in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(run_id, params=params[at : at + MOST_PARAMS])

    def rows(self, rows: Sequence[Row]) -> None:
        metrics = [
            self._metric(name, value, row["round"], row["seconds"])
            for row in rows
            for name, value in row.items()
            if name != "round" and value is not None
        ]
        for at in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._id, metrics=metrics[at : at + MOST_METRICS])

    def _metric(self, name: str, value: float, round_: int, seconds: float) -> Metric:
        from mlflow.entities import Metric

        return Metric(name, value, self._start + round(1000 * seconds), round_)

    def summary(self, summary: Mapping[str, Any]) -> None:
        """The file, its numbers that are no column of the table as metrics, its texts as tags."""
        from mlflow.entities import RunTag

        metrics = [
            self._metric(name, value, summary["rounds"], summary["seconds"])
            for name, value in summary.items()
            if isinstance(value, (int, float)) and name not in COLUMNS
        ]
        tags = [RunTag(name, text) for name, text in summary.items() if isinstance(text, str)]
        self._client.log_batch(self._id, metrics=metrics, tags=tags)
        self._client.log_artifact(self._id, str(self._shown.folder / files.SUMMARY))

    def pictures(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self._client.log_artifact(self._id, str(path), "pictures")

    def model(self, folder: Path) -> None:
        self._client.log_artifacts(self._id, str(folder), "model")

    def close(self, finished: bool) -> None:
        # Now: it may have been resumed with more rounds, and MLflow's parameters are final.
        self._client.log_artifact(self._id, str(self._shown.folder / files.CONFIG))
        self._client.set_terminated(self._id, "FINISHED" if finished else "FAILED")
