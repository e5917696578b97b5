"""What a probe says is about texts that did not fit it, and its standard error counts texts, not words."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from electrain.pretraining.best_checkpoint import ProbedStep, best_of, probed_steps
from electrain.pretraining.probe import Probe, ProbeText, places_of, states_of

WORDS, TEXTS, PER_TEXT = 40, 200, 10


class Table(nn.Module):
    """An encoder whose states are embeddings, so that it knows the words and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.dropout = nn.Embedding(WORDS, 64), nn.Dropout(0.5)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        states = self.dropout(self.embedding(input_ids))
        return SimpleNamespace(hidden_states=(states, 2 * states))


def texts_of(seed: int, label: Any, wrong: float = 0.0) -> list[ProbeText]:
    """Texts of random words; of a fraction of the texts, all labels are wrong."""
    random, texts = np.random.default_rng(seed), []
    for _ in range(TEXTS):
        ids = random.integers(1, WORDS, PER_TEXT)
        is_wrong = random.random() < wrong
        texts.append(ProbeText(ids, np.arange(PER_TEXT)[:, None], [str(label(one, random) ^ is_wrong) for one in ids]))
    return texts


def score_of(fitted: list[ProbeText], scored: list[ProbeText]) -> Any:
    return Probe(fitted, scored, 0).score(Table(), nullcontext())  # type: ignore[arg-type]


def test_what_the_states_know_is_found() -> None:
    by_word = texts_of(1, lambda word, _: bool(word % 2)), texts_of(2, lambda word, _: bool(word % 2))
    found = score_of(*by_word)
    assert (found.accuracy, found.standard_error) == (100.0, 0.0)


def test_what_only_the_fitted_texts_know_is_not_counted() -> None:
    drawn = [texts_of(seed, lambda _, random: bool(random.random() < 0.5)) for seed in (1, 2)]
    assert score_of(*drawn).accuracy == pytest.approx(50, abs=4)


def test_the_standard_error_is_that_of_texts() -> None:
    """Where a text is all right or all wrong, ten words of it say no more than one."""
    truth = texts_of(1, lambda word, _: bool(word % 2))
    found = score_of(truth, texts_of(2, lambda word, _: bool(word % 2), wrong=0.3))
    chance = found.accuracy / 100
    assert chance == pytest.approx(0.7, abs=0.08)
    assert found.standard_error == pytest.approx(100 * (chance * (1 - chance) / (TEXTS - 1)) ** 0.5, rel=1e-6)


def test_the_encoder_and_the_random_numbers_stay_as_they_are() -> None:
    encoder, texts = Table().train(), texts_of(1, lambda word, _: bool(word % 2))
    before, state = {name: x.clone() for name, x in encoder.state_dict().items()}, torch.get_rng_state()
    scores = [Probe(texts, texts, 0).score(encoder, nullcontext()) for _ in range(2)]  # type: ignore[arg-type]
    assert scores[0] == scores[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert encoder.training
    assert encoder.dropout.training
    assert all(torch.equal(x, before[name]) for name, x in encoder.state_dict().items())


def test_numbers_that_are_not_finite_end_no_run() -> None:
    encoder, texts = Table(), texts_of(1, lambda word, _: bool(word % 2))
    nn.init.constant_(encoder.embedding.weight, torch.nan)
    assert Probe(texts, texts, 0).score(encoder, nullcontext()).accuracy < 70  # type: ignore[arg-type]


def test_each_text_gets_its_own_states_whatever_its_length() -> None:
    """Texts are read in the order of their lengths, with padding."""
    encoder = Table().eval()
    ids = [np.array([3, 1, 2, 5]), np.array([7]), np.array([4, 4])]
    texts = [ProbeText(one, np.array([[0], [len(one) - 1]]), ["a", "b"]) for one in ids]
    for text, states in zip(texts, states_of(encoder, texts, 0), strict=True):  # type: ignore[arg-type]
        expected = encoder.embedding.weight[torch.from_numpy(text.ids[[0, -1]])].detach().numpy()
        assert states.shape == (2, 2, 64)
        np.testing.assert_array_equal(states[:, 0], expected)
        np.testing.assert_array_equal(states[:, 1], 2 * expected)


def test_places_are_first_pieces_or_all_pieces() -> None:
    words = [None, 0, 0, 1, 2, 2, None]
    assert places_of(words, is_pooled=False).tolist() == [[1], [3], [4]]
    assert places_of(words, is_pooled=True).tolist() == [[1, 2, 3, 4, 5]]
    assert places_of([None, None], is_pooled=False).size == places_of([None, None], is_pooled=True).size == 0


def test_the_best_is_the_last_of_equal_ones_and_odd_lines_are_left_out() -> None:
    lines: list[dict[str, Any]] = [
        {"event": "probe", "step": 1, "probe_accuracy": 60.0, "probe_standard_error": 1.0},
        {"event": "probe", "step": 2, "probe_accuracy": 60.0},
        {"event": "probe", "step": 3, "probe_accuracy": None},
        {"event": "log", "step": 4, "probe_accuracy": 90.0},
    ]
    assert best_of(probed_steps(lines)) == ProbedStep(2, 60.0, 0.0)
    assert best_of([]) is None
