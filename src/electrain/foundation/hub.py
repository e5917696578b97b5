"""Reads models from a folder or the Hugging Face hub, without repeated requests and without running their code."""

import functools
import os
import re
from pathlib import Path
from typing import Any

from electrain.foundation.errors import CheckpointError, ElectrainError, first_line

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_TIMEOUT_SECONDS = 5.0
_CACHED_FILES = ("config.json", "tokenizer_config.json")


def reading_options(source: str, kind: type[ElectrainError] = CheckpointError) -> dict[str, Any]:
    """The options of every `from_pretrained` of a folder, or of `owner/name` on the hub.

    Raises: CheckpointError, or `kind`: there is no such folder, and no such model on the hub.
    """
    # Without `trust_remote_code`, transformers asks on standard input, where a text to predict may answer "yes" and run
    # the model's own Python code. Without `local_files_only`, it repeats its requests for a folder that is missing.
    return {"trust_remote_code": False, "local_files_only": _is_read_locally(source, kind)}


def is_hub_name(source: str) -> bool:
    """True if `source` could be a model on the hub, OWNER/NAME, and is no existing path."""
    return bool(_HUB_NAME.fullmatch(source)) and not Path(source).exists()


def require_name(model: object) -> None:
    """Raises CheckpointError unless `model` is a path or a text that is not blank."""
    if not isinstance(model, str | os.PathLike) or not str(model).strip():
        shown = " ".join(repr(model).split())[:60]
        raise CheckpointError(f"model: {shown} is no name; give a folder, or a model of the hub as OWNER/NAME")


def require_source(source: str, kind: type[ElectrainError] = CheckpointError) -> None:
    """Raises `kind` unless `source` is an existing path or could be a model on the hub. Makes no request."""
    if not Path(source).exists() and not is_hub_name(source):
        raise kind(
            f"{source}: no such folder; give the folder of a run or of a model, or a model of the hub as OWNER/NAME"
        )


def reason_of(error: BaseException) -> str:
    """The reason why transformers cannot read a folder, in one line."""
    if "trust_remote_code" in str(error):
        return "it needs Python code of the model's own, which electrain never runs"
    told = first_line(error) or type(error).__name__
    if told.endswith(":"):  # the reason itself is on the next lines
        told = " ".join(str(error).split())
    return told.rstrip(".")[:200]


def _is_read_locally(source: str, kind: type[ElectrainError]) -> bool:
    require_source(source, kind)
    if Path(source).exists():
        return True
    from huggingface_hub import constants, try_to_load_from_cache

    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _why_not_from_the_hub(source)
    if not why:
        return False
    # A copy that was downloaded before serves without the hub.
    if any(isinstance(try_to_load_from_cache(source, name), str) for name in _CACHED_FILES):
        return True
    raise kind(f"{source}: no such folder, and no copy of a model of that name on this machine ({why}); give a folder")


@functools.cache
def _why_not_from_the_hub(name: str) -> str:
    """The reason why the hub does not give a model; "" if it does. One short request per name, without retries."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(name, _CACHED_FILES[0]), timeout=_TIMEOUT_SECONDS)
    except EntryNotFoundError:  # the hub has the model, but not this file
        return ""
    except GatedRepoError:
        return "its owner on the hub must first grant you access"
    except RepositoryNotFoundError:
        return "the hub knows no such model"
    except HfHubHTTPError as error:
        return f"the hub answers with status {error.response.status_code}"
    except Exception as error:  # without a network, the exception depends on the HTTP library
        return f"the hub cannot be reached: {' '.join(str(error).split())[:100] or type(error).__name__}"
    return ""
