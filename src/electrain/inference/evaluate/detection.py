"""How well a discriminator finds the generator's words in text that neither has seen."""

import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electrain.data.shards.rows import DataConfig, RowSource
from electrain.data.shards.shards import Shards, open_shards, shards_in_memory
from electrain.data.text.corpus import CorpusCounts, CorpusFormat, read_documents
from electrain.data.text.document import Document
from electrain.data.tokenizer.tokenizer import save_tokenizer, tokenizer_hash
from electrain.foundation.configuration import read_toml, require_at_least, require_fraction
from electrain.foundation.errors import CheckpointError, ConfigurationError, TokenizerError
from electrain.foundation.output_folder import CONFIGURATION_NAME, MANIFEST_NAME
from electrain.inference.evaluate.judged_tokens import Corrector, JudgedTokens, judge_rows
from electrain.inference.model import (
    LoadedModel,
    load_detector,
    load_generator,
    load_head,
    load_model,
    require_same_vocabulary,
)
from electrain.pretrain.objectives.detection_metrics import detection_metrics, rank_auc, unigram_auc
from electrain.pretrain.run_folder import heads_of, is_baseline, restores_missing_words

UNIGRAM_COUNTS_NAME = "unigram_counts.npy"
# Of a corpus no more is read than the rows need: a token and the space before it are rarely longer than this.
_CHARACTERS_PER_TOKEN = 12
_BOOTSTRAP_SAMPLES = 200
_RUN_SETTINGS = {
    "masked_fraction": "corruption",
    "temperature": "generator",
    "sequence_length": "data",
    "segments": "data",
}


@dataclass(frozen=True)
class DetectionSettings:
    """What the discriminator is asked about; a run's own configuration overrides these defaults.

    Attributes:
        masked_fraction: of the tokens of a row, those that the generator may replace.
        temperature: of the generator's samples.
        sequence_length: tokens in a row.
        segments: per row, at most 1 or 2.
    """

    masked_fraction: float = 0.15
    temperature: float = 1.0
    sequence_length: int = 128
    segments: int = 2

    def __post_init__(self) -> None:
        require_fraction("masked_fraction", self.masked_fraction)
        require_at_least("temperature", self.temperature, 0.01)
        DataConfig(self.sequence_length, self.segments)


def evaluate_detection(
    model: Path | str,
    data: Sequence[str],
    *,
    generator: Path | str | None = None,
    masked_fraction: float | None = None,
    temperature: float | None = None,
    sequence_length: int | None = None,
    segments: int | None = None,
    rows: int = 512,
    batch_rows: int = 32,
    seed: int = 0,
    text_column: str = "text",
    device: str | None = None,
) -> dict[str, Any]:
    """Precision, recall and AUC of "was this token replaced?" on text, beside what word frequency alone gives.

    The text is packed, masked and sampled by the code that pretraining uses. Every real token counts except [CLS]
    and [SEP], which are never replaced.

    A correction head, or the masked-language-modelling baseline, is asked for the words at the same positions; a model
    that has nothing but that gets no "discriminator" in the result.

    Args:
        model: a run folder; or a model folder or hub name, and then `generator` must be given.
        data: one folder of shards, or corpora as `electrain prepare` takes them, read from their beginning as far as
            `rows` need.
        masked_fraction, temperature, sequence_length, segments: where not given, as the run was trained.
        rows: at most this many.
        seed: of the order of rows, masks, samples, and the bootstrap.
    Returns: JSON-ready; the intervals are 95%, by bootstrap over rows; losses in nats unless their name says bits.
    Raises: DataError, CheckpointError, TokenizerError, ConfigurationError: with one line.
    """
    asked = {
        "masked_fraction": masked_fraction,
        "temperature": temperature,
        "sequence_length": sequence_length,
        "segments": segments,
    }
    settings = _settings(Path(model), asked, rows, batch_rows)
    corrector = _corrector(model, device)
    detector = None if corrector and "detection" not in heads_of(model) else load_detector(model, device=device)
    asked_model = detector or corrector.model  # type: ignore[union-attr]
    sampler = load_generator(model, generator, device=device)
    require_same_vocabulary(asked_model, sampler)
    _require_short_enough(settings, asked_model, sampler)
    counts = _unigram_counts(Path(model), asked_model)
    stream = _stream(data, asked_model, rows * settings.sequence_length * _CHARACTERS_PER_TOKEN, text_column)
    source = RowSource(stream, DataConfig(settings.sequence_length, settings.segments), seed)
    judged = judge_rows(
        detector,
        sampler,
        source,
        rows=min(rows, source.rows_per_epoch),
        batch_rows=batch_rows,
        masked_fraction=settings.masked_fraction,
        temperature=settings.temperature,
        seed=seed,
        corrector=corrector,
    )
    return {
        "task": "detection",
        "settings": {
            "model": str(model),
            "generator": sampler.source,
            "data": list(data),
            **asdict(settings),
            "seed": seed,
        },
        "rows": int(judged.row.max()) + 1,
        "scored_tokens": len(judged.is_replaced),
        "replaced_fraction": float(judged.is_replaced.mean()),
        "discriminator": _discriminator_results(judged) if detector else None,
        "baselines": _baselines(judged, counts),
        "generator": _generator_results(judged),
        "correction": _correction_results(judged),
        "intervals_95": _intervals(judged, counts, seed),
    }


def _corrector(model: Path | str, device: str | None) -> Corrector | None:
    if "correction" in heads_of(model):
        return Corrector(load_head(model, "correction", device=device), restores_missing_words(model))
    if is_baseline(model):
        return Corrector(load_model(model, device=device), restores_missing=True)
    return None


def _settings(run: Path, asked: dict[str, Any], rows: int, batch_rows: int) -> DetectionSettings:
    """The run's own settings, where `run` is a run folder, under those asked for."""
    own: dict[str, Any] = {}
    if (run / CONFIGURATION_NAME).is_file():
        tables = read_toml(run / CONFIGURATION_NAME)
        own = {name: tables.get(section, {}).get(name) for name, section in _RUN_SETTINGS.items()}
    given = {name: value for name, value in own.items() if value is not None}
    given |= {name: value for name, value in asked.items() if value is not None}
    try:
        require_at_least("rows", rows, 1)
        require_at_least("batch_rows", batch_rows, 1)
        return DetectionSettings(**given)
    except ValueError as error:
        raise ConfigurationError(f"evaluate detection: {error}") from error


def _require_short_enough(settings: DetectionSettings, detector: LoadedModel, sampler: LoadedModel) -> None:
    longest = min(detector.longest_row, sampler.longest_row)
    if settings.sequence_length > longest:
        raise ConfigurationError(
            f"sequence_length = {settings.sequence_length}: {detector.source} takes at most {longest} tokens; lower it"
        )


def _stream(data: Sequence[str], detector: LoadedModel, characters: int, text_column: str) -> Shards:
    """The tokens of a folder of shards, or of the beginning of corpora."""
    if len(data) == 1 and (Path(data[0]) / MANIFEST_NAME).is_file():
        shards = open_shards(Path(data[0]), verify=False)
        if shards.tokenizer_hash != tokenizer_hash(detector.tokenizer):
            raise TokenizerError(
                f"{data[0]}: made with another tokenizer than that of {detector.source}; "
                "give the text itself, or shards prepared with that tokenizer"
            )
        return shards
    documents = _beginning(read_documents(data, CorpusFormat(text_column), counts=CorpusCounts()), characters)
    with tempfile.TemporaryDirectory() as folder:  # a model from the hub has no folder of its own
        save_tokenizer(detector.tokenizer, Path(folder))
        return shards_in_memory(documents, Path(folder))


def _beginning(documents: Iterable[Document], characters: int) -> Iterator[Document]:
    """Documents, or their pieces, until they hold `characters`; the last one ends there."""
    taken = 0
    for document in documents:
        taken += len(document.text)
        yield Document(document.text, document.source, document.continues and taken < characters)
        if taken >= characters:
            return


def _unigram_counts(run: Path, detector: LoadedModel) -> NDArray[np.int64] | None:
    """(vocabulary,) int64: how often each token stood in the training text; None where the folder does not say."""
    path = run / UNIGRAM_COUNTS_NAME
    if not path.is_file():
        return None
    try:
        counts: NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy it again, or remove it") from error
    if counts.ndim != 1 or len(counts) < len(detector.tokenizer):
        raise CheckpointError(
            f"{path}: has {counts.size} counts, not one for each of the tokenizer's tokens; remove it"
        )
    return np.pad(counts, (0, max(0, detector.model.config.vocab_size - len(counts))))


def _discriminator_results(judged: JudgedTokens) -> dict[str, Any]:
    metrics = detection_metrics(judged.logits, judged.is_replaced)
    signed = np.where(judged.is_replaced, -judged.logits, judged.logits).astype(np.float64)
    return {
        "precision": metrics.precision,
        "recall": metrics.recall,
        "f1": metrics.f1,
        "auc": _finite(metrics.auc),
        "log_loss": float(np.logaddexp(0, signed).mean()),
    }


def _baselines(judged: JudgedTokens, counts: NDArray[np.int64] | None) -> dict[str, Any]:
    """What knowing only the fraction replaced, or only how frequent each word is, would give."""
    rate = float(judged.is_replaced.mean())
    entropy = -sum(p * math.log(p) for p in (rate, 1 - rate) if p > 0)
    baselines: dict[str, Any] = {"base_rate_log_loss": entropy, "unigram_auc": None, "unigram_orientation": None}
    if counts is not None:
        baselines["unigram_auc"] = _finite(unigram_auc(judged.token_ids, judged.is_replaced, counts))
        is_frequent = rank_auc(counts[judged.token_ids], judged.is_replaced) >= 0.5
        baselines["unigram_orientation"] = f"{'frequent' if is_frequent else 'rare'} tokens are taken for replaced"
    return baselines


def _generator_results(judged: JudgedTokens) -> dict[str, Any]:
    loss = float(judged.word_losses.mean())
    return {
        "masked_tokens": len(judged.word_losses),
        "loss": loss,
        "loss_bits": loss / math.log(2),
        "accuracy": float(judged.is_hit.mean()),
        "entropy": float(judged.entropies.mean()),
        "drew_the_original_fraction": float(judged.is_same.mean()),
    }


def _correction_results(judged: JudgedTokens) -> dict[str, float] | None:
    """Of what restores words, at the positions that the generator was asked about; None where nothing does."""
    if not len(judged.is_corrected):
        return None
    return {"accuracy": float(judged.is_corrected.mean()), "loss": float(judged.correction_losses.mean())}


def _intervals(judged: JudgedTokens, counts: NDArray[np.int64] | None, seed: int) -> dict[str, list[float]]:
    """[2.5%, 97.5%] of each figure when rows are drawn again, with replacement."""
    random = np.random.default_rng(seed)
    ends = np.searchsorted(judged.row, np.arange(judged.row.max() + 2))
    tokens_of_row = [np.arange(begin, end) for begin, end in itertools.pairwise(ends)]
    samples: dict[str, list[float]] = {}
    for _ in range(_BOOTSTRAP_SAMPLES):
        drawn = random.integers(len(tokens_of_row), size=len(tokens_of_row))
        tokens = np.concatenate([tokens_of_row[row] for row in drawn])
        figures = {}
        if len(judged.logits):
            metrics = detection_metrics(judged.logits[tokens], judged.is_replaced[tokens])
            figures = {"precision": metrics.precision, "recall": metrics.recall, "auc": metrics.auc}
        if counts is not None:
            figures["unigram_auc"] = unigram_auc(judged.token_ids[tokens], judged.is_replaced[tokens], counts)
            if "auc" in figures:
                figures["auc_above_unigram"] = figures["auc"] - figures["unigram_auc"]
        for name, value in figures.items():
            if not math.isnan(value):
                samples.setdefault(name, []).append(value)
    return {name: np.percentile(values, [2.5, 97.5]).tolist() for name, values in samples.items()}


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
