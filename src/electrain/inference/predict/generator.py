"""Continues texts with a causal generator."""

from collections.abc import Iterable, Iterator

import torch

from electrain.data.shards.randomness import below_one, row_uniforms
from electrain.data.tokenizer.plain_text import cleaner_for, plain_ids
from electrain.data.tokenizer.tokenizer import FRAME
from electrain.foundation.configuration import require_at_least, require_fraction
from electrain.foundation.errors import CheckpointError, ConfigurationError, DataError
from electrain.inference.answers import WrittenText
from electrain.inference.model import LoadedModel
from electrain.models.backbones import backbone_of
from electrain.pretraining.objectives.writing import Sampling, write_passages


def predict_generate(
    writer: LoadedModel,
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
    tokenizer, backbone = writer.tokenizer, backbone_of(writer.model.config)
    if backbone is None or not backbone.is_causal:
        raise CheckpointError(
            f'{writer.source}: is no GPT-2 and cannot write on; pretrain with [generator] kind = "causal"'
        )
    try:
        require_at_least("tokens", tokens, 1)
        require_at_least("temperature", temperature, 0.01)
        require_fraction("top_p", top_p, may_be_one=True)
    except ValueError as error:
        raise ConfigurationError(f"predict generate: {error}") from error
    frame = {getattr(tokenizer, f"{kind}_token_id") for kind in FRAME}  # the tokenizer of a GPT-2 lacks some of them
    sampling = Sampling(temperature, top_p, sorted(number for number in frame if number is not None))
    for number, text in enumerate(texts):
        ids = plain_ids(tokenizer, [cleaner_for(tokenizer)(text)])[0]
        room = min(tokens, writer.longest_row - 1 - len(ids))
        if room < 1:
            raise DataError(
                f"text {number + 1} ('{text.strip()[:40]}'): has {len(ids)} tokens, the model takes rows of "
                f"{writer.longest_row}; give a shorter beginning"
            )
        row = torch.tensor([[tokenizer.cls_token_id, *ids, *[0] * room]], device=writer.device)
        can_write = torch.zeros_like(row, dtype=torch.bool)
        can_write[:, 1 + len(ids) :] = True
        draws = row_uniforms(seed, "predict generate", torch.tensor([number]), row.shape[1])
        uniforms = below_one(draws).to(writer.device)
        written = write_passages(writer.model, row, can_write, uniforms, sampling)[0, 1 + len(ids) :].tolist()
        shown = tokenizer.decode(written, skip_special_tokens=True)
        yield WrittenText(text, shown, tuple(tokenizer.convert_ids_to_tokens(written)))
