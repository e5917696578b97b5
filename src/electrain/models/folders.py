"""Hugging Face folders and hub ids: configuration, weights and tokenizer, or one line saying why not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from electrain.data.tokenizer.tokenizer import load_tokenizer
from electrain.foundation.errors import CheckpointError, ElectrainError, TokenizerError
from electrain.foundation.hub import reading_options, reason_of


def configuration_of(source: str) -> PretrainedConfig:
    """The Hugging Face configuration of a model's folder, or of the hub's model.

    Raises: CheckpointError: none, or one that only the model's own Python code can read.
    """
    options = reading_options(source)
    with one_line(source, "its config.json cannot be used"):
        configuration = AutoConfig.from_pretrained(source, **options)
    # The two networks of an encoder-decoder are built from their parts of it, which may name code too.
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
    """A network with every weight from a model's folder, or of the hub's model, in float32.

    Args:
        model_class: of transformers; an `AutoModel` too.
        role: what the network must be, for messages.
        configuration: in place of the folder's own.
        may_be_new: from the network and the name of a weight to whether that may start from random numbers, where the
            folder has none or one of another shape.
    Raises: CheckpointError: no weights, damaged ones, of other shapes, or too few.
    """
    if Path(source).is_dir() and not list(Path(source).glob("*.safetensors")):
        raise CheckpointError(f"{source}: holds no weights (*.safetensors); give a finished run, or save it as such")
    configuration, options = configuration or configuration_of(source), reading_options(source)
    with one_line(source, "its weights cannot be used"):
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
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise CheckpointError(f"{source}: is no {role}: its weights lack {absent[0]}{more}; give another folder")
    return model


def tokenizer_of(
    source: str, vocabulary_size: int, configuration: PretrainedConfig | None = None
) -> PreTrainedTokenizerFast:
    """The fast tokenizer in a model's folder, or of the hub's model.

    Args:
        vocabulary_size: of the model: the tokenizer's ids must be below it.
        configuration: the model's, where it has been read: config.json is then not read again.
    Raises: TokenizerError: not the model's own.
    """
    tokenizer = load_tokenizer(Path(source), configuration)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary_size:
        raise TokenizerError(
            f"{source}: its tokenizer numbers tokens up to {largest}, its model knows {vocabulary_size}; "
            "put the model's own tokenizer there"
        )
    return tokenizer


def is_of_a_pooler(model: PreTrainedModel, name: str) -> bool:
    """For `weights_of`: released BERTs have a pooler or none, and nothing here reads it."""
    del model
    return "pooler." in name


@contextmanager
def one_line(source: str, what: str, kind: type[ElectrainError] = CheckpointError) -> Iterator[None]:
    """Silences transformers, and turns any failure to read `source` into one line."""
    verbosity = transformers_logging.get_verbosity()
    had_progress_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise kind(f"{source}: {what} ({reason_of(error)}); give another folder") from error
    except Exception as error:  # tokenizers raises the bare class
        if type(error) is not Exception:
            raise
        raise kind(f"{source}: {what} ({reason_of(error)}); give another folder") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_progress_bar:
            transformers_logging.enable_progress_bar()
