"""Uploads an exported model to a repository of the Hugging Face hub.

The token is the one that huggingface_hub finds (``HF_TOKEN``, or that of ``hf auth login``); it is
in no configuration and no message. ``HF_ENDPOINT`` names another hub.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hiso_ray import progress
from hiso_ray.errors import UserError
from hiso_ray.tracking.secrets import without_secrets

# What another kind of export may have left in the repository and would be loaded in this one's
# place; files that are in both are replaced anyway.
OF_AN_EXPORT = ["adapter_*", "*.safetensors", "*.index.json", "config.json"]
HUB = "https://huggingface.co"
REASONS = {401: "it does not accept the token", 403: "the token may not write there"}


def check(repository: str) -> None:
    """What can be known before there is anything to upload.

    Raises:
        UserError: the name is no repository's, the hub is switched off, or there is no token.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"push = {repository}: {error}") from error
    if "/" not in repository:
        raise UserError(
            f"push = {repository}: name its owner as well, a user or an organization: "
            f"OWNER/{repository}"
        )
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"push = {repository}: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, so nothing can "
            "be uploaded; unset it"
        )
    _token(repository)


def push(folder: Path, repository: str, private: bool) -> str:
    """Uploads a folder's files, creating the repository if there is none. Weights of earlier
    exports that this one does not have are deleted from it.

    Args:
        private: of the repository; one that exists is not changed.

    Returns:
        The address of the repository's page.

    Raises:
        UserError: the hub did not take it, or ``private`` was asked for and the repository is
            public; says how to upload the folder later.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    token = _token(repository)
    api = HfApi(token=token)
    later = ["hf", "upload", repository, str(folder), *(["--private"] if private else [])]
    with _in_words(f"{api.endpoint} did not take {repository}", token, folder, later):
        page = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.repo_info(repository).private:
            raise UserError("it is there already and public; make it private first")
        with progress.step(f"uploading to {repository}"):
            api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message="Upload a model exported by hiso_ray",
                delete_patterns=OF_AN_EXPORT,
            )
    return without_secrets(str(page))


def _token(repository: str) -> str:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise UserError(
            f"push = {repository}: there is no token for the hub. Set HF_TOKEN in the environment "
            "to one that may write (never in a configuration), or run `hf auth login`"
        )
    return token


@contextmanager
def _in_words(what: str, token: str, folder: Path, later: Sequence[str]) -> Iterator[None]:
    """Turns any error into a UserError.

    Args:
        what: has failed.
        later: the command that does it again.
    """
    try:
        yield
    except Exception as error:  # the hub's libraries raise many unrelated types
        said = without_secrets(f"{what}: {_reason(error)}").replace(token, "***")
        raise UserError(
            f"{said}. The export itself is complete, in {folder}; to upload it later: "
            f"{shlex.join(later)}"
        ) from None  # causes quote requests, which have the token


def _reason(error: BaseException) -> str:
    """The first line of the innermost error that says something, without the signatures of
    addresses."""
    from huggingface_hub import constants

    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    responses = (getattr(one, "response", None) for one in chain)
    status = next((some.status_code for some in responses if some is not None), None)
    if status in REASONS:
        return f"{REASONS[status]} (status {status})"
    said = [str(one).strip() for one in chain]
    text = next((text for text in reversed(said) if text), type(error).__name__)
    text = re.sub(r"\?[^\s'\"]*", "", text.splitlines()[0]).rstrip(".")
    if status is None and constants.ENDPOINT != HUB and not constants.HF_HUB_DISABLE_XET:
        text += " (if this hub has no Xet storage, set HF_HUB_DISABLE_XET=1)"
    return text
