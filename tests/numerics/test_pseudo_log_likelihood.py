"""Sentence scores equal slow loops that ask Hugging Face's classes one sentence, and one mask, at a time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ModernBertForMaskedLM,
    ModernBertForTokenClassification,
)

from electrain.foundation.errors import DataError
from electrain.inference.evaluate import sentence_scores
from electrain.inference.evaluate.sentence_scores import one_pass_scores, pseudo_log_likelihoods, tokenize_sentences
from electrain.inference.model import load_detector, load_language_model

SENTENCES = [
    "The cats see the dogs.",
    "The cats sees the dogs.",
    "who saw a quickly unhappy cat?",
    "Xx is sad!",
    "the cats see the dogs .",  # the same tokens as the first
    "x",
]


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
@pytest.mark.parametrize("batch_tokens", [1, 40])
def test_discriminator_score_equals_one_sentence_at_a_time(
    tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, backbone: str, batch_tokens: int
) -> None:
    monkeypatch.setattr(sentence_scores, "BATCH_TOKENS", batch_tokens)
    folder = tiny_run(backbone) / ("model" if backbone == "electra" else "detector")
    kind = ElectraForPreTraining if backbone == "electra" else ModernBertForTokenClassification
    network, tokenizer = kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    expected = []
    for sentence in SENTENCES:
        with torch.no_grad():
            logits = network(**tokenizer(sentence, return_tensors="pt")).logits[0]
        is_original = torch.sigmoid(-logits) if backbone == "electra" else torch.softmax(logits, -1)[:, 0]
        expected.append(is_original[1:-1].log().double().numpy())
    detector = load_detector(tiny_run(backbone))
    scores = one_pass_scores(detector, tokenize_sentences(detector, SENTENCES), "discriminator")
    np.testing.assert_allclose(scores["discriminator"], [each.sum() for each in expected], rtol=1e-4)
    np.testing.assert_allclose(scores["discriminator_mean"], [each.mean() for each in expected], rtol=1e-4)


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
@pytest.mark.parametrize("batch_tokens", [1, 40])
def test_pseudo_log_likelihood_equals_one_mask_at_a_time(
    tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, backbone: str, batch_tokens: int
) -> None:
    monkeypatch.setattr(sentence_scores, "BATCH_TOKENS", batch_tokens)
    folder = tiny_run(backbone) / "generator"
    kind = ElectraForMaskedLM if backbone == "electra" else ModernBertForMaskedLM
    network, tokenizer = kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    sums, means, within_word = [], [], []
    for sentence in SENTENCES:
        encoding = tokenizer(sentence)
        ids, words = encoding["input_ids"], encoding.word_ids()
        single = [_log_probability(network, ids, place, {place}) for place in range(1, len(ids) - 1)]
        sums.append(sum(single))
        means.append(sum(single) / len(single))
        total = 0.0
        for place in range(1, len(ids) - 1):
            rest = {other for other in range(place, len(ids)) if words[other] == words[place]}
            total += _log_probability(network, ids, place, rest)
        within_word.append(total)
    language_model = load_language_model(tiny_run(backbone))
    sentences = tokenize_sentences(language_model, SENTENCES)
    scores = pseudo_log_likelihoods(language_model, sentences)
    np.testing.assert_allclose(scores["pseudo_log_likelihood"], sums, rtol=1e-4)
    np.testing.assert_allclose(scores["pseudo_log_likelihood_mean"], means, rtol=1e-4)
    np.testing.assert_allclose(scores["pseudo_log_likelihood_within_word"], within_word, rtol=1e-4)
    assert abs(within_word[2] - sums[2]) > 0.01, "the third sentence has words of several tokens"


def _log_probability(network: torch.nn.Module, ids: list[int], place: int, masked: set[int]) -> float:
    seen = [4 if other in masked else token for other, token in enumerate(ids)]
    with torch.no_grad():
        logits = network(torch.tensor([seen])).logits[0, place]
    return float(torch.log_softmax(logits, -1)[ids[place]])


def test_sentences_of_the_same_tokens_score_exactly_alike(tiny_run: Callable[..., Path]) -> None:
    detector = load_detector(tiny_run())
    sentences = tokenize_sentences(detector, SENTENCES)
    assert len(sentences.token_ids) == len(SENTENCES) - 1
    scores = one_pass_scores(detector, sentences, "discriminator")["discriminator"]
    assert scores[0] == scores[4]


@pytest.mark.parametrize("sentence", ["", " ", "cat " * 40])
def test_a_sentence_that_cannot_be_scored_is_refused(tiny_run: Callable[..., Path], sentence: str) -> None:
    detector = load_detector(tiny_run())
    with pytest.raises(DataError, match="a sentence must have a word and at most 24 tokens"):
        tokenize_sentences(detector, ["a cat", sentence])
