"""A model card's front matter, which the hub reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hiso_ray.runs.card.facts import Facts, of, short
from hiso_ray.tasks.exported import Exported

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData


def front_matter(exported: Exported | None, facts: Facts) -> ModelCardData:
    from huggingface_hub import ModelCardData

    task, method = facts.experiment.task, facts.experiment.method
    tags = ["hiso-ray", method.name]
    tags += [] if method.row.one_client else ["federated-learning"]
    tags += [] if method.row.first_order else ["zeroth-order-optimization"]
    tags += ["lora"] if task.lora.r else []
    known: dict[str, Any] = {"tags": tags}
    if facts.hub_data is not None:
        known["datasets"] = [facts.hub_data]
    if exported is None:
        return ModelCardData(**known)
    known |= {"library_name": exported.library, "pipeline_tag": exported.pipeline}
    if exported.base is not None:
        known["base_model"] = exported.base.repository
        if (licence := exported.base.licence) is not None:
            known |= {"license": licence.id, "license_name": licence.name}
            known["license_link"] = licence.link
    if exported.scored_as is not None:
        known["metrics"] = [metric for metric, _ in of("eval", facts.scores) if metric != "loss"]
        known["model_name"] = facts.name
        known["eval_results"] = _results(exported.scored_as, facts)
    return ModelCardData(**known)


def _results(scored_as: str, facts: Facts) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    task = facts.experiment.task
    return [
        EvalResult(
            task_type=scored_as,
            dataset_type=facts.hub_data or short(task.data),
            dataset_name=f"{task.name}, the run's test examples",
            metric_type=metric,
            metric_value=value,
        )
        for metric, value in of("eval", facts.scores)
    ]
