"""Scores the acceptability of sentences, from one forward pass each or from one for each masked token."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from electrain.data.tokenizer.plain_text import cleaner_for, encode_plain
from electrain.finetuning.tasks.task import BATCH_TOKENS
from electrain.foundation.errors import DataError
from electrain.foundation.progress import Progress, counted
from electrain.inference.model import LoadedModel, replaced_logits, word_logits_at

Scores = dict[str, NDArray[np.float64]]
# Logits over a vocabulary take about this many times the memory of a token's hidden states.
WORDS_COST = 8


@dataclass(frozen=True)
class TokenizedSentences:
    """The distinct token sequences of some sentences. Sentences with the same tokens are scored once, and so alike."""

    token_ids: list[tuple[int, ...]]  # of each distinct sentence, including special tokens
    words: list[tuple[int, ...]]  # for each token, the number of its word in the sentence; -1 at special tokens
    place: NDArray[np.int64]  # (sentences,) int64; for each given sentence, its index in `token_ids`


@dataclass(frozen=True)
class EqualLengthRows:
    """Distinct sentences of one length, so that no row is padded."""

    numbers: list[int]  # indices of the distinct sentences
    token_ids: Tensor  # (rows, length) int64
    words: Tensor  # (rows, length) int64; -1 at special tokens

    def per_batch(self, batch_tokens: int) -> int:
        """The number of rows in a batch of at most `batch_tokens` tokens; at least 1."""
        return max(1, batch_tokens // self.token_ids.shape[1])


def tokenize_sentences(model: LoadedModel, sentences: Sequence[str]) -> TokenizedSentences:
    """The sentences, cleaned as in pretraining, as the model's tokens.

    Raises: DataError: a sentence has no token, or more tokens than the model's rows.
    """
    encoding = encode_plain(model.tokenizer, list(map(cleaner_for(model.tokenizer), sentences)))
    numbers: dict[tuple[int, ...], int] = {}
    words, place = [], []
    for index, ids in enumerate(map(tuple, encoding["input_ids"])):
        if ids not in numbers:
            word_ids = encoding.word_ids(index)
            if not 0 < len(ids) - word_ids.count(None) <= len(ids) <= model.longest_row:
                raise DataError(
                    f"'{sentences[index][:60]}': is {counted(len(ids), 'token')} with the special ones; "
                    f"a sentence must have a word and at most {model.longest_row} tokens"
                )
            numbers[ids] = len(numbers)
            words.append(tuple(-1 if word is None else word for word in word_ids))
        place.append(numbers[ids])
    return TokenizedSentences(list(numbers), words, np.array(place, np.int64))


OnePass = Literal["discriminator", "electric", "correction", "generator"]


@torch.inference_mode()
def one_pass_scores(model: LoadedModel, sentences: TokenizedSentences, scorer: OnePass) -> Scores:
    """The sum and the mean of the token scores of every sentence; special tokens are left out.

    Args:
        scorer: the score of a token. discriminator: log P(original); electric: minus the energy; correction:
            log P(token | the whole sentence); generator, a causal one: log P(token | the tokens before it).
    Returns: under the scorer's name the sums, and with `_mean` added the means: (sentences,) float64, in nats; larger
        is more acceptable.
    """
    sums, counts = np.zeros((2, len(sentences.token_ids)))
    tokens = BATCH_TOKENS if scorer in ("discriminator", "electric") else BATCH_TOKENS // WORDS_COST
    with Progress(f"{scorer} score", "sentences", len(sentences.token_ids)) as progress:
        for rows in _equal_length_rows(sentences):
            size = rows.per_batch(tokens)
            for start in range(0, len(rows.numbers), size):
                part = slice(start, start + size)
                ids = rows.token_ids[part].to(model.device)
                is_scored = (rows.words[part] >= 0).to(model.device)
                scores = _token_scores(model, ids, is_scored, scorer).cpu()
                sums[rows.numbers[part]] = scores.double().sum(1).numpy()  # here: Apple's GPUs have no float64
                counts[rows.numbers[part]] = is_scored.sum(1).cpu().numpy()
                progress.advance(len(ids))
    return {scorer: sums[sentences.place], f"{scorer}_mean": (sums / counts)[sentences.place]}


def _token_scores(model: LoadedModel, ids: Tensor, is_scored: Tensor, scorer: OnePass) -> Tensor:
    """(batch, length) float32, in nats; 0 at tokens that are not scored."""
    if scorer in ("discriminator", "electric"):
        logits = replaced_logits(model, ids, None)
        scores = functional.logsigmoid(-logits) if scorer == "discriminator" else -logits
        return scores.float() * is_scored
    words = word_logits_at(model, ids, None, is_scored)
    result = torch.zeros(ids.shape, device=ids.device)
    result[is_scored] = -functional.cross_entropy(words, ids[is_scored], reduction="none").float()
    return result


@torch.inference_mode()
def pseudo_log_likelihoods(language_model: LoadedModel, sentences: TokenizedSentences) -> Scores:
    """The sum over a sentence's tokens of log P(token | the sentence with that token masked).

    A masked language model has no chain rule, so this sum is no log-likelihood; it ranks sentences as one does.

    Returns: each (sentences,) float64, in nats: `pseudo_log_likelihood`; `..._mean`, its mean over the tokens; and
        `..._within_word`, which also masks the later tokens of the same word. Otherwise a long rare word would score
        high, because its beginning is easy to guess from its end.
    Source: Salazar et al. 2020, equation 1; Kauf and Ivanova 2023 for the within-word-left-to-right form.
    """
    total = sum(word >= 0 for words in sentences.words for word in words)
    rest = sum(one == other >= 0 for words in sentences.words for one, other in pairwise(words))
    sums, within_word, counts = np.zeros((3, len(sentences.token_ids)))
    with Progress("pseudo-log-likelihood", "tokens", total + rest) as progress:
        for rows in _equal_length_rows(sentences):
            is_token = rows.words >= 0
            single = _log_probabilities(language_model, rows, is_token, progress, masks_rest_of_word=False)
            # For the last token of a word both forms mask the same, so that only the other tokens need a second pass.
            goes_on = torch.zeros_like(is_token)
            goes_on[:, :-1] = (rows.words[:, :-1] == rows.words[:, 1:]) & is_token[:, :-1]
            strict = _log_probabilities(language_model, rows, goes_on, progress, masks_rest_of_word=True)
            sums[rows.numbers] = single.sum(1).numpy()
            within_word[rows.numbers] = torch.where(goes_on, strict, single).sum(1).numpy()
            counts[rows.numbers] = is_token.sum(1).numpy()
    scores = {
        "pseudo_log_likelihood": sums,
        "pseudo_log_likelihood_mean": sums / counts,
        "pseudo_log_likelihood_within_word": within_word,
    }
    return {name: values[sentences.place] for name, values in scores.items()}


def _log_probabilities(
    language_model: LoadedModel,
    rows: EqualLengthRows,
    is_scored: Tensor,
    progress: Progress,
    *,
    masks_rest_of_word: bool,
) -> Tensor:
    """(rows, length) float64: the log-probability of each scored token; 0 elsewhere.

    Each scored token is masked in its own copy of its row, and the head runs at that one position of the copy.
    """
    row_of, position_of = torch.nonzero(is_scored, as_tuple=True)
    device = language_model.device
    result = torch.zeros(rows.token_ids.shape, dtype=torch.float64)
    places = torch.arange(rows.token_ids.shape[1])
    size = rows.per_batch(BATCH_TOKENS)
    for start in range(0, len(row_of), size):
        row, position = row_of[start : start + size], position_of[start : start + size]
        originals = rows.token_ids[row]
        is_target = places == position[:, None]
        is_masked = is_target
        if masks_rest_of_word:
            is_same_word = rows.words[row] == rows.words[row, position][:, None]
            is_masked = is_target | (is_same_word & (places > position[:, None]))
        masked = originals.masked_fill(is_masked, language_model.tokenizer.mask_token_id)
        logits = word_logits_at(language_model, masked.to(device), None, is_target.to(device))
        loss = functional.cross_entropy(logits, originals[is_target].to(device), reduction="none")
        result[row, position] = -loss.cpu().double()
        progress.advance(len(row))
    return result


def _equal_length_rows(sentences: TokenizedSentences) -> Iterator[EqualLengthRows]:
    """The distinct sentences by length, longest first, so that a lack of memory shows in the first batch."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, ids in enumerate(sentences.token_ids):
        by_length[len(ids)].append(number)
    for _, numbers in sorted(by_length.items(), reverse=True):
        yield EqualLengthRows(
            numbers,
            torch.tensor([sentences.token_ids[number] for number in numbers]),
            torch.tensor([sentences.words[number] for number in numbers]),
        )
