"""Puts model folders into a repository of the Hugging Face hub, or of a hub that HF_ENDPOINT names."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from electrain.foundation.card import CARD_NAME
from electrain.foundation.errors import ElectrainError, HubError
from electrain.foundation.hub import reason_of
from electrain.foundation.output_folder import EXPORT_NAME
from electrain.foundation.sums import SUMS_NAME

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# Files of an earlier model that would be read beside those of the new one. Others, such as pictures, are left alone.
_OF_MODELS = (".safetensors", ".json", ".onnx", ".data", ".bin", ".jinja")
# The further networks of a pretraining run.
_NETWORKS = ("detector", "correction", "electric", "generator")


def folders_of(source: Path) -> dict[str, Path]:
    """The folders to put into a repository, by their place there: "" is its root.

    Args: source: a run, whose `model/` becomes the root and whose other networks become folders; or a model folder or
        an exported folder, which becomes the root.
    Raises: HubError: it is neither.
    """
    root = source / "model" if (source / "model").is_dir() else source
    if not any((root / name).is_file() for name in ("config.json", EXPORT_NAME)):
        raise HubError(f"{source}: holds neither model/ nor config.json; give a finished run, or the folder of a model")
    folders = {"": root}
    if root != source:
        folders |= {name: source / name for name in _NETWORKS if (source / name / "config.json").is_file()}
    return folders


def require_repository(repository: str, card: str = "", *, public: bool = False) -> None:
    """Makes sure, before hours of work, that they can be pushed: makes the repository if there is none.

    Args:
        repository: OWNER/NAME.
        card: a model card whose metadata the hub is asked about; "" asks nothing.
        public: a repository that is made here can be read by everybody.
    Raises: HubError: the name or token is wrong, the token may not write there, the hub cannot be reached or refuses
        the metadata.
    """
    from huggingface_hub import HfApi, ModelCard, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise HubError(f"{repository}: is no name of a repository ({reason_of(error)}); give OWNER/NAME") from error
    if str(repository).count("/") != 1:
        raise HubError(f"{repository}: is no name of a repository; give OWNER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{repository}: cannot be pushed to, since HF_HUB_OFFLINE is set; unset it, or push later")
    if get_token() is None:
        raise HubError(f"{repository}: no token of the hub is known here; run `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    with _in_one_line(repository):
        api.whoami()
        try:
            api.create_repo(repository, private=not public)
        except HfHubHTTPError as error:
            # 409: it is there. 403: the token may make none, but may still be allowed to write into this one.
            if error.response.status_code not in (403, 409):
                raise
            _require_writable(api, repository)
        if card:
            try:
                ModelCard(card).validate()
            except ValueError as error:
                told = " ".join(str(error).split())[:300]
                raise HubError(
                    f"{repository}: the hub refuses the metadata ({told}); correct --card.language and the "
                    f"like, or {CARD_NAME}"
                ) from error


def _require_writable(api: "HfApi", repository: str) -> None:
    try:
        api.auth_check(repository, write=True)
    except TypeError:  # an older huggingface_hub asks about reading only
        api.auth_check(repository)


def push_folder(source: Path, repository: str, *, public: bool = False) -> str:
    """Puts a run, a model folder or an exported folder into a repository, in one commit, and returns its address.

    Args: repository, public: as of `require_repository`, which is called first.
    Raises: HubError: the folder is none of these, or the hub does not take it. Nothing on this machine is changed.
    """
    folders = folders_of(source)
    card = folders[""] / CARD_NAME
    require_repository(repository, card.read_text("utf-8", "replace") if card.is_file() else "", public=public)
    with _in_one_line(repository):
        return _commit(folders, repository)


def _commit(folders: Mapping[str, Path], repository: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    api, files = HfApi(), dict(_files(folders))
    places = set(folders) | set(_NETWORKS)
    stale = [
        name
        for name in api.list_repo_files(repository)
        if name not in files
        and name.rpartition("/")[0] in places
        and (name.endswith(_OF_MODELS) or name.endswith(SUMS_NAME))
    ]
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()
    ]
    operations += [CommitOperationDelete(path_in_repo=name) for name in stale]
    api.create_commit(repository, operations, commit_message="Add the model with electrain")
    return f"{api.endpoint}/{repository}"


def _files(folders: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Each file with its place in the repository; hidden ones, and what only this machine needs, are left out."""
    for place, folder in folders.items():
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if path.is_file() and not any(part.startswith(".") for part in parts):
                yield "/".join([*([place] if place else []), *parts]), path


@contextmanager
def _in_one_line(repository: str) -> Iterator[None]:
    """Turns whatever the client of the hub raises into a HubError that says what to do."""
    import logging as levels
    import warnings

    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(levels.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ElectrainError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        known = {
            401: "the hub does not know the token; run `hf auth login`, or set HF_TOKEN",
            403: "the token may not write there; give a token that may, or a repository of your own",
            404: "the hub has no such owner or repository, or the token may not see it; check the name",
            413: "the hub finds a file too large; push a smaller model",
            429: "the hub asks to slow down; push again later",
        }
        told = known.get(status) or f"the hub answers with status {status}; push again later"
        raise HubError(f"{repository}: {told}") from error
    except ValueError as error:  # what the hub says of a file; the reasons are on the lines after the first
        told = " ".join(str(error).split())[:300].rstrip(".")
        raise HubError(f"{repository}: the hub refuses the files ({told}); push again later") from error
    except Exception as error:  # without a network, the exception depends on the HTTP library
        told = " ".join(str(error).split())[:150] or type(error).__name__
        raise HubError(f"{repository}: the hub cannot be reached ({told}); push again later") from error
    finally:
        logging.set_verbosity(verbosity)


def how_to_push_again(source: Path, repository: str) -> str:
    """The command that pushes what a finished run could not."""
    return f"electrain push {shlex.quote(str(source))} --to {shlex.quote(repository)}"
