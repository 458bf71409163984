"""The last decoder layer, computed for the scored tokens only.

It needs only keys and values of the other tokens. So the layer is called with the hidden states of
the scored tokens, its attention with those of all tokens, and only the scored outputs of attention
go on: the residual, the norms and the feed-forward part see nothing else. Hooks do this, so no
family's code is repeated here. :func:`find` finds the modules to hook by watching one forward pass,
and the caller checks the result (``tasks.forward.forwards``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class LastLayer(NamedTuple):
    """Names of modules.

    Attributes:
        layer: full name.
        norm: the child whose output attention reads; empty if attention reads the layer's input.
        attention: the child that is the attention.
    """

    layer: str
    norm: str
    attention: str


def find(module: nn.Module, run: Callable[[], object]) -> LastLayer | None:
    """Finds the last layer by watching ``run``, one forward pass; None if its structure differs."""
    layers_name, layers = decoder_layers(module)
    if not layers:
        return None
    layer_name, layer = f"{layers_name}.{len(layers) - 1}", layers[-1]
    order: list[str] = []
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}

    def watch(name: str) -> Callable[..., None]:
        def before(_: Any, args: Any, kwargs: Any) -> None:
            order.append(name)
            inputs[name] = hidden_of(args, kwargs)

        return before

    def seen(name: str) -> Callable[..., None]:
        def after(_: Any, args: Any, output: Any) -> None:
            outputs[name] = output

        return after

    children = [("", layer), *layer.named_children()]
    handles: list[RemovableHandle] = []
    for name, child in children:
        handles.append(child.register_forward_pre_hook(watch(name), with_kwargs=True))
        handles.append(child.register_forward_hook(seen(name)))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    attention = next((n for n in order[1:] if isinstance(outputs.get(n), tuple)), None)
    if attention is None or order.count(attention) > 1:
        return None
    before = order[1 : order.index(attention)]
    reads = inputs[attention]
    if not before and reads is inputs[""]:
        return LastLayer(layer_name, "", attention)
    direct = len(before) == 1 and reads is outputs[before[0]] and inputs[before[0]] is inputs[""]
    return LastLayer(layer_name, before[0], attention) if direct else None


def decoder_layers(module: nn.Module) -> tuple[str, Sequence[nn.Module]]:
    """Full name and layers of the outermost list of layers; empty if there is not exactly one."""
    lists = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    outermost = [(n, m) for n, m in lists if not any(n.startswith(f"{o}.") for o, _ in lists)]
    if len(outermost) != 1:
        return "", ()
    name, layers = outermost[0]
    return name, list(layers)


def hidden_of(args: Any, kwargs: Any) -> Any:
    """The hidden states among the arguments of a layer."""
    return args[0] if args else kwargs.get("hidden_states")


def _withhidden_of(args: Any, kwargs: Any, hidden: Tensor) -> tuple[Any, Any]:
    return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})


def trim(module: nn.Module, names: LastLayer) -> list[RemovableHandle]:
    """Hooks the layer so that it returns (1, terms, size) hidden states in forward passes whose
    ``packing`` says what is scored. Returns handles that remove the hooks."""
    layer = module.get_submodule(names.layer)
    norm = layer.get_submodule(names.norm) if names.norm else nn.Identity()
    attention = layer.get_submodule(names.attention)
    everyone: list[Tensor] = []  # the hidden states of all tokens, while the layer runs

    def enter(_: Any, args: Any, kwargs: Any) -> Any:
        everyone.clear()
        packing = kwargs.get("packing")
        if packing is None or packing.scored is None:
            return None
        hidden = hidden_of(args, kwargs)
        everyone.append(hidden)
        return _withhidden_of(args, kwargs, hidden.index_select(1, packing.scored))

    def attend(_: Any, args: Any, kwargs: Any) -> Any:
        if not everyone:
            return None
        packing = kwargs["packing"]
        kwargs = kwargs | {"packing": packing.asked_by_last() if packing.ends else packing}
        return _withhidden_of(args, kwargs, norm(everyone[0]))

    def leave(_: Any, args: Any, kwargs: Any, output: Any) -> Any:
        if not everyone:
            return None
        everyone.clear()
        return output[0].index_select(1, kwargs["packing"].scored), *output[1:]

    return [
        layer.register_forward_pre_hook(enter, with_kwargs=True),
        attention.register_forward_pre_hook(attend, with_kwargs=True),
        attention.register_forward_hook(leave, with_kwargs=True),
    ]
