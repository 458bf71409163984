"""A model card's text."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import yaml

from hiso_ray.config import Experiment
from hiso_ray.federation.traffic import paper_bytes_per_client
from hiso_ray.runs.card.facts import Facts, of, short
from hiso_ray.runs.card.markdown import block, code, table
from hiso_ray.tasks.exported import Exported
from hiso_ray.tasks.registry import row_of
from hiso_ray.tasks.row import ALWAYS
from hiso_ray.version import __version__

PATHS = (("task", "model"), ("task", "data"), ("task", "sparse_text"), ("devices", "profile"))


def body(exported: Exported | None, facts: Facts) -> Iterator[str]:
    """Its paragraphs, tables and blocks."""
    yield f"# {code(facts.name)}"
    yield _lead(exported, facts)
    yield "## Scores"
    yield _scores(facts)
    if exported is not None:
        yield "## Loading it"
        yield block("python", _loading(exported, facts))
        yield from _beside(exported)
    yield "## How it was trained"
    yield table(("", ""), _training(exported, facts))
    yield (
        "The settings that decide the result, as `hiso-ray run --config` reads them, with the last "
        "part of a path for the whole:"
    )
    yield block("yaml", _settings(facts.experiment))
    yield "## Rebuilding it"
    yield from _rebuilding(facts)
    yield "## Licence"
    yield _licence(exported)


def _lead(exported: Exported | None, facts: Facts) -> str:
    method = facts.experiment.method
    what = "Model" if exported is None else exported.what
    whence = ""
    if exported is not None and exported.base is not None:
        whence = f" {'for' if exported.apart else 'fine-tuned from'} {code(exported.base.name)}"
    rounds = f"{facts.round:,} round{'' if facts.round == 1 else 's'}"
    return (
        f"{what[0].upper()}{what[1:]}{whence}, after {rounds} of {code(method.name)} "
        f"({method.row.paper}) on the task {code(facts.experiment.task.name)}. Trained with "
        "hiso_ray, a simulator of federated fine-tuning, and exported by its version "
        f"{__version__}."
    )


def _scores(facts: Facts) -> str:
    validation = facts.experiment.task.validation_examples
    names = [name for name, _ in of("eval", facts.scores)]
    parts = [("eval", "test", facts.test_examples)]
    parts += [("validation", "validation", validation)] if validation else []
    rows = []
    for prefix, called, number in parts:
        for when, scores in (
            ("before training", facts.before),
            (f"after round {facts.round:,}", facts.scores),
        ):
            if scores is not None:
                values = dict(of(prefix, scores))
                cells = [f"{values[n]:.4f}" if n in values else "–" for n in names]
                rows.append((f"{called}, {number:,} examples", when, *cells))
    shown = table(("examples", "", *names), rows)
    if validation:
        shown += (
            "\n\nValidation examples are the first of the evaluation examples; the others are the "
            "test."
        )
    return shown


def _loading(exported: Exported, facts: Facts) -> str:
    imports = exported.imports
    name = json.dumps(facts.repository or facts.name, ensure_ascii=False)
    if facts.repository is not None and exported.library is None:
        imports += "\nfrom huggingface_hub import snapshot_download"
        name = f"snapshot_download({name})"
    return f"{imports}\n\nname = {name}\n{exported.load}"


def _beside(exported: Exported) -> Iterator[str]:
    base = exported.base
    if exported.apart and base is not None and base.repository is None:
        yield (
            f"{code('adapter_config.json')} says where the base model {code(base.name)} was when "
            "this was exported. Elsewhere, load that model first and put the adapter on it with "
            f"{code('PeftModel.from_pretrained(model, name)')}."
        )
    if exported.library is not None:
        whole = "export with `--merge` and " if exported.apart else ""
        yield f"For a GGUF file, {whole}run llama.cpp's `convert_hf_to_gguf.py` on the folder."


def _training(exported: Exported | None, facts: Facts) -> Iterator[tuple[str, str]]:
    experiment = facts.experiment
    task, method, federation = experiment.task, experiment.method, experiment.federation
    if exported is not None and exported.base is not None:
        yield "base model", code(exported.base.name)
    yield "weights", f"{facts.trained:,} trained of {facts.trained + facts.frozen:,}"
    yield "task", code(task.name)
    yield "data", code(facts.hub_data or short(task.data))
    for what, text in ({} if exported is None else exported.details).items():
        yield what, code(text)
    yield "method", f"{code(method.name)}: {method.row.rule}"
    yield "source", method.row.paper
    yield (
        "clients",
        f"{federation.num_clients:,} that hold {facts.train_examples:,} training examples; "
        f"{federation.clients_per_round:,} in a round",
    )
    yield "rounds", f"{facts.round:,}, of {federation.local_steps:,} local step(s)"
    paper = paper_bytes_per_client(experiment, facts.round, facts.trained)
    yield "bytes of a client, up and down", f"{paper:,}, by the rule of the published tables"
    if facts.row is not None:
        up, down = facts.row["uplink_bytes"], facts.row["downlink_bytes"]
        yield "bytes of all clients", f"{up:,} up, {down:,} down, by the protocol"
    yield "and once, the initial model", f"{4 * (facts.trained + facts.frozen):,} bytes a client"


def _settings(experiment: Experiment) -> str:
    """The fields that decide the result, without those at their defaults in whole sections."""
    apart = {"tracking", "resources", "eval", "diagnostics"}
    values = experiment.model_dump(exclude=apart)
    for section, field in PATHS:
        if field in values[section]:
            values[section][field] = short(values[section][field])
    method, task = experiment.method.row.reads | {"name"}, row_of(experiment.task).reads | ALWAYS
    values["method"] = {k: v for k, v in values["method"].items() if k in method}
    values["task"] = {k: v for k, v in values["task"].items() if k in task | {"data"}}
    usual = type(experiment)()
    for name in ("devices", "uplink", "aggregation", "attack", "privacy"):
        if getattr(experiment, name) == getattr(usual, name):
            del values[name]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _rebuilding(facts: Facts) -> Iterator[str]:
    yield (
        f"From the run folder {code(facts.run)}, the initial weights and the data, hiso_ray "
        "computes these weights again and checks them:"
    )
    words = ["hiso-ray", "replay", facts.run, "--round", str(facts.round), "--export", facts.name]
    words += ["--merge"] if facts.merge else []
    yield block("console", f"$ {shlex.join(words)}")
    rows = [
        ("SHA-256 of the trained weights", code(facts.model_sha256)),
        (f"check of the ledger's line {facts.round + 1:,}", code(facts.ledger_check)),
    ]
    if facts.versions:
        rows.append(("run with", code(facts.versions)))
    yield table(("", ""), rows)


def _licence(exported: Exported | None) -> str:
    if exported is None:
        return "Not known."
    base = exported.base
    if base is None:
        return "None is stated: no pretrained model went into it."
    if base.licence is None:
        return f"Not known: hiso_ray found no licence of the base model {code(base.name)}."
    licence = base.licence
    named = code(licence.name or licence.id)
    link = f", {licence.link}" if licence.link else ""
    return f"{named}{link}: {licence.source}."
