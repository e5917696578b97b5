"""Scores how well a discriminator finds the words of a generator in held-out text."""

import itertools
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from electrain.data.shards.prepare import COUNTS_NAME, unknown_characters_of
from electrain.data.shards.rows import RowSource
from electrain.data.shards.shards import Shards, open_shards, shards_in_memory
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.corpus import DEFAULT_FORMAT, CorpusCounts, CorpusFormat, Document, read_documents
from electrain.data.text.text_files import open_text
from electrain.data.tokenizer.letters import keeps_joiners
from electrain.data.tokenizer.tokenizer import save_tokenizer, tokenizer_hash
from electrain.data.tokenizer.unknown import Characters, UnknownShare, unknown_id
from electrain.foundation.errors import CheckpointError, ConfigurationError, DataError, TokenizerError
from electrain.foundation.output_folder import MANIFEST_NAME
from electrain.foundation.progress import counted, say
from electrain.inference.corruption import corruption_settings, open_corruption, unigram_counts
from electrain.inference.evaluate.judged_tokens import Corrector, JudgedTokens, judge_rows
from electrain.inference.model import LoadedModel, Source, load_detector, load_generator, load_head, load_model
from electrain.pretraining.configuration import PretrainConfig
from electrain.pretraining.objectives.detection_metrics import detection_metrics, rank_auc, unigram_auc
from electrain.pretraining.run_folder import RunFolder, open_run_folder

Results = dict[str, Any]  # printed as JSON
# A corpus is read only as far as the rows need; a token and the space before it are rarely longer than this.
_CHARACTERS_PER_TOKEN = 12
_BOOTSTRAP_SAMPLES = 200
_MANY_LINES = 100


def evaluate_detection(
    model: Source,
    data: Sequence[str],
    *,
    generator: Path | str | None = None,
    settings: PretrainConfig | None = None,
    rows: int = 512,
    seed: int = 0,
    corpus_format: CorpusFormat = DEFAULT_FORMAT,
) -> Results:
    """Precision, recall and AUC of "was this token replaced?", beside the AUC that word frequency alone reaches.

    The run's own code and settings pack, mask and corrupt the text, as at the last training step. Every token counts
    that the discriminator was trained on, except [CLS] and [SEP], which are never replaced. A correction head, or the
    masked-language-modelling baseline, is scored on the original words at the same positions.

    Args:
        model: a run folder; or a model folder or hub id, which needs `generator`.
        data: one folder of shards, or corpora as `electrain prepare` takes them, of which the beginning is read.
        generator: folder or hub id of a generator, in place of the run's own.
        settings: how rows are packed and corrupted; None uses the run's settings, or the published ones.
        rows: largest number of rows.
        seed: decides the order of rows, the masks, the samples and the bootstrap.
    Returns: the settings and the scores. Intervals are 95%, by bootstrap over rows; losses are in nats unless their
        name says bits; a part is None if no network of the model gives it.
    Raises: DataError, CheckpointError, TokenizerError, ConfigurationError: with one line.
    """
    if rows < 1:
        raise ConfigurationError(f"evaluate detection: --rows {rows}: must be at least 1")
    run = open_run_folder(model)
    config = settings or corruption_settings(run)
    corrector = _corrector(run)
    detector = None if corrector and "detection" not in run.heads else load_detector(run)
    judge = detector or (corrector.model if corrector else None)
    assert judge is not None
    draws_by_frequency = generator is None and config.generator.kind == "unigram"
    sampler = None if draws_by_frequency else load_generator(run, generator)
    if sampler and sampler.tokenizer.get_vocab() != judge.tokenizer.get_vocab():
        raise TokenizerError(
            f"{sampler.source}: has another vocabulary than {judge.source}; give two models of one run"
        )
    models = [one for one in (judge, sampler) if one is not None]
    length = config.data.sequence_length
    is_assumed = settings is None and run.config is None
    if is_assumed:  # the published length is no more than an assumption: these models may take less
        length = min(length, *(one.longest_row for one in models))
        config = replace(config, data=replace(config.data, sequence_length=length))
    for one in models:
        if length > one.longest_row:
            raise ConfigurationError(
                f"sequence_length = {length}: {one.source} takes at most {one.longest_row} tokens; lower it"
            )
    counts = _padded_counts(run, judge)
    corpus_format = replace(corpus_format, keeps_joiners=keeps_joiners(judge.tokenizer.backend_tokenizer))
    stream = _stream(data, judge, rows * length * _CHARACTERS_PER_TOKEN, corpus_format)
    has_text = not _is_of_shards(data)
    _say_poor_text(
        stream, length, lambda: unknown_characters_of(data, corpus_format, judge.tokenizer) if has_text else []
    )
    source = RowSource(stream, config.data, seed, reference_packing=config.parity.reference_packing)
    corruption = open_corruption(run, sampler, judge.tokenizer, seed, config)
    if is_assumed:
        say(
            f"{run}: is no run folder; rows are corrupted as published, {config.corruption.masked_fraction:.0%} masked "
            f"in rows of {length} tokens; give the run's folder for the run's own settings"
        )
    judged = judge_rows(detector, corrector, corruption, source, min(rows, source.rows_per_epoch))
    return {
        "task": "detection",
        "settings": {
            "model": str(run),
            "generator": sampler.source if sampler else "word frequencies",
            "data": list(data),
            **_shown_settings(corruption.config),
            "seed": seed,
        },
        "rows": int(judged.row.max()) + 1 if len(judged.row) else 0,
        "scored_tokens": len(judged.is_replaced),
        "replaced_fraction": float(judged.is_replaced.mean()) if len(judged.is_replaced) else 0.0,
        "discriminator": _discriminator_results(judged) if detector else None,
        "baselines": _baselines(judged, counts),
        "generator": _generator_results(judged),
        "correction": _correction_results(judged),
        "intervals_95": _intervals(judged, counts, seed),
    }


def _shown_settings(config: PretrainConfig) -> Results:
    """The settings of the corruption at the last step."""
    corruption, generator, data = config.corruption, config.generator, config.data
    return {
        "noise": corruption.noise,
        "source": corruption.source,
        "masked_fraction": corruption.last_masked_fraction or corruption.masked_fraction,
        "missing_fraction": corruption.missing_fraction,
        "temperature": generator.last_temperature or generator.temperature,
        "sequence_length": data.sequence_length,
        "segments": data.segments,
    }


def _corrector(run: RunFolder) -> Corrector | None:
    if "correction" in run.heads:
        return Corrector(load_head(run, "correction"), restores_missing=run.restores_missing_words)
    if run.is_baseline:
        return Corrector(load_model(run), restores_missing=True)
    return None


def _stream(data: Sequence[str], detector: LoadedModel, characters: int, corpus_format: CorpusFormat) -> Shards:
    """The tokens of a folder of shards, or of about the first `characters` of corpora."""
    if _is_of_shards(data):
        shards = open_shards(Path(data[0]))
        if shards.tokenizer_hash != tokenizer_hash(detector.tokenizer):
            raise TokenizerError(
                f"{data[0]}: made with another tokenizer than that of {detector.source}; "
                "give the text itself, or shards prepared with that tokenizer"
            )
        return shards
    if corpus_format.document_separator is None:
        _say_many_lines(data)
    documents = _beginning(read_documents(data, corpus_format, counts=CorpusCounts()), characters)
    with tempfile.TemporaryDirectory() as folder:  # a model from the hub has no folder of its own
        save_tokenizer(detector.tokenizer, Path(folder))
        return shards_in_memory(documents, Path(folder))


def _say_many_lines(data: Sequence[str]) -> None:
    """Says that a .txt file of many lines is read as one document: a run on lines finds long documents strange."""
    for path in map(Path, data):
        if uncompressed_suffix(path) == ".txt" and path.is_file():
            with open_text(path, newline=None) as file:
                lines = sum(1 for _ in islice(file, _MANY_LINES))
            if lines == _MANY_LINES:
                hint = 'if each line is a document, as in the shards of the run, give --document-separator "\\n"'
                say(f"evaluate detection: {path}: its lines are read as one document; {hint}")


def _is_of_shards(data: Sequence[str]) -> bool:
    return len(data) == 1 and (Path(data[0]) / MANIFEST_NAME).is_file()


def _say_poor_text(stream: Shards, length: int, named: Characters) -> None:
    """Says on stderr if much of the text is [UNK], about which scores say nothing.

    Args: named: finds the unknown characters.
    Raises: DataError: the text is shorter than a row of `length` tokens.
    """
    if stream.token_count < length - 2:
        raise DataError(
            f"evaluate detection: --data holds {counted(stream.token_count, 'token')}, fewer than a row of the model "
            f"({length}); give more text"
        )
    unknown = unknown_id(stream.tokenizer)
    count = 0 if unknown is None else int(stream.unigram_counts[unknown])
    documents = int(stream.unigram_counts[stream.special_ids.sep])
    share = UnknownShare(count, stream.token_count - documents)  # the [SEP] of each document is no text
    share.say("evaluate detection: --data", "the model was trained with a tokenizer for other text", named)


def _beginning(documents: Iterable[Document], characters: int) -> Iterator[Document]:
    """The documents, or pieces of one, up to the one that reaches `characters`."""
    taken = 0
    for document in documents:
        taken += len(document.text)
        yield Document(document.text, document.source, document.continues and taken < characters)
        if taken >= characters:
            return


def _padded_counts(run: RunFolder, judge: LoadedModel) -> NDArray[np.int64] | None:
    """(vocabulary of the model,) int64: `unigram_counts`, with 0 for ids that the tokenizer does not have."""
    counts = unigram_counts(run)
    if counts is None:
        return None
    if len(counts) < len(judge.tokenizer):
        raise CheckpointError(
            f"{Path(run.path) / COUNTS_NAME}: has {counts.size} counts, not one for each of the tokenizer's tokens; "
            "remove it"
        )
    return np.pad(counts, (0, max(0, judge.model.config.vocab_size - len(counts))))


def _discriminator_results(judged: JudgedTokens) -> Results:
    metrics = detection_metrics(judged.logits, judged.is_replaced)
    signed = np.where(judged.is_replaced, -judged.logits, judged.logits).astype(np.float64)
    return {
        "precision": metrics.precision,
        "recall": metrics.recall,
        "f1": metrics.f1,
        "auc": _finite(metrics.auc),
        "log_loss": float(np.logaddexp(0, signed).mean()),
    }


def _baselines(judged: JudgedTokens, counts: NDArray[np.int64] | None) -> Results:
    """The scores of a judge that knows only the fraction replaced, or only the frequency of each word."""
    rate = float(judged.is_replaced.mean())
    entropy = -sum(p * math.log(p) for p in (rate, 1 - rate) if p > 0)
    baselines: Results = {"base_rate_log_loss": entropy, "unigram_auc": None, "unigram_orientation": None}
    if counts is not None:
        baselines["unigram_auc"] = _finite(unigram_auc(judged.token_ids, judged.is_replaced, counts))
        is_frequent = rank_auc(counts[judged.token_ids], judged.is_replaced) >= 0.5
        baselines["unigram_orientation"] = f"{'frequent' if is_frequent else 'rare'} tokens are taken for replaced"
    return baselines


def _generator_results(judged: JudgedTokens) -> Results | None:
    """None if words are drawn by their frequency, without a network."""
    if not len(judged.word_losses):
        return None
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
    """The corrector's scores at the selected positions; None without a corrector."""
    if not len(judged.is_corrected):
        return None
    return {"accuracy": float(judged.is_corrected.mean()), "loss": float(judged.correction_losses.mean())}


def _intervals(judged: JudgedTokens, counts: NDArray[np.int64] | None, seed: int) -> dict[str, list[float]]:
    """The 2.5% and 97.5% percentiles of each score over bootstrap samples.

    Whole rows are drawn with replacement, because the tokens of one row are not independent of each other.
    """
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
    """The value; None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value
