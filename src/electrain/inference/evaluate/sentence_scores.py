"""Scores of how acceptable a sentence is: from one forward pass, or, for a masked language model, from many."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from electrain.data.tokenizer.plain_text import encode_plain
from electrain.foundation.errors import DataError
from electrain.foundation.progress import Progress
from electrain.inference.model import LoadedModel, masked_word_logits, next_word_logits, replaced_logits

Scores = dict[str, NDArray[np.float64]]
# Logits over a vocabulary take about this many times the memory of a token's hidden states.
WORDS_COST = 8


@dataclass(frozen=True)
class TokenizedSentences:
    """Distinct sentences as tokens; sentences that the tokenizer cannot tell apart are one, and so score alike.

    Attributes:
        token_ids: of each distinct sentence, with its special tokens.
        words: for each token the number of its word in the sentence; -1 at special tokens.
        place: (sentences,) int64; which distinct sentence each given one is.
    """

    token_ids: list[tuple[int, ...]]
    words: list[tuple[int, ...]]
    place: NDArray[np.int64]


@dataclass(frozen=True)
class EqualLengthRows:
    """Distinct sentences of one length, so that none is padded.

    Attributes:
        numbers: of the distinct sentences.
        token_ids: (rows, length) int64.
        words: (rows, length) int64; -1 at special tokens.
    """

    numbers: list[int]
    token_ids: Tensor
    words: Tensor


def tokenize_sentences(model: LoadedModel, sentences: Sequence[str]) -> TokenizedSentences:
    """The sentences as the model's tokens.

    Raises: DataError: a sentence has no token, or more than the model takes.
    """
    encoding = encode_plain(model.tokenizer, list(sentences))
    numbers: dict[tuple[int, ...], int] = {}
    words, place = [], []
    for index, ids in enumerate(map(tuple, encoding["input_ids"])):
        if ids not in numbers:
            word_ids = encoding.word_ids(index)
            if not 0 < len(ids) - word_ids.count(None) <= len(ids) <= model.longest_row:
                raise DataError(
                    f"'{sentences[index][:60]}': is {len(ids)} tokens with the special ones; "
                    f"a sentence must have a word and at most {model.longest_row} tokens"
                )
            numbers[ids] = len(numbers)
            words.append(tuple(-1 if word is None else word for word in word_ids))
        place.append(numbers[ids])
    return TokenizedSentences(list(numbers), words, np.array(place, np.int64))


OnePass = Literal["discriminator", "electric", "correction", "generator"]


@torch.inference_mode()
def one_pass_scores(
    model: LoadedModel,
    sentences: TokenizedSentences,
    scorer: OnePass,
    *,
    batch_tokens: int = 8192,
    bfloat16: bool = False,
) -> Scores:
    """For every sentence the sum, and the mean, over its tokens of what the model says of each.

    Args:
        scorer: discriminator: log P(original); electric: minus the energy; correction: log P(the word that stands
            there | the sentence as it stands); generator, a causal one: log P(token | the tokens before it). Special
            tokens are left out.
    Returns: the scorer's name, and that with `_mean`, each (sentences,) float64, in nats; larger is more acceptable.
    """
    progress = Progress(f"{scorer} score", "sentences", len(sentences.token_ids))
    sums, counts = np.zeros((2, len(sentences.token_ids)))
    tokens = batch_tokens if scorer in ("discriminator", "electric") else max(1, batch_tokens // WORDS_COST)
    for rows in _equal_length_rows(sentences):
        size = _rows_per_batch(rows, tokens)
        for start in range(0, len(rows.numbers), size):
            part = slice(start, start + size)
            ids = rows.token_ids[part].to(model.device)
            is_scored = (rows.words[part] >= 0).to(model.device)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
                of_token = _token_scores(model, ids, is_scored, scorer)
            sums[rows.numbers[part]] = of_token.sum(1).cpu().numpy()
            counts[rows.numbers[part]] = is_scored.sum(1).cpu().numpy()
            progress.advance(len(ids))
    return {scorer: sums[sentences.place], f"{scorer}_mean": (sums / counts)[sentences.place]}


def _token_scores(model: LoadedModel, ids: Tensor, is_scored: Tensor, scorer: OnePass) -> Tensor:
    """(batch, length) float64, in nats; 0 where not scored."""
    if scorer in ("discriminator", "electric"):
        logits = replaced_logits(model, ids, None)
        scores = functional.logsigmoid(-logits) if scorer == "discriminator" else -logits
        return scores.double() * is_scored
    if scorer == "generator":
        words = next_word_logits(model, ids, is_scored)
    else:
        words = masked_word_logits(model, ids, None, is_scored)
    result = torch.zeros(ids.shape, dtype=torch.float64, device=ids.device)
    result[is_scored] = -functional.cross_entropy(words, ids[is_scored], reduction="none").double()
    return result


@torch.inference_mode()
def pseudo_log_likelihoods(
    language_model: LoadedModel, sentences: TokenizedSentences, *, batch_tokens: int = 8192, bfloat16: bool = False
) -> Scores:
    """For every sentence the sum over its tokens of log P(token | the sentence with that token masked).

    Returns: each (sentences,) float64, in nats: `pseudo_log_likelihood`; its mean over tokens, `..._mean`; and
        `..._within_word`, which masks the rest of the token's word too, so that a long rare word is not easy.
    Source: Salazar et al. 2020, equation 1; Kauf and Ivanova 2023 for the within-word-left-to-right form.
    """
    total = sum(word >= 0 for words in sentences.words for word in words)
    progress = Progress("pseudo-log-likelihood", "tokens", total)
    sums, within_word, counts = np.zeros((3, len(sentences.token_ids)))
    for rows in _equal_length_rows(sentences):
        single, strict = _masked_one_by_one(language_model, rows, batch_tokens, bfloat16, progress)
        sums[rows.numbers] = single.sum(1)
        within_word[rows.numbers] = strict.sum(1)
        counts[rows.numbers] = (rows.words >= 0).sum(1).numpy()
    scores = {
        "pseudo_log_likelihood": sums,
        "pseudo_log_likelihood_mean": sums / counts,
        "pseudo_log_likelihood_within_word": within_word,
    }
    return {name: values[sentences.place] for name, values in scores.items()}


def _masked_one_by_one(
    language_model: LoadedModel, rows: EqualLengthRows, batch_tokens: int, bfloat16: bool, progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rows, length) log-probability of each token, itself masked, and with the rest of its word masked."""
    single = _log_probabilities(language_model, rows, rows.words >= 0, False, batch_tokens, bfloat16, progress)
    # Masking the rest of the word changes the input only for tokens that are not the last of their word.
    goes_on = torch.zeros_like(rows.words, dtype=torch.bool)
    goes_on[:, :-1] = (rows.words[:, :-1] == rows.words[:, 1:]) & (rows.words[:, :-1] >= 0)
    rest = _log_probabilities(language_model, rows, goes_on, True, batch_tokens, bfloat16, None)
    strict = torch.where(goes_on, rest, single)
    return single.numpy(), strict.numpy()


def _log_probabilities(
    language_model: LoadedModel,
    rows: EqualLengthRows,
    is_scored: Tensor,
    masks_rest_of_word: bool,
    batch_tokens: int,
    bfloat16: bool,
    progress: Progress | None,
) -> Tensor:
    """(rows, length) float64: log-probabilities where `is_scored`, each from a copy of its row, token masked."""
    row_of, position_of = torch.nonzero(is_scored, as_tuple=True)
    device = language_model.device
    result = torch.zeros(rows.token_ids.shape, dtype=torch.float64)
    places = torch.arange(rows.token_ids.shape[1])
    size = _rows_per_batch(rows, batch_tokens)
    for start in range(0, len(row_of), size):
        row, position = row_of[start : start + size], position_of[start : start + size]
        originals = rows.token_ids[row]
        is_asked = places == position[:, None]
        is_masked = is_asked
        if masks_rest_of_word:
            is_same_word = rows.words[row] == rows.words[row, position][:, None]
            is_masked = is_asked | (is_same_word & (places > position[:, None]))
        masked = originals.masked_fill(is_masked, language_model.tokenizer.mask_token_id)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            logits = masked_word_logits(language_model, masked.to(device), None, is_asked.to(device))
        loss = functional.cross_entropy(logits, originals[is_asked].to(device), reduction="none")
        result[row, position] = -loss.double().cpu()
        if progress is not None:
            progress.advance(len(row))
    return result


def _rows_per_batch(rows: EqualLengthRows, batch_tokens: int) -> int:
    return max(1, batch_tokens // rows.token_ids.shape[1])


def _equal_length_rows(sentences: TokenizedSentences) -> Iterator[EqualLengthRows]:
    """The distinct sentences by length, longest first: when memory is too small, the first batch already shows it."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, ids in enumerate(sentences.token_ids):
        by_length[len(ids)].append(number)
    for _, numbers in sorted(by_length.items(), reverse=True):
        yield EqualLengthRows(
            numbers,
            torch.tensor([sentences.token_ids[number] for number in numbers]),
            torch.tensor([sentences.words[number] for number in numbers]),
        )
