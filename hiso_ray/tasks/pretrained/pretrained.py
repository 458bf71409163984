"""Causal language models and their tokenizers: from a hub or a folder, or their structure alone.

One code path for all families; transformers handles the differences: attention, tied embeddings,
position counting. The tokenizer needs no padding token, since padding is masked and its outputs are
never used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hiso_ray.errors import UserError
from hiso_ray.tasks.pretrained.known_models import KNOWN
from hiso_ray.tasks.pretrained.model_files import PACKAGED, find
from hiso_ray.tasks.pretrained.unfit import (
    Unfit,
    check_complete,
    check_finite,
    check_memory,
)

CAUSAL = ("ForCausalLM", "LMHeadModel")  # suffixes of the names of their architectures
FILES = "config.json, model.safetensors, tokenizer.json and tokenizer_config.json"


class Pretrained(NamedTuple):
    """A model as it was saved.

    Attributes:
        model: a transformers model in evaluation mode.
        tokenizer: a fast one.
        notes: lines for the user.
    """

    model: Any
    tokenizer: Any
    notes: tuple[str, ...]


def load(name: str, dtype: torch.dtype = torch.float32) -> Pretrained:
    """Loads model and tokenizer, every weight from safetensors.

    Args:
        dtype: of the loaded weights; float32 if they are trained.

    Raises:
        UserError: no such folder or file, not a causal language model, incomplete weights, a gated
            model without access, or a hub that cannot be reached.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    _quiet()
    with _in_words(name):
        source = find(name)
        config = AutoConfig.from_pretrained(source.place, trust_remote_code=False)
        kinds = config.architectures or []
        if not all(kind.endswith(CAUSAL) for kind in kinds):
            raise Unfit(f"not a causal language model: its architecture is {', '.join(kinds)}")
        tokenizer = _tokenizer(source.place)
        # Weights are read, then copied once, into x_0 and the shared arrays.
        check_memory(2 * dtype.itemsize * _weights(structure_of(config)))
        model, found = AutoModelForCausalLM.from_pretrained(
            source.place,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # checked below
        )
        check_complete(found)
        check_finite(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is not embedding.weight:
        # Weights that were saved untied stay untied, whatever the configuration says.
        model.config.get_text_config().tie_word_embeddings = False
    notes = () if source.from_gguf is None else (source.from_gguf,)
    return Pretrained(model.eval(), tokenizer, notes)


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Turns errors from loading a model into a UserError about ``task.model``."""
    from safetensors import SafetensorError

    try:
        yield
    except Unfit as problem:
        raise UserError(f"task.model = {name}: {problem}") from problem
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(_why(name, error)) from error


def local_tokenizer(name: str) -> Any:
    """The model's tokenizer without its weights and without a hub: from local files, or from the
    hub's local cache.

    Raises:
        UserError: it is not on this machine, or cannot be used.
    """
    _quiet()
    try:
        return _tokenizer(find(name, offline=True).place, local_files_only=True)
    except (Unfit, OSError, ValueError, KeyError) as error:
        why = str(error) if isinstance(error, Unfit) else "it is not here"
        raise UserError(f"the tokenizer of task.model = {name}: {why}") from error


def _tokenizer(place: str, **where: Any) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place, **where)
    if not tokenizer.is_fast:
        raise Unfit("its tokenizer has no fast version (tokenizer.json)")
    # Some tokenizers come with truncation or padding; this project truncates in ``text.tokens``.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _quiet() -> None:
    """Silences the libraries' logs: errors are reported as exceptions."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    hub_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _weights(config: dict[str, Any]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in skeleton(config).parameters())


def _why(name: str, error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    causes = [error]
    while causes[-1].__cause__ is not None or causes[-1].__context__ is not None:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)  # type: ignore[arg-type]
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            f"task.model = {name}: a gated model. Accept its licence on its hub page, then set "
            "HF_TOKEN in the environment to a token of that account (never in a configuration)"
            + ("; the HF_TOKEN that is set has no access" if os.environ.get("HF_TOKEN") else "")
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return (
            f"task.model = {name}: the hub has no such model, or it is private and HF_TOKEN is not "
            "set in the environment"
        )
    if not Path(name).expanduser().exists():
        return (
            f"task.model = {name}: not a local folder, and the hub did not give it ({reason}). "
            f"Without a hub, name a local folder with {FILES}, or a GGUF file"
        )
    return (
        f"task.model = {name}: not a causal language model that can be loaded ({reason}). A local "
        f"folder needs {FILES}"
    )


def configuration(name: str) -> dict[str, Any]:
    """The model's configuration without its weights and, where possible, without a hub.

    Tries a local folder, the hub's local cache, the shapes in ``known_models``, then the hub; for
    a model from a package, uses those shapes.

    Raises:
        UserError: none of them has it.
    """
    from transformers import AutoConfig

    if name in PACKAGED:
        return dict(KNOWN[name])
    _quiet()
    for offline in (True, False):
        try:
            place = find(name, offline).place
            return structure_of(AutoConfig.from_pretrained(place, local_files_only=offline))
        except Unfit as problem:
            raise UserError(f"task.model = {name}: {problem}") from problem
        except (OSError, ValueError, KeyError) as error:
            if offline and name in KNOWN:
                return dict(KNOWN[name])
            reason = error
    raise UserError(_why(name, reason))


def structure_of(config: Any) -> dict[str, Any]:
    """The settings that decide the structure, without path, version and this version's defaults."""
    unimportant = ("_name_or_path", "transformers_version")
    changed = {k: v for k, v in config.to_diff_dict().items() if k not in unimportant}
    return changed | {
        "model_type": config.model_type,
        "max_position_embeddings": getattr(config, "max_position_embeddings", None),
    }


def skeleton(config: dict[str, Any]) -> Any:
    """The model's structure with uninitialised storage, to be bound to weights stored elsewhere."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config), dtype=torch.float32, trust_remote_code=False
        )
    model.tie_weights()
    return model


def positions(config: dict[str, Any]) -> int | None:
    """The longest sequence the model reads [tokens]; None without a limit."""
    return config.get("max_position_embeddings") or config.get("n_positions")


def check_tokens(ids: np.ndarray, model: Any, tokenizer: Any, name: str) -> None:
    """
    Raises:
        UserError: a token has no row in the model's embedding.
    """
    rows, highest = model.get_input_embeddings().weight.shape[0], int(ids.max(initial=0))
    if highest >= rows:
        raise UserError(
            f"task.model = {name}: its tokenizer makes token {highest} "
            f"({tokenizer.convert_ids_to_tokens(highest)!r}), its embedding has {rows} rows: "
            "tokenizer and weights are not of one model; save them together"
        )
