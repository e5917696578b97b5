"""Grammar without fine-tuning: which of two sentences does the model find more acceptable? (BLiMP)"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from electrain.data.text.compression import open_stream
from electrain.foundation.errors import DataError
from electrain.inference.evaluate.sentence_scores import (
    Scores,
    TokenizedSentences,
    one_pass_scores,
    pseudo_log_likelihoods,
    tokenize_sentences,
)
from electrain.inference.model import LoadedModel, load_detector, load_head, load_language_model, load_model
from electrain.pretrain.run_folder import RunFolder, open_run_folder


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in one point of grammar.

    Attributes:
        good: the acceptable one.
        bad: the other.
        set_name: BLiMP's UID, one of 67.
        phenomenon: BLiMP's linguistics_term, one of 12.
        field: syntax, morphology, semantics or where two of them meet.
    """

    good: str
    bad: str
    set_name: str
    phenomenon: str
    field: str


def evaluate_blimp(
    model: Path | str | RunFolder,
    data: Path | str,
    *,
    generator: Path | str | None = None,
    batch_tokens: int = 8192,
    limit_pairs_per_set: int | None = None,
    bfloat16: bool = False,
    device: str | None = None,
) -> dict[str, Any]:
    """Accuracy on minimal pairs by every scorer that the model has.

    A discriminator scores by each head it has: detection by log P(original), electric by energy, correction by the
    chance of the words that stand there; its generator, where there is one, and a masked language model score by
    pseudo-log-likelihood, a causal generator by log-likelihood. A tie counts half.

    Args:
        model: a run folder, a model folder or a name on the hub.
        data: a .jsonl or .jsonl.gz file, or a folder of them, as BLiMP is published.
        generator: a masked language model of the same tokenizer, where `model` is not a run folder.
        batch_tokens: tokens in one forward pass.
        limit_pairs_per_set: the first pairs of each set only, for a quick look.
    Returns: JSON-ready; `settings.scored_by` says which folder each scorer is; `scorers` has for each scorer
        `overall`, `by_field`, `by_phenomenon` and `by_set`, each with accuracy, its standard error over pairs, and the
        number of pairs.
    Raises: DataError, CheckpointError, TokenizerError: with one line.
    Source: Warstadt et al. 2020.
    """
    if limit_pairs_per_set is not None and limit_pairs_per_set < 1:
        raise DataError(f"--limit-pairs-per-set {limit_pairs_per_set}: must be at least 1")
    pairs = read_minimal_pairs(Path(data), limit_pairs_per_set)
    sentences = [pair.good for pair in pairs] + [pair.bad for pair in pairs]
    run = open_run_folder(model)
    scorers = _scorers(run, generator, device)
    scores: Scores = {}
    asked = next(iter(scorers.values()))
    tokenized = tokenize_sentences(asked, sentences)
    for name, scorer in scorers.items():
        own = tokenized
        if scorer.tokenizer.get_vocab() != asked.tokenizer.get_vocab():
            own = tokenize_sentences(scorer, sentences)
        if name == "correction" and run.restores_missing_words:  # it was trained to predict words at [MASK] only
            masked = pseudo_log_likelihoods(scorer, own, batch_tokens=batch_tokens, bfloat16=bfloat16)
            scores |= {f"correction_{kind}": values for kind, values in masked.items()}
        elif name == "pseudo_log_likelihood":
            scores |= pseudo_log_likelihoods(scorer, own, batch_tokens=batch_tokens, bfloat16=bfloat16)
        else:
            scores |= one_pass_scores(scorer, own, name, batch_tokens=batch_tokens, bfloat16=bfloat16)
    return {
        "task": "blimp",
        "settings": {
            "model": str(model),
            "scored_by": {name: scorer.source for name, scorer in scorers.items()},
            "data": str(data),
            "limit_pairs_per_set": limit_pairs_per_set,
            "batch_tokens": batch_tokens,
            "bfloat16": bfloat16,
        },
        "pairs": len(pairs),
        "indistinguishable_pairs": _indistinguishable(tokenized),
        "scorers": {name: _accuracies(values, pairs) for name, values in scores.items()},
    }


ScorerName = Literal["discriminator", "electric", "correction", "generator", "pseudo_log_likelihood"]


def _scorers(run: RunFolder, generator: Path | str | None, device: str | None) -> dict[ScorerName, LoadedModel]:
    """Everything in the run folder that can score a sentence, by name; the discriminator's heads first."""
    scorers: dict[ScorerName, LoadedModel] = {}
    if "detection" in run.heads:
        scorers["discriminator"] = load_detector(run, device=device)
    if "electric" in run.heads:
        scorers["electric"] = load_head(run, "electric", device=device)
    if "correction" in run.heads:
        scorers["correction"] = load_head(run, "correction", device=device)
    words = None
    if not run.heads:  # a plain model folder: its class says what it can do
        words = load_model(run, device=device)
        if words.kind == "detection":
            scorers["discriminator"], words = words, None
    named = generator or run.generator
    if named is not None:
        words = load_language_model(named, device=device)
    if words is not None:
        is_causal = words.kind == "causal-language-model"
        scorers["generator" if is_causal else "pseudo_log_likelihood"] = words
    return scorers


def _indistinguishable(tokenized: TokenizedSentences) -> int:
    """How many pairs are the same tokens twice, for instance where case or an unknown word made the difference."""
    good, bad = np.split(tokenized.place, 2)
    return int((good == bad).sum())


def _accuracies(scores: NDArray[np.float64], pairs: Sequence[MinimalPair]) -> dict[str, Any]:
    """Accuracy overall and by group, from the scores of the good sentences followed by those of the bad."""
    good, bad = np.split(scores, 2)
    is_right = np.where(good == bad, 0.5, good > bad)
    return {
        "overall": _accuracy(is_right),
        "by_field": _by_group(is_right, [pair.field for pair in pairs]),
        "by_phenomenon": _by_group(is_right, [pair.phenomenon for pair in pairs]),
        "by_set": _by_group(is_right, [pair.set_name for pair in pairs]),
    }


def _by_group(is_right: NDArray[np.float64], groups: Sequence[str]) -> dict[str, Any]:
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    return {group: _accuracy(is_right[indices]) for group, indices in sorted(members.items())}


def _accuracy(is_right: NDArray[np.float64]) -> dict[str, float | int]:
    return {
        "accuracy": float(is_right.mean()),
        "standard_error": float(is_right.std() / np.sqrt(len(is_right))),
        "pairs": len(is_right),
    }


def blimp_table(result: dict[str, Any]) -> str:
    """The per-phenomenon accuracies of `evaluate_blimp`, in per cent, as plain text: a column for each scorer."""
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
    return "\n".join(lines)


def read_minimal_pairs(path: Path, limit_pairs_per_set: int | None = None) -> list[MinimalPair]:
    """The pairs in a file or a folder of files.

    Raises: DataError: no such file, no pair, or a line that is not one.
    """
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
    with open_stream(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _pair(line, f"{path}:{number}")


def _pair(line: bytes, where: str) -> MinimalPair:
    fields = ("sentence_good", "sentence_bad", "UID", "linguistics_term", "field")
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error}); fix or remove this line") from error
    if not isinstance(record, dict) or not all(isinstance(record.get(field), str) for field in fields):
        raise DataError(f"{where}: a minimal pair must have the text fields {', '.join(fields)}; fix this line")
    return MinimalPair(*(record[field] for field in fields))
