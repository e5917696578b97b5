"""How a causal generator continues a text."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from electrain.data.shards.randomness import below_one, random_uniforms
from electrain.data.tokenizer.plain_text import plain_ids
from electrain.data.tokenizer.tokenizer import FRAME
from electrain.foundation.configuration import require_at_least, require_fraction
from electrain.foundation.errors import CheckpointError, ConfigurationError, DataError
from electrain.inference.model import LoadedModel, load_language_model
from electrain.models.backbones import backbone_of
from electrain.pretrain.objectives.writing import Sampling, write_passages


def predict_generate(
    model: Path | str,
    texts: Iterable[str],
    *,
    tokens: int = 40,
    temperature: float = 1.0,
    top_p: float = 0.95,
    seed: int = 0,
    device: str | None = None,
) -> Iterator[dict[str, Any]]:
    """For each text, in order, how the causal generator writes on.

    Args:
        model: a run folder with a causal generator, or the folder of one.
        tokens: to write; fewer where the model's longest row is reached.
        temperature, top_p: see `electrain.pretrain.objectives.writing`.
        seed: of the words drawn; the number of the text decides too.
    Yields: {"text", "written", "tokens"}: the text, what follows it, and the tokens of that.
    Raises: CheckpointError: no causal generator. DataError: a text leaves no room. ConfigurationError: a number is off.
    """
    writer = _load_writer(model, device)
    _require("tokens", tokens, 1)
    _require("temperature", temperature, 0.01)
    try:
        require_fraction("top_p", top_p, may_be_one=True)
    except ValueError as error:
        raise ConfigurationError(f"predict generate: {error}") from error
    for number, text in enumerate(texts):
        ids = plain_ids(writer.tokenizer, [text])[0]
        room = min(tokens, writer.longest_row - 1 - len(ids))
        if room < 1:
            raise DataError(
                f"text {number + 1} ('{text.strip()[:40]}'): has {len(ids)} tokens, the model takes rows of "
                f"{writer.longest_row}; give a shorter beginning"
            )
        row = torch.tensor([[writer.tokenizer.cls_token_id, *ids, *[0] * room]], device=writer.device)
        can_write = torch.zeros_like(row, dtype=torch.bool)
        can_write[:, 1 + len(ids) :] = True
        draws = random_uniforms(seed, "predict generate", np.array([number]), row.shape[1])
        written = write_passages(
            writer.model,
            row,
            can_write,
            _uniforms(draws, writer),
            Sampling(temperature, top_p, _frame_ids(writer.tokenizer)),
        )[0, 1 + len(ids) :].tolist()
        yield {
            "text": text,
            "written": writer.tokenizer.decode(written, skip_special_tokens=True),
            "tokens": writer.tokenizer.convert_ids_to_tokens(written),
        }


def _load_writer(model: Path | str, device: str | None) -> LoadedModel:
    found = load_language_model(model, device=device)
    backbone = backbone_of(found.model.config)
    if backbone is None or not backbone.is_causal:
        raise CheckpointError(
            f'{found.source}: is no GPT-2 and cannot write on; pretrain with [generator] kind = "causal"'
        )
    return found


def _frame_ids(tokenizer: Any) -> list[int]:
    """Of the special tokens that stand for nothing in a text, as far as the tokenizer has them."""
    ids = (getattr(tokenizer, f"{kind}_token_id") for kind in FRAME)
    return sorted({number for number in ids if number is not None})


def _uniforms(draws: NDArray[np.float64], model: LoadedModel) -> torch.Tensor:
    return torch.from_numpy(below_one(draws)).to(model.device)


def _require(name: str, value: float, least: float) -> None:
    try:
        require_at_least(name, value, least)
    except ValueError as error:
        raise ConfigurationError(f"predict generate: {error}") from error
