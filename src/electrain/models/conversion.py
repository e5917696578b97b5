"""Turns a model folder whose weights are pickles (`pytorch_model.bin`) into one that every verb reads."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel

from electrain.foundation.errors import CheckpointError
from electrain.foundation.hub import reason_of
from electrain.foundation.json_reading import read_json
from electrain.foundation.output_folder import replaced_directory, require_empty
from electrain.foundation.progress import say
from electrain.foundation.sums import write_sums
from electrain.models.folders import is_of_a_pooler, pickled_weights, require_no_pointer, weights_of

_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
_INDEX_NAME = "pytorch_model.bin.index.json"
# What a folder holds besides weights and code: configurations, vocabularies, merges, SentencePiece models.
_COPIED = (".json", ".txt", ".model", ".md", ".jinja", ".vocab", ".bpe", ".codes")
# Buffers of older libraries: they can be computed, and no network has them any more.
_BUFFERS = ("position_ids", "embeddings.token_type_ids")


def convert_weights(source: Path, output: Path) -> dict[str, int]:
    """Writes `output`, a folder with the weights of `source` as safetensors and all other files of the model.

    The pickles are read with `weights_only`, which runs no code of theirs.

    Returns: the numbers of weights and of parameters.
    Raises: CheckpointError: `source` is no such folder, its weights cannot be read, or they are not those of its
        config.json. RunDirectoryError: `output` is not empty.
    """
    if not source.is_dir():
        raise CheckpointError(f"{source}: no such folder; give that of a model, downloaded with `hf download` or saved")
    if not (source / "config.json").is_file():
        raise CheckpointError(f"{source}: holds no config.json; give the folder of a model with its pytorch_model.bin")
    if list(source.glob("*.safetensors")):
        raise CheckpointError(f"{source}: holds its weights as safetensors already; every verb reads it as it is")
    if not pickled_weights(source):
        raise CheckpointError(f"{source}: holds no pytorch_model.bin; give the folder of a model with its weights")
    if output.exists():
        require_empty(output)
    weights = _named_as_today(_read_all(source))
    with replaced_directory(output) as temporary:
        for path in sorted(source.iterdir()):
            if path.is_file() and path.suffix in _COPIED and path.name != _INDEX_NAME and not path.name.startswith("."):
                shutil.copyfile(path, temporary / path.name)
        save_file(_apart(weights), temporary / "model.safetensors", metadata={"format": "pt"})
        try:
            weights_of(str(temporary), AutoModel, "network of its config.json", may_be_new=is_of_a_pooler)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(temporary), str(source))) from error
        write_sums(temporary)
        has_tokenizer = any(path.name in _TOKENIZERS or path.suffix == ".model" for path in temporary.iterdir())
    if not has_tokenizer:
        say(f"{output}: holds no tokenizer, as {source} holds none; put the model's tokenizer.json or vocab.txt there")
    return {"weights": len(weights), "parameters": sum(tensor.numel() for tensor in weights.values())}


def _read_all(source: Path) -> dict[str, Tensor]:
    index = source / _INDEX_NAME
    names = ["pytorch_model.bin"]
    if index.is_file():
        listed = read_json(index, dict[str, object], CheckpointError).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
            raise CheckpointError(f"{index}: names no files of weights; copy the folder again")
        names = sorted(set(listed.values()))
    weights: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index}: names a file outside its folder ({name}); copy the folder again")
        weights |= _read(source / name)
    return weights


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of one pickle, by their names."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, though the folder's index names it; copy the folder again")
    require_no_pointer(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever reading it comes upon
        if type(error).__name__ == "UnpicklingError":
            why = "it holds more than weights, which could run code when it is read"
        else:
            why = reason_of(error)
        raise CheckpointError(f"{path}: cannot be converted ({why}); give another copy of the model") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    named = content.items() if isinstance(content, dict) else []
    found = {name: value for name, value in named if isinstance(value, Tensor)}
    if not found:
        raise CheckpointError(f"{path}: holds no weights by name; give the folder of a saved model")
    return found


def _named_as_today(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the buffers of older libraries; transformers knows the other names of those itself."""
    if all(name.startswith("module.") for name in weights):  # saved from several GPUs
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return {name: value for name, value in weights.items() if not name.endswith(_BUFFERS)}


def _apart(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with a memory of their own each: safetensors refuses tied ones, and views of a larger tensor."""
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
