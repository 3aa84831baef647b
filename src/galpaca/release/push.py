"""A released folder on the Hugging Face Hub: only on request, and private unless --public is given."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from galpaca.errors import GalpacaError, Problems

_LOGIN = "hf auth login, or HF_TOKEN=TOKEN, with a token that may write (huggingface.co/settings/tokens)"


def check_push(problems: Problems, repo: str) -> None:
    """Adds the problems that show before anything is written or sent."""
    try:
        validate_repo_id(repo)
        well_formed = repo.count("/") == 1
    except HFValidationError:
        well_formed = False
    if not well_formed:
        problems.add(f"must be OWNER/NAME, got {repo!r}", where="--push", fix="--push OWNER/NAME")
    if get_token() is None:
        problems.add("not logged in to the Hub", where="--push", fix=_LOGIN)
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"}:
        problems.add("HF_HUB_OFFLINE is set", where="--push", fix="HF_HUB_OFFLINE=0")


def push(folder: Path, repo: str, *, public: bool) -> str:
    """Uploads all files of a folder in one commit, which removes weights that are there under other names.

    Args:
        folder: a released one.
        repo: ``OWNER/NAME``; made if it is not there.
        public: let everyone see it. Without it, one that everyone sees already is refused.

    Returns:
        Its address.

    Raises:
        GalpacaError: what the Hub says, or that it cannot be reached.
    """
    hub = HfApi()
    try:
        address = str(hub.create_repo(repo, private=not public, exist_ok=True))
        is_public = not hub.repo_info(repo).private
        if public or not is_public:
            hub.upload_folder(
                repo_id=repo,
                folder_path=folder,
                commit_message="Released by galpaca",
                # Of an earlier upload in another number of files: readers would take one of the two.
                delete_patterns=["*.safetensors", "*.safetensors.index.json"],
            )
    except Exception as error:  # the library raises a dozen unrelated kinds
        raise _upload_error(error, folder, repo) from None
    if is_public and not public:
        raise GalpacaError(
            f"{repo} already exists and is public; nothing was uploaded",
            where="--push",
            why=f"uploading to a public repository needs --public; the model is in {folder}",
            fix="add --public, or choose another name",
        )
    return address


def _upload_error(error: Exception, folder: Path, repo: str) -> GalpacaError:
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    again = f"then: hf upload {repo} {folder} --private"
    match status:
        case 401:
            what, fix = "the Hub rejected the token", _LOGIN
        case 403:
            what, fix = f"the token may not write to {repo}", f"{_LOGIN}; or another OWNER"
        case None if not isinstance(error, ValueError):
            what, fix = f"cannot reach the Hub: {_one_line(error)}", "use a machine with network access"
        case _:
            what, fix = f"the Hub refused the upload: {_one_line(error)}", "see the message, or try again later"
    return GalpacaError(what, where="--push", why=f"the model is complete in {folder}", fix=f"{fix}; {again}")


def _one_line(error: Exception) -> str:
    return str(error).strip().replace("\n", " ") or type(error).__name__
