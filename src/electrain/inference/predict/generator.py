"""What the generator does: writing on from a text, and, step by step, what corruption makes of one."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from electrain.data.shards.randomness import below_one, random_uniforms
from electrain.data.shards.rows import PackedBatch
from electrain.data.tokenizer.chinese_words import word_beginnings
from electrain.data.tokenizer.plain_text import encode_plain, plain_ids
from electrain.data.tokenizer.tokenizer import FRAME, continues_word, load_tokenizer
from electrain.foundation.configuration import require_at_least, require_fraction
from electrain.foundation.errors import CheckpointError, ConfigurationError, DataError
from electrain.foundation.output_folder import CONFIGURATION_NAME, read_manifest
from electrain.inference.model import LoadedModel, load_language_model, proposed_word_logits
from electrain.models.backbones import backbone_of
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretrain.configuration import PretrainConfig, load_configuration
from electrain.pretrain.objectives.detection_batches import detection_micro_batch
from electrain.pretrain.objectives.masking import CorruptionConfig, mask_batch
from electrain.pretrain.objectives.sampling import place_words, sample_words
from electrain.pretrain.objectives.writing import write_passages
from electrain.training.objective import MicroBatch


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
            temperature=temperature,
            top_p=top_p,
            never=_frame_ids(writer.tokenizer),
        )[0, 1 + len(ids) :].tolist()
        yield {
            "text": text,
            "written": writer.tokenizer.decode(written, skip_special_tokens=True),
            "tokens": writer.tokenizer.convert_ids_to_tokens(written),
        }


def predict_corrupt(
    model: Path | str, texts: Iterable[str], *, seed: int = 0, device: str | None = None
) -> Iterator[dict[str, Any]]:
    """For each text, in order, every step of what pretraining did to the run's rows.

    Args:
        model: a run folder.
        seed: of masks and samples; the number of the text decides too.
    Yields: {"text", "steps": [{"step", "tokens", "changed"}], "is_replaced"}; `changed` numbers the tokens that the
        step changed; `is_replaced` is what the discriminator is to find out of each token of the last step. Special
        tokens are left out.
    Raises: CheckpointError: not a run of replaced token detection. DataError: a text without a word, or too long.
    """
    if not (Path(model) / CONFIGURATION_NAME).is_file():
        raise CheckpointError(
            f"{model}: is no run folder; give the folder that pretrain wrote, which says how it did it"
        )
    config = load_configuration(str(Path(model) / CONFIGURATION_NAME))
    if config.training.objective != "replaced-token-detection":
        raise CheckpointError(
            f"{model}: a run of {config.training.objective}, which has no generator; give another run"
        )
    generator = None if config.generator.kind == "unigram" else load_language_model(model, device=device)
    tokenizer = _tokenizer_of(model, generator)
    takes_words = config.corruption.noise != "random" and read_manifest(Path(model), "run").facts.get("has_words")
    for number, text in enumerate(texts):
        encoded = encode_plain(tokenizer, [text], add_special_tokens=False, return_offsets_mapping=True)
        ids = encoded["input_ids"][0]
        longest = config.data.sequence_length - 2
        if not 0 < len(ids) <= longest:
            raise DataError(
                f"text {number + 1} ('{text.strip()[:40]}'): has {len(ids)} tokens; give one with 1 to {longest}"
            )
        begins = None
        if takes_words:  # as the shards' rows have them
            starts = [start for start, _ in encoded["offset_mapping"][0]]
            begins = word_beginnings(text, tokenizer.convert_ids_to_tokens(ids), starts)
        packed = _packed(ids, begins, tokenizer, number)
        yield {"text": text, **_steps(packed, config, generator, tokenizer, Path(model), seed)}


def _steps(
    packed: PackedBatch, config: PretrainConfig, generator: LoadedModel | None, tokenizer: Any, run: Path, seed: int
) -> dict[str, Any]:
    """The corruption of one row, as tokens after each step."""
    corruption = config.corruption
    batch = _micro_batch(packed, config, tokenizer, seed)
    rows, written = batch.tensors, batch.tensors.get("is_written")
    shown: list[tuple[str, torch.Tensor]] = [("the text", rows["token_ids"])]
    if written is not None and bool(written.any()):
        assert generator is not None
        given = (x.to(generator.device) for x in (rows["token_ids"], written, rows["writing_uniforms"]))
        passage = write_passages(
            generator.model,
            *given,
            temperature=config.generator.temperature,
            top_p=corruption.top_p,
            never=_frame_ids(tokenizer),
        )
        packed = replace(packed, token_ids=passage.cpu().numpy())
        batch = _micro_batch(packed, config, tokenizer, seed)
        rows = batch.tensors
        shown.append(("written on by the generator", rows["token_ids"]))
    base = rows["token_ids"] if rows["base_ids"] is None else rows["base_ids"]
    if rows["base_ids"] is not None:
        shown.append(("words moved", base))
    positions, chosen = rows["positions"], rows["is_selected"]
    if generator is not None and generator.kind == "masked-language-model":
        shown.append(("what the generator reads", rows["masked_ids"]))
    words = _proposals(rows, config, generator, run, tokenizer)
    if rows["is_missing"] is not None:
        words = torch.where(rows["is_missing"], tokenizer.mask_token_id, words)
    placed = chosen if rows["is_kept"] is None else chosen & ~rows["is_kept"]
    seen = place_words(base, positions, placed, words)
    shown.append(("what the discriminator reads", seen))
    is_replaced = seen != rows["token_ids"]
    if rows.get("is_written") is not None:
        is_replaced |= rows["is_written"]
    steps = [
        {
            "step": name,
            "tokens": tokenizer.convert_ids_to_tokens(ids[0, 1:-1].tolist()),
            "changed": torch.nonzero(ids[0, 1:-1] != before[0, 1:-1]).flatten().tolist(),
        }
        for (name, ids), (_, before) in zip(shown, [shown[0], *shown[:-1]], strict=True)
    ]
    return {"steps": steps, "is_replaced": is_replaced[0, 1:-1].tolist()}


def _micro_batch(packed: PackedBatch, config: PretrainConfig, tokenizer: Any, seed: int) -> MicroBatch:
    corruption: CorruptionConfig = config.corruption
    masked = mask_batch(
        packed,
        corruption.masked_fraction,
        seed,
        mask_id=tokenizer.mask_token_id,
        noise=corruption.noise,
        span_words=corruption.span_words,
        continues_word=continues_word(tokenizer),
    )
    return detection_micro_batch(masked, config.discriminator, corruption, seed, with_padding=False)


@torch.inference_mode()
def _proposals(
    rows: dict[str, Any], config: PretrainConfig, generator: LoadedModel | None, run: Path, tokenizer: Any
) -> torch.Tensor:
    """(1, selected) int64: the words drawn."""
    positions, choice = rows["positions"], config.generator
    if generator is None:
        counts = np.load(run / "unigram_counts.npy", allow_pickle=False)
        drawer = UnigramGenerator(counts, choice.clusters, choice.temperature, _frame_ids(tokenizer))
        return drawer.draw(rows["token_ids"].gather(1, positions), rows["uniforms"])
    token_ids, masked_ids, types, at = (
        rows[name].to(generator.device) for name in ("token_ids", "masked_ids", "token_type_ids", "positions")
    )
    logits = proposed_word_logits(generator, token_ids, masked_ids, types, None, at)
    return sample_words(logits.cpu(), rows["uniforms"], choice.temperature)


def _load_writer(model: Path | str, device: str | None) -> LoadedModel:
    found = load_language_model(model, device=device)
    backbone = backbone_of(found.model.config)
    if backbone is None or not backbone.is_causal:
        raise CheckpointError(
            f'{found.source}: is no GPT-2 and cannot write on; pretrain with [generator] kind = "causal"'
        )
    return found


def _tokenizer_of(model: Path | str, generator: LoadedModel | None) -> Any:
    if generator is not None:
        return generator.tokenizer
    return load_tokenizer(Path(model) / "tokenizer")


def _frame_ids(tokenizer: Any) -> list[int]:
    """Of the special tokens that stand for nothing in a text, as far as the tokenizer has them."""
    ids = (getattr(tokenizer, f"{kind}_token_id") for kind in FRAME)
    return sorted({number for number in ids if number is not None})


def _packed(ids: list[int], begins: NDArray[np.bool_] | None, tokenizer: Any, number: int) -> PackedBatch:
    row = np.array([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]], np.int64)
    is_special = np.zeros(row.shape, np.bool_)
    is_special[:, [0, -1]] = True
    is_real = np.ones(row.shape, np.bool_)
    begins_word = None if begins is None else np.pad(begins, 1, constant_values=True)[None]
    return PackedBatch(row, np.zeros_like(row), is_real, is_special, np.array([number], np.int64), begins_word)


def _uniforms(draws: NDArray[np.float64], model: LoadedModel) -> torch.Tensor:
    return torch.from_numpy(below_one(draws)).to(model.device)


def _require(name: str, value: float, least: float) -> None:
    try:
        require_at_least(name, value, least)
    except ValueError as error:
        raise ConfigurationError(f"predict generate: {error}") from error
