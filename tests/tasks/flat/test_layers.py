"""Weights that exist one layer at a time: the same bits, no more memory, no silent wrong read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode

from hiso_ray import Experiment, replay, run, tasks
from hiso_ray.cli import main
from hiso_ray.client.turns import take_turns
from hiso_ray.errors import UserError
from hiso_ray.execution.memory import actor_bytes
from hiso_ray.execution.worker import Worker
from hiso_ray.method.layout import dimension
from hiso_ray.method.perturbed import Unperturbed
from hiso_ray.tasks.contract import largest_layer, views
from hiso_ray.tasks.flat.batch import Batch
from hiso_ray.tasks.flat.layers import ALIGNMENT, Layers

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 61,
    "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0, "tie_word_embeddings": True,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "opt": SMALL | {"ffn_dim": 36, "word_embed_proj_dim": 10},
    "llama": SMALL,
    "gemma3_text": SMALL | {"head_dim": 10, "sliding_window": 8, "query_pre_attn_scalar": 10},
}
LAYER = {"resources.probe_weights": "layer"}
pytestmark = pytest.mark.usefixtures("one_thread")

Make = Callable[..., Experiment]


@pytest.fixture(scope="module")
def family(tiny_opt: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        from transformers import AutoConfig, AutoModelForCausalLM

        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            for file in tiny_opt.glob("tokenizer*"):
                (made[name] / file.name).write_bytes(file.read_bytes())
            with torch.random.fork_rng():
                torch.manual_seed(0)
                config = AutoConfig.for_model(name, **FAMILIES[name])
                AutoModelForCausalLM.from_config(config).save_pretrained(made[name])
        return made[name]

    return make


@pytest.fixture
def of(language: Make, experiment: Make, family: Callable[[str], Path]) -> Make:
    def make(name: str, **dotted: Any) -> Experiment:
        short = {"federation.rounds": 2, "eval.every": 2}
        if name == "digits":
            return experiment(**(short | dotted))
        language_only = {"task.model": str(family(name)), "task.max_length": 40}
        return language(**(short | language_only | dotted))

    return make


BFLOAT16 = {"task.dtype": "bfloat16", "method.mu": 1e-2}
LARGE = {"task.model": "mlp-2048"}  # too many weights for several weight vectors at once
CASES: list[tuple[str, dict[str, Any]]] = [
    ("opt", {"federation.local_steps": 2}),
    ("opt", BFLOAT16 | {"method.probe": "central"}),
    ("llama", {"method.curvature": "row"}),
    ("llama", BFLOAT16),
    ("llama", {"task.lora.r": 2, "method.curvature": "permuted"}),
    ("llama", BFLOAT16 | {"task.trainable": "*.q_proj.*,*norm*", "method.name": "hizoo"}),
    ("gemma3_text", {"resources.direction_cache_mb": 0}),
    ("gemma3_text", BFLOAT16),
    ("digits", LARGE | {"method.name": "fedzo", "federation.local_steps": 2}),
    ("digits", LARGE | {"method.curvature": "oracle", "diagnostics.every": 1}),
]


@pytest.mark.parametrize(("name", "dotted"), CASES)
def test_a_run_is_the_same_to_the_last_bit(
    of: Make, tmp_path: Path, name: str, dotted: dict[str, Any]
) -> None:
    notes: list[str] = []
    whole = run(of(name, **dotted), tmp_path / "whole")
    layer = run(of(name, **dotted, **LAYER), tmp_path / "layer", on_note=notes.append)
    assert layer["model_sha256"] == whole["model_sha256"]
    assert layer["final_accuracy"] == whole["final_accuracy"]
    assert sum(note.startswith("probes hold one layer at a time: ") for note in notes) == 1
    a, b = ((tmp_path / n / "ledger.jsonl").read_text().splitlines() for n in ("whole", "layer"))
    assert a[1:] == b[1:]


def test_a_small_network_has_no_layers_worth_sparing(of: Make, tmp_path: Path) -> None:
    notes: list[str] = []
    steps = {"federation.local_steps": 2}
    whole = run(of("digits", **steps), tmp_path / "whole")
    layer = run(of("digits", **steps, **LAYER), tmp_path / "layer", on_note=notes.append)
    assert layer["model_sha256"] == whole["model_sha256"]
    assert sum("network so small resources.probe_weights layer spares" in n for n in notes) == 1


def test_a_run_replays_and_exports(of: Make, tmp_path: Path) -> None:
    exported = []
    for how in ("whole", "layer"):
        run(of("llama", **BFLOAT16, **{"resources.probe_weights": how}), tmp_path / how)
        assert replay(tmp_path / how, export=tmp_path / f"{how}-model")["matches"] is True
        exported.append((tmp_path / f"{how}-model" / "model.safetensors").read_bytes())
    assert exported[0] == exported[1]


class Largest(TorchDispatchMode):
    """The most elements that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.numel())
        return out


@pytest.mark.parametrize("name", FAMILIES)
def test_no_more_than_the_largest_layer_exists_at_once(of: Make, name: str) -> None:
    small = {"task.batch_size": 2, "task.eval_batch_size": 2, "resources.direction_cache_mb": 0}
    e = tasks.resolve(of(name, **BFLOAT16, **LAYER, **small))
    prepared, partition = tasks.load(e)
    worker = Worker(e, prepared, partition)
    task: Any = worker.replica.task
    layer, d = largest_layer(task.layout), prepared.x0.size
    assert layer < 0.7 * d
    bound = []

    def count(*_: Any) -> None:
        here = [i for i, p in enumerate(task._trainable) if type(p) is nn.Parameter]
        bound.append(sum(task._trainable[i].numel() for i in here))
        # Trap: matrix products change bits with alignment, on some processors.
        for i in here:
            place, wanted = task._trainable[i].data_ptr(), 2 * dimension(task.layout[:i])
            assert (place - wanted) % ALIGNMENT["cpu"] == 0

    take_turns(worker.replica, partition, [(0, 1)], [1])  # makes the hooks, so that ours come after
    for module in task.module.modules():
        module.register_forward_pre_hook(count)
    with Largest() as made:
        take_turns(worker.replica, partition, [(0, 1)], [2])
        worker.scores([0])
    assert worker.replica.buffer is None
    assert max(bound) == layer
    held = task._layers.scratch.numel()
    assert layer <= held < layer + ALIGNMENT["cpu"]
    assert made.elements <= held  # activations are smaller here


class Nested(nn.Module):
    """Owns weights around a child, shares one with it, and calls something that is not its own."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(5))
        self.child = nn.Linear(5, 5)
        self.shared = self.child.weight
        self.others = [other]

    def forward(self, x: Tensor) -> Tensor:
        x = self.child(x * self.scale) + linear(x, self.shared)
        return self.others[0](x) * self.scale


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(5, 17, bias=False)
        self.narrow = nn.Linear(17, 5)
        self.nested = Nested(nn.Sequential(self.wide, self.narrow))

    def forward(self, x: Tensor) -> Tensor:
        return self.nested(x) + self.narrow(self.wide(x))


def flat_of(module: nn.Module) -> tuple[Any, Tensor]:
    layout = tuple((name, tuple(p.shape)) for name, p in module.named_parameters())
    size = sum(p.numel() for p in module.parameters())
    return layout, torch.randn(size, generator=torch.Generator().manual_seed(1))


def layers_of(module: nn.Module) -> Layers:
    return Layers(module, list(module.named_parameters()), torch.float32, CPU, "toy")


@torch.inference_mode()
def test_layers_that_run_inside_others(of: Make) -> None:
    module = Chain().requires_grad_(False)
    layout, flat = flat_of(module)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    layers = layers_of(module)
    with layers.at(Unperturbed(flat)):
        found = [module(x), module(x)]
    assert all(p.isnan().all() for p in module.parameters())  # nothing stale is left
    named = dict(module.named_parameters())
    for name, view in views(flat, layout).items():
        named[name].data = view
    assert torch.equal(found[0], module(x))  # the hooks are silent, the weights bound
    assert torch.equal(found[1], module(x))


class Reader(nn.Module):
    """Reads its child's weight without running it, in one of several ways."""

    def __init__(self, how: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.child, self.last, self.how = nn.Linear(5, 5), nn.Linear(5, 5), how
        self.held = [self.child.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.how(self, x))

    def __len__(self) -> int:  # of its layers, as networks of images have it
        return 2


@pytest.mark.parametrize(
    "how",
    [
        lambda m, x: linear(x, m.child.weight),
        lambda m, x: x * m.child.weight.sum(),
        lambda m, x: x + torch.cat([x, m.held[0]])[:1],
        lambda m, x: m.child.forward(x),
        lambda m, x: linear(x, m.child.weight.data),
    ],
)
@torch.inference_mode()
def test_a_weight_that_is_read_outside_its_layer(how: Any) -> None:
    module = Reader(how).requires_grad_(False)
    _, flat = flat_of(module)
    words = (
        r"task.model toy reads the weights of child \(child.weight\) outside that layer's forward "
        "pass; use resources.probe_weights whole"
    )
    with pytest.raises(UserError, match=words), layers_of(module).at(Unperturbed(flat)):
        module(torch.ones(2, 5))
    assert type(module.child.weight) is nn.Parameter


@torch.inference_mode()
def test_a_layer_that_never_runs() -> None:
    def asks_only(module: Any, x: Tensor) -> Tensor:
        assert module.child.weight.shape == (5, 5)
        return x.to(module.child.weight.dtype)

    module = Reader(asks_only).requires_grad_(False)
    _, flat = flat_of(module)
    words = "task.model toy did not run the layer that owns the weights child.weight in"
    with pytest.raises(UserError, match=words), layers_of(module).at(Unperturbed(flat)):
        module(torch.ones(2, 5))


def test_what_a_turn_tells_of_such_a_model(of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Reader(lambda m, x: linear(x, m.child.weight))
    module.child, module.last = nn.Linear(64, 5), nn.Linear(5, 10)
    monkeypatch.setattr("hiso_ray.tasks.images.vision.network", lambda *_: module)
    for name, instead in (("pays", False), ("Stacked", None), ("widest", 1)):  # no Sequential
        monkeypatch.setattr(
            f"hiso_ray.tasks.images.stacked.{name}", lambda *_, instead=instead: instead
        )
    e = tasks.resolve(of("digits", **LAYER, **BFLOAT16))
    prepared, partition = tasks.load(e)
    worker = Worker(e, prepared, partition)
    worker.replica.task.make_batch = lambda split, clients: Batch(  # type: ignore[attr-defined]
        torch.ones(sum(map(len, clients)), 64, dtype=torch.bfloat16),
        torch.zeros(sum(map(len, clients)), dtype=torch.int64),
        tuple(map(len, clients)),
    )
    with pytest.raises(UserError, match="mlp-8 reads the weights of child"):
        worker.turns([(0, 1)], [1])
    with pytest.raises(UserError, match="mlp-8 reads the weights of child"):
        worker.scores([0])


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ({"method.name": "fedavg"}, "fedavg computes gradients and perturbs nothing"),
        ({"method.generator": "torch"}, "method.generator = torch makes no slice .* use philox"),
        ({"method.probe": "exact"}, "method.probe = exact differentiates at all weights"),
        ({"task.name": "sst2", "task.sparse_fraction": 0.1}, "0.1 keeps a dense copy of all"),
    ],
)
def test_what_cannot_go_layer_by_layer(dotted: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"resources.probe_weights = layer: .*{words}"):
        Experiment().changed(**dotted, **LAYER)


def test_a_task_without_layers_has_none_to_go_by() -> None:
    e = Experiment().changed(**{"task.name": "quadratic", "task.model": "auto"}, **LAYER)
    with pytest.raises(UserError, match=r"layer: task\.name = quadratic has no layers"):
        tasks.resolve(e)


def test_the_memory_of_an_actor_and_the_plan(
    language: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    e = tasks.resolve(Experiment().changed(**{"task.name": "sst2", "task.model": OPT, **LAYER}))
    d, frozen, layer, *_ = tasks.count(e)
    assert layer == 50272 * 768  # the embedding, tied to the head
    whole = e.changed(**{"resources.probe_weights": "whole"})
    saved = actor_bytes(whole, d, frozen, layer) - actor_bytes(e, d, frozen, layer)
    assert saved == 4 * (d - layer)
    told = ["run", "--dry-run", "--task.name", "sst2", "--task.model", OPT]
    for how, words in (
        ("layer", "one layer at a time: 147 MiB instead of 478 MiB of perturbed weights"),
        ("whole", "478 MiB of perturbed weights (147 MiB with resources.probe_weights layer)"),
    ):
        assert main([*told, "--resources.probe_weights", how]) == 0
        assert words in " ".join(capsys.readouterr().out.replace("│", " ").split())
    prepared = tasks.prepare(tasks.resolve(language()))
    assert largest_layer(prepared.spec["layout"]) == tasks.count(tasks.resolve(language())).layer


OPT = "facebook/opt-125m"


def test_the_largest_layer_counts_what_is_around_it() -> None:
    layout = (("scale", (3,)), ("a.w", (2, 2)), ("a.b.w", (2,)), ("a.b.v", (1,)), ("ab.w", (9,)))
    assert largest_layer(layout) == 12  # scale and ab
    assert largest_layer(layout[:4]) == 10
