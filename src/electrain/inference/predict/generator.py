"""Continues texts with a causal generator."""

from collections.abc import Iterable, Iterator

import numpy as np

from electrain.data.shards.row_hashes import random_uniforms
from electrain.data.tokenizer.plain_text import cleaner_for, plain_ids
from electrain.data.tokenizer.tokenizer import frame_ids
from electrain.foundation.configuration import require_at_least, require_fraction
from electrain.foundation.errors import ConfigurationError, DataError
from electrain.foundation.progress import counted
from electrain.inference.answers import WrittenText
from electrain.inference.network import Writer

# The largest float32 below 1. Rounding makes 1 of some larger numbers, for which there would be no word.
_MOST = 1 - 2.0**-24


def predict_generate(
    writer: Writer,
    texts: Iterable[str],
    *,
    tokens: int = 40,
    temperature: float = 1.0,
    top_p: float = 0.95,
    seed: int = 0,
) -> Iterator[WrittenText]:
    """For each text, in order, its continuation by the causal generator.

    Args:
        writer: see `load_language_model`.
        tokens: number of tokens to write; fewer if the model's longest row ends before.
        temperature, top_p: see `electrain.pretraining.objectives.writing.Sampling`.
        seed: decides the words drawn, together with the number of the text.
    Raises: CheckpointError: no causal generator. DataError: a text leaves no room. ConfigurationError: a setting is
        out of range.
    """
    tokenizer = writer.tokenizer
    try:
        require_at_least("tokens", tokens, 1)
        require_at_least("temperature", temperature, 0.01)
        require_fraction("top_p", top_p, may_be_one=True)
    except ValueError as error:
        raise ConfigurationError(f"predict generate: {error}") from error
    never = sorted(frame_ids(tokenizer))
    for number, text in enumerate(texts):
        ids = plain_ids(tokenizer, [cleaner_for(tokenizer)(text)])[0]
        room = min(tokens, writer.longest_row - 1 - len(ids))
        if room < 1:
            raise DataError(
                f"text {number + 1} ('{text.strip()[:40]}'): has {counted(len(ids), 'token')}, the model takes rows of "
                f"{writer.longest_row}; give a shorter beginning"
            )
        beginning = [tokenizer.cls_token_id, *ids]
        draws = random_uniforms(seed, "predict generate", np.array([number]), len(beginning) + room)[0]
        uniforms = np.minimum(draws[len(beginning) :].astype(np.float32), np.float32(_MOST))
        written = writer.continuation(beginning, uniforms, temperature, top_p, never)
        shown = tokenizer.decode(written, skip_special_tokens=True)
        yield WrittenText(text, shown, tuple(tokenizer.convert_ids_to_tokens(written)))
