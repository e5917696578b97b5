"""Reads the configuration, the weights and the tokenizer of a Hugging Face folder or a hub id."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from electrain.data.tokenizer.tokenizer import load_tokenizer
from electrain.foundation.errors import CheckpointError, ElectrainError, TokenizerError
from electrain.foundation.hub import reading_options, reason_of
from electrain.foundation.json_reading import parse_json_file
from electrain.foundation.progress import say
from electrain.foundation.sums import verify_sums
from electrain.models.backbones import backbone_of

# The names that the families of networks have for their sizes.
_LAYERS = ("num_hidden_layers", "num_hidden_groups", "num_layers", "n_layer", "n_layers", "encoder_layers")
_SIZES = ("vocab_size", "hidden_size", "embedding_size", "intermediate_size", "type_vocab_size", "n_embd", "n_inner")
_POSITIONS = ("max_position_embeddings", "n_positions")
MOST_LAYERS = 1000
_LFS_POINTER = b"version https://git-lfs"
MOST_POSITIONS = 1 << 20  # rotary positions have no weights, so their number can be larger than any of them


def configuration_of(source: str) -> PretrainedConfig:
    """The Hugging Face configuration of a model folder or a hub id.

    Raises: CheckpointError: there is none, or only Python code of the model itself can read it.
    """
    options = reading_options(source)
    verify_sums(Path(source), lambda name: not name.endswith(".safetensors"))
    _require_possible(Path(source) / "config.json")
    with one_line(source, "its config.json cannot be used"):
        configuration = AutoConfig.from_pretrained(source, **options)
    # `auto_map` names Python code of the model, which must never run. Without the name nothing can run it
    # later. The two networks of an encoder-decoder have configurations of their own.
    for part in (configuration, getattr(configuration, "encoder", None), getattr(configuration, "decoder", None)):
        if part is not None and hasattr(part, "auto_map"):
            del part.auto_map
    return configuration


def weights_of(
    source: str,
    model_class: type[PreTrainedModel] | type[AutoModel],
    role: str,
    *,
    configuration: PretrainedConfig | None = None,
    may_be_new: Callable[[PreTrainedModel, str], bool] = lambda model, name: False,
) -> PreTrainedModel:
    """A network in float32 with all its weights from a model folder or a hub id.

    Args:
        model_class: a class of transformers, which may be an `AutoModel`.
        role: the kind of network that is needed, for messages.
        configuration: read in place of the folder's own.
        may_be_new: given the network and the name of a weight, True if the weight may start from random numbers when
            the folder lacks it or has it in another shape.
    Raises: CheckpointError: weights are absent, damaged, or of other shapes.
    """
    require_safetensors(source)
    verify_sums(Path(source), lambda name: name.endswith(".safetensors"))
    configuration, options = configuration or configuration_of(source), reading_options(source)
    _require_sizes(Path(source), configuration)
    with _said_how_to_convert(source), one_line(source, "its weights cannot be used"), _NoDrawsWithoutMemory():
        # transformers starts absent weights from random numbers and only warns. So `report` lists the differences, and
        # those that the caller does not expect are refused below.
        model, report = model_class.from_pretrained(
            source,
            **options,
            config=configuration,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    misshapen = sorted(name for name, *_ in report["mismatched_keys"] if not may_be_new(model, name))
    if misshapen:
        raise CheckpointError(
            f"{source}: its weights ({misshapen[0]}) do not have the shapes that its config.json gives; copy the "
            "folder again"
        )
    absent = sorted(name for name in report["missing_keys"] if not may_be_new(model, name))
    backbone = backbone_of(model.config)
    if absent and backbone and absent == [f"{backbone.output_layer}.bias"]:
        say(f"{source}: its weights lack {absent[0]}, which is taken as 0")  # as some generators were released
        absent = []
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise CheckpointError(f"{source}: is no {role}: its weights lack {absent[0]}{more}; give another folder")
    require_finite(model, source)
    return model


def pickled_weights(folder: Path) -> list[Path]:
    """The weights of a model folder that are pickles, as older libraries saved them."""
    return sorted(folder.glob("pytorch_model*.bin"))


def require_safetensors(source: str) -> None:
    """Raises CheckpointError if a folder holds no weights as safetensors; it names the command that makes them."""
    folder = Path(source)
    weights = list(folder.glob("*.safetensors"))
    for path in weights:
        require_no_pointer(path)
    if not folder.is_dir() or weights:
        return
    if pickled := pickled_weights(folder):
        given, made = shlex.quote(source), shlex.quote(f"{source.rstrip('/')}-safetensors")
        raise CheckpointError(
            f"{source}: holds its weights as {pickled[0].name}, a pickle, which could run code when it is read; run "
            f"`electrain convert {given} --output {made}` and give that folder"
        )
    raise CheckpointError(f"{source}: holds no weights (*.safetensors); give a finished run, or save it as such")


def require_no_pointer(path: Path) -> None:
    """Raises CheckpointError for the few bytes that stand for a file where Git LFS has not fetched it."""
    with open(path, "rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(f"{path}: is a pointer to the weights, not the weights; run `git lfs pull` first")


@contextmanager
def _said_how_to_convert(source: str) -> Iterator[None]:
    """Says what to do with a model of the hub that was never saved as safetensors."""
    try:
        yield
    except CheckpointError as error:
        if Path(source).exists() or "safetensors" not in str(error):
            raise
        raise CheckpointError(
            f"{source}: the hub has its weights as pickles only; run `hf download {source} --local-dir FOLDER`, then "
            "`electrain convert FOLDER --output NEW`, and give the new folder"
        ) from error


def _require_possible(path: Path) -> None:
    """Raises CheckpointError for a config.json, if there is one, for which transformers would take hours or fail."""
    if not path.is_file():
        return
    fault, way_out = CheckpointError, "copy the folder again"
    content: object = parse_json_file(path, fault, way_out=way_out)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: damaged (not a JSON object); {way_out}")
    for name, value in _numbers_in(content):
        if name in _LAYERS and value > MOST_LAYERS:
            raise CheckpointError(f"{path}: damaged ({name} = {value}); {way_out}")


def _numbers_in(content: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The whole numbers of a configuration, and of those of an encoder and a decoder inside, with their names."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _numbers_in(value)
        elif isinstance(value, int):
            yield name, value


def _require_sizes(folder: Path, configuration: PretrainedConfig) -> None:
    """Raises CheckpointError if the configuration names a size that no weight of the folder has.

    transformers would make such weights itself, out of all the memory there is.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:  # a hub id
        return
    largest = 0
    with one_line(str(folder), "its weights cannot be used"):
        for path in files:
            with safe_open(path, framework="pt") as file:
                shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
            largest = max(largest, *(size for shape in shapes for size in shape), 0)
    for name, value in _numbers_in(configuration.to_dict()):
        most = max(largest, MOST_POSITIONS) if name in _POSITIONS else largest
        if name in (*_SIZES, *_POSITIONS) and value > most:
            fault = f"damaged ({name} = {value}, and no weight is that large)"
            raise CheckpointError(f"{folder / 'config.json'}: {fault}; copy the folder again")


@torch.no_grad()
def require_finite(model: PreTrainedModel, source: str) -> None:
    """Raises CheckpointError if a weight is NaN or infinite: every answer would be NaN too."""
    for name, weights in model.named_parameters():
        # A sum reads the weights once and makes nothing; that of finite weights can overflow, which is checked then.
        if not bool(weights.sum().isfinite()) and not bool(weights.isfinite().all()):
            raise CheckpointError(
                f"{source}: its weights ({name}) hold numbers that are not finite, so that every answer would be NaN; "
                "give another folder, or the model of an earlier step"
            )


class _NoDrawsWithoutMemory(TorchFunctionMode):
    """Skips random numbers for weights on the device "meta", which hold none.

    transformers lays a network out there before it reads the weights. PyTorch would load sympy, half a second of work,
    to find the shapes of those draws.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        named = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "kaiming_uniform_"):
            tensor = args[0] if args else named.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **named)


def tokenizer_of(
    source: str, vocabulary_size: int, configuration: PretrainedConfig | None = None
) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a model folder or a hub id.

    Args:
        vocabulary_size: of the model; all ids of the tokenizer must be smaller.
        configuration: of the model, if it has been read before; config.json is then not read again.
    Raises: TokenizerError: there is none, or it belongs to another model.
    """
    if pickled_weights(Path(source)):  # said first: such a folder may lack a tokenizer that can be read, too
        require_safetensors(source)
    tokenizer = load_tokenizer(Path(source), configuration)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary_size:
        raise TokenizerError(
            f"{source}: its tokenizer numbers tokens up to {largest}, its model knows {vocabulary_size}; "
            "put the model's own tokenizer there"
        )
    return tokenizer


def is_of_a_pooler(model: PreTrainedModel, name: str) -> bool:
    """For `weights_of`: some released BERTs lack the pooler, and electrain never reads its output."""
    del model
    return "pooler." in name


@contextmanager
def one_line(source: str, what: str) -> Iterator[None]:
    """Turns any failure to read `source` into a CheckpointError, and silences transformers meanwhile."""
    try:
        with quiet_transformers():
            yield
    except ElectrainError:
        raise
    except Exception as error:  # a damaged file raises whatever the code that stumbles over it raises
        raise CheckpointError(f"{source}: {what} ({reason_of(error)}); give another folder") from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Switches off the warnings and progress bars of transformers, and restores them at the end.

    It would warn of every fresh weight, even where one is intended, and report a failure that is told in one line here.
    """
    verbosity, had_progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_progress_bar:
            logging.enable_progress_bar()
