"""Scores grammar without fine-tuning: which of two sentences does the model find more acceptable? (BLiMP)"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from electrain.data.text.compression import open_stream
from electrain.data.text.text_files import lines_of
from electrain.finetuning.tasks.task import BATCH_TOKENS
from electrain.foundation.errors import DataError
from electrain.foundation.json_reading import parse_json
from electrain.inference.evaluate.sentence_scores import (
    Scores,
    TokenizedSentences,
    one_pass_scores,
    pseudo_log_likelihoods,
    tokenize_sentences,
)
from electrain.inference.model import LoadedModel, Source, load_head, load_language_model, load_model
from electrain.models.discriminator import Head
from electrain.pretraining.run_folder import RunFolder, open_run_folder

Results = dict[str, Any]  # printed as JSON
ScorerName = Literal["discriminator", "electric", "correction", "generator", "pseudo_log_likelihood"]


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in one point of grammar."""

    good: str  # the acceptable sentence
    bad: str  # the unacceptable sentence
    set_name: str  # BLiMP's UID, one of 67
    phenomenon: str  # BLiMP's linguistics_term, one of 12
    field: str  # syntax, morphology, semantics or a combination of two


def evaluate_blimp(
    model: Source,
    data: Path | str,
    *,
    generator: Path | str | None = None,
    limit_pairs_per_set: int | None = None,
) -> Results:
    """The accuracy on minimal pairs of every scorer that the model has; a tie counts half.

    Each head of a discriminator is a scorer: detection by log P(original), electric by energy, correction by the
    probability of the words. A masked language model scores by pseudo-log-likelihood, a causal generator by
    log-likelihood.

    Args:
        model: a run folder, a model folder or a hub id.
        data: a .jsonl or .jsonl.gz file, or a folder of them, as BLiMP is published.
        generator: a language model with the same tokenizer, in place of the run's own.
        limit_pairs_per_set: number of pairs to read from the beginning of each set; None reads all.
    Returns: `settings.scored_by` names the folder of each scorer; `scorers` has for each scorer `overall`, `by_field`,
        `by_phenomenon` and `by_set`, each with the accuracy, its standard error over pairs, and the number of pairs.
    Raises: DataError, CheckpointError, TokenizerError: with one line.
    Source: Warstadt et al. 2020.
    """
    if limit_pairs_per_set is not None and limit_pairs_per_set < 1:
        raise DataError(f"--limit-pairs-per-set {limit_pairs_per_set}: must be at least 1")
    pairs = read_minimal_pairs(Path(data), limit_pairs_per_set)
    run = open_run_folder(model)
    scorers = _scorers(run, generator)
    first = next(iter(scorers.values()))
    tokenized = tokenize_sentences(first, _sentences(pairs))
    good, bad = np.split(tokenized.place, 2)
    return {
        "task": "blimp",
        "settings": {
            "model": str(model),
            "scored_by": {name: scorer.source for name, scorer in scorers.items()},
            "data": str(data),
            "limit_pairs_per_set": limit_pairs_per_set,
            "batch_tokens": BATCH_TOKENS,
            "bfloat16": torch.is_autocast_enabled(first.device.type),
        },
        "pairs": len(pairs),
        # Pairs with the same tokens: the sentences differ only in case, for instance, or in unknown words.
        "indistinguishable_pairs": int((good == bad).sum()),
        "scorers": {
            name: _accuracies(values, pairs) for name, values in _scores(run, scorers, tokenized, pairs).items()
        },
    }


def pair_results(model: Source, pairs: Sequence[MinimalPair]) -> dict[str, NDArray[np.float64]]:
    """For every scorer of the model (pairs,) float64: 1 where it prefers the good sentence, 0.5 at a tie, 0 elsewhere.

    Raises: DataError, CheckpointError, TokenizerError: with one line.
    """
    run = open_run_folder(model)
    scorers = _scorers(run, None)
    tokenized = tokenize_sentences(next(iter(scorers.values())), _sentences(pairs))
    return {name: _is_right(scores) for name, scores in _scores(run, scorers, tokenized, pairs).items()}


def _sentences(pairs: Sequence[MinimalPair]) -> list[str]:
    return [pair.good for pair in pairs] + [pair.bad for pair in pairs]


def _scores(
    run: RunFolder,
    scorers: dict[ScorerName, LoadedModel],
    tokenized: TokenizedSentences,
    pairs: Sequence[MinimalPair],
) -> Scores:
    """The scores of the good sentences, followed by those of the bad ones; `tokenized` by the first scorer."""
    scores: Scores = {}
    first = next(iter(scorers.values()))
    for name, scorer in scorers.items():
        is_alike = scorer.tokenizer.get_vocab() == first.tokenizer.get_vocab()
        own = tokenized if is_alike else tokenize_sentences(scorer, _sentences(pairs))
        if name == "pseudo_log_likelihood":
            scores |= pseudo_log_likelihoods(scorer, own)
            continue
        if name == "correction" and run.saw_missing_words:
            scores |= {f"correction_{kind}": values for kind, values in pseudo_log_likelihoods(scorer, own).items()}
        # A head that learned to predict words at [MASK] only knows nothing of a sentence without one.
        if not (name == "correction" and run.restores_missing_words):
            scores |= one_pass_scores(scorer, own, name)
    return scores


def _scorers(run: RunFolder, generator: Path | str | None) -> dict[ScorerName, LoadedModel]:
    """The networks that can score a sentence, by name; the discriminator's heads first."""
    heads: dict[ScorerName, Head] = {"discriminator": "detection", "electric": "electric", "correction": "correction"}
    scorers = {name: load_head(run, head) for name, head in heads.items() if head in run.heads}
    words = None
    if not run.heads:  # a plain model folder: its class says what it can do
        words = load_model(run)
        if words.kind == "detection":
            scorers["discriminator"], words = words, None
    named = generator or run.generator
    if named is not None:
        words = load_language_model(named)
    if words is not None:
        is_causal = words.kind == "causal-language-model"
        scorers["generator" if is_causal else "pseudo_log_likelihood"] = words
    return scorers


def _accuracies(scores: NDArray[np.float64], pairs: Sequence[MinimalPair]) -> Results:
    """The accuracy overall and by group, from the scores of the good sentences followed by those of the bad ones."""
    is_right = _is_right(scores)
    results: Results = {"overall": _accuracy(is_right)}
    for name, attribute in {"by_field": "field", "by_phenomenon": "phenomenon", "by_set": "set_name"}.items():
        group_of = np.array([getattr(pair, attribute) for pair in pairs])
        results[name] = {str(group): _accuracy(is_right[group_of == group]) for group in np.unique(group_of)}
    return results


def _is_right(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    good, bad = np.split(scores, 2)
    return np.where(good == bad, 0.5, good > bad)


def _accuracy(is_right: NDArray[np.float64]) -> dict[str, float | int]:
    return {
        "accuracy": float(is_right.mean()),
        "standard_error": float(is_right.std() / np.sqrt(len(is_right))),
        "pairs": len(is_right),
    }


def blimp_table(result: Results) -> list[str]:
    """The lines of a table of the accuracies in per cent: a row for each phenomenon, a column for each scorer."""
    scorers = result["scorers"]
    phenomena = list(next(iter(scorers.values()))["by_phenomenon"])
    width = max(len(name) for name in [*phenomena, "phenomenon"])
    lines = ["  ".join([f"{'phenomenon':{width}}", "pairs", *scorers])]
    for phenomenon in [*phenomena, "overall"]:
        cells = []
        for name, groups in scorers.items():
            cell = groups["overall"] if phenomenon == "overall" else groups["by_phenomenon"][phenomenon]
            text = f"{100 * cell['accuracy']:.1f} ± {100 * cell['standard_error']:.1f}"
            cells.append(f"{text:>{len(name)}}")
        lines.append("  ".join([f"{phenomenon:{width}}", f"{cell['pairs']:5}", *cells]))
    return lines


def read_minimal_pairs(path: Path, limit_pairs_per_set: int | None = None) -> list[MinimalPair]:
    """The pairs in a file or a folder of files. Raises: DataError: no such file, no pair, or a malformed line."""
    files = [path]
    if path.is_dir():
        files = sorted(file for pattern in ("*.jsonl", "*.jsonl.gz") for file in path.glob(pattern))
    pairs: list[MinimalPair] = []
    taken: dict[str, int] = defaultdict(int)
    for file in files:
        for pair in _pairs_of_file(file):
            if limit_pairs_per_set is None or taken[pair.set_name] < limit_pairs_per_set:
                taken[pair.set_name] += 1
                pairs.append(pair)
    if not pairs:
        raise DataError(f"{path}: holds no minimal pairs; give a .jsonl or .jsonl.gz file, or a folder of them")
    return pairs


def _pairs_of_file(path: Path) -> Iterator[MinimalPair]:
    fields = ("sentence_good", "sentence_bad", "UID", "linguistics_term", "field")
    with open_stream(path) as file:
        for number, line in enumerate(lines_of(file, str(path)), start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            record: Any = parse_json(line, where, way_out="fix or remove this line")
            if not isinstance(record, dict) or not all(isinstance(record.get(field), str) for field in fields):
                raise DataError(f"{where}: a minimal pair must have the text fields {', '.join(fields)}; fix this line")
            yield MinimalPair(*(record[field] for field in fields))
