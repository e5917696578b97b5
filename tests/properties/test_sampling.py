"""Samples of the generator follow its softmax, and no gradient flows through them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from electrain.data.shards.rows import RowSource
from electrain.data.shards.shards import open_shards
from electrain.pretraining.build import build_objective, micro_batches, vocabulary_of
from electrain.pretraining.objectives.sampling import place_averaged_words, place_words, sample_words
from electrain.training.objective import MicroBatch
from tiny_pretraining import tiny_configuration

logit_rows = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=st.floats(-30, 30, width=32))
LAST_UNIFORM = 1 - 2**-24


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_follow_the_softmax(temperature: float) -> None:
    """Chi-square of 40,000 draws over 8 words; 7 degrees of freedom, p = 0.001."""
    draws = 40_000
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, 1.5, -2.0])
    uniforms = torch.rand(draws, generator=torch.Generator().manual_seed(4))
    words = sample_words(logits.expand(draws, -1), uniforms, temperature)
    expected = draws * torch.softmax(logits / temperature, dim=-1)
    counts = torch.bincount(words, minlength=8)
    assert float(((counts - expected) ** 2 / expected).sum()) < 24.3


@given(logit_rows, st.floats(0, LAST_UNIFORM, width=32), st.sampled_from([0.25, 1.0, 3.0]))
def test_a_word_of_probability_zero_is_never_drawn(logits: Any, uniform: float, temperature: float) -> None:
    """Whatever the uniform number, its two ends included; there is always a word."""
    table = torch.from_numpy(logits)
    table[:, 1::2] = -torch.inf
    for number in (0.0, uniform, LAST_UNIFORM):
        words = sample_words(table, torch.full((len(table),), number), temperature)
        assert (words < table.shape[1]).all()
        assert (torch.softmax(table / temperature, -1).gather(1, words.unsqueeze(1)) > 0).all()


@given(logit_rows)
def test_every_likely_word_is_drawn_by_some_number(logits: Any) -> None:
    """Never only the likeliest: the draw runs through all words of more than 1 in 200 as the number rises."""
    table = torch.from_numpy(logits)
    numbers = torch.linspace(0, LAST_UNIFORM, 401)
    for row in table:
        words = sample_words(row.expand(401, -1), numbers)
        assert (words.diff() >= 0).all()
        likely = torch.nonzero(torch.softmax(row, -1) > 1 / 200).flatten().tolist()
        assert set(likely) <= set(words.tolist())


def test_low_temperature_takes_the_likeliest() -> None:
    logits = torch.tensor([[1.0, 1.5, 0.0]]).expand(1000, -1)
    words = sample_words(logits, torch.rand(1000), 0.01)
    assert words.tolist() == [1] * 1000


def test_half_precision_logits_are_drawn_in_float32() -> None:
    """In bfloat16 the cumulative chance of ten thousand words would stop short of most of them."""
    logits = torch.randn(512, 10_000, generator=torch.Generator().manual_seed(2)).bfloat16()
    uniforms = torch.linspace(0, LAST_UNIFORM, 512)
    words = sample_words(logits, uniforms, 0.7)
    assert torch.equal(words, sample_words(logits.float(), uniforms, 0.7))
    assert words[-1] > 9900


def test_a_large_vocabulary_follows_the_softmax_too() -> None:
    """Chi-square of 40,000 draws over 600 words; 599 degrees of freedom, p = 0.001."""
    draws = 40_000
    logits = 0.5 * torch.randn(600, generator=torch.Generator().manual_seed(5))
    words = sample_words(logits.expand(draws, -1), torch.rand(draws, generator=torch.Generator().manual_seed(6)))
    expected = draws * torch.softmax(logits.double(), dim=-1)
    counts = torch.bincount(words, minlength=600)
    assert float(((counts - expected) ** 2 / expected).sum()) < 711


@given(st.integers(1, 1100), st.integers(1, 9), st.integers(0, 2**31), st.floats(0, LAST_UNIFORM, width=32))
def test_large_vocabularies_never_give_a_word_of_probability_zero(
    vocabulary: int, possible: int, seed: int, uniform: float
) -> None:
    """Few words possible among many, anywhere; each of them is drawn by some number."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.full((vocabulary,), -torch.inf)
    chosen = torch.randint(vocabulary, (possible,), generator=random)
    logits[chosen] = torch.rand(possible, generator=random)
    numbers = torch.cat([torch.tensor([0.0, uniform, LAST_UNIFORM]), torch.linspace(0, LAST_UNIFORM, 200)])
    words = sample_words(logits.expand(len(numbers), -1), numbers)
    assert set(words.tolist()) == set(chosen.tolist())


def test_placing_by_hand() -> None:
    ids = torch.tensor([[2, 10, 11, 12, 3], [2, 20, 21, 22, 3]])
    positions = torch.tensor([[1, 3], [2, 0]])
    is_selected = torch.tensor([[True, True], [True, False]])
    words = torch.tensor([[50, 12], [60, 99]])
    placed = place_words(ids, positions, is_selected, words)
    assert placed.tolist() == [[2, 50, 11, 12, 3], [2, 20, 60, 22, 3]]
    assert place_averaged_words(ids, positions, is_selected, words).tolist() == placed.tolist()


def test_colliding_words_are_averaged() -> None:
    """50, 53 and 56 at one place make 53; 50 and 53 make 51: rounded down."""
    ids = torch.tensor([[2, 10, 11, 3]])
    positions = torch.tensor([[1, 1, 1, 2, 2]])
    chosen = torch.ones(1, 5, dtype=torch.bool)
    placed = place_averaged_words(ids, positions, chosen, torch.tensor([[50, 53, 56, 50, 53]]))
    assert placed.tolist() == [[2, 53, 51, 3]]


def make(shards: Path, **sections: dict[str, Any]) -> tuple[Any, MicroBatch]:
    config = tiny_configuration(**sections)
    stream = open_shards(shards)
    objective = build_objective(config, vocabulary_size=stream.vocabulary_size, special_ids=stream.special_ids)
    rows = RowSource(stream, config.data, 0)
    batches = micro_batches(rows, config, vocabulary_of(stream.tokenizer))
    return objective, batches(0)[0]


def test_a_sample_equal_to_the_original_is_original(tiny_shards: Path) -> None:
    """With a generator that always restores the word nothing is replaced; with one that never does, all masked are."""
    objective, batch = make(tiny_shards)
    rows = batch.rows
    originals = rows.token_ids.gather(1, rows.positions)
    for is_right in (True, False):
        answers = originals if is_right else (originals + 1) % 106
        logits = torch.full((*originals.shape, 106), -50.0).scatter(-1, answers.unsqueeze(-1), 50.0)
        objective.generator.predict = lambda *_, logits=logits: (originals.float(), [logits])
        seen = objective(rows).observations
        assert int(seen["is_replaced"].sum()) == (0 if is_right else int(rows.is_selected.sum()))
        assert int(seen["generator_hits"]) == (int(rows.is_selected.sum()) if is_right else 0)
        assert torch.equal(seen["is_replaced"], seen["corrupted_ids"] != rows.token_ids)


def test_samples_stand_at_all_selected_positions(tiny_shards: Path) -> None:
    """Also at the 15% that kept their word: what the discriminator reads is no mixture with [MASK]."""
    objective, batch = make(tiny_shards)
    rows = batch.rows
    corrupted = objective(rows).observations["corrupted_ids"]
    logits = objective.generator(rows.masked_ids, rows.token_type_ids, None, rows.positions)
    words = sample_words(logits, rows.uniforms)
    row, slots = torch.nonzero(rows.is_selected, as_tuple=True)
    places = rows.positions[row, slots]
    assert torch.equal(corrupted[row, places], words[row, slots])
    untouched = torch.ones_like(corrupted, dtype=torch.bool)
    untouched[row, places] = False
    assert torch.equal(corrupted[untouched], rows.token_ids[untouched])


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
@pytest.mark.parametrize("sharing", ["separate", "shared"])
def test_detection_gives_the_generator_no_gradient(tiny_shards: Path, backbone: str, sharing: str) -> None:
    """But through the embeddings where they are shared."""
    objective, batch = make(
        tiny_shards, encoder={"backbone": backbone}, generator={"embedding_sharing": sharing, "size_fraction": 0.5}
    )
    objective(batch.rows).terms["discriminator"].total.backward()
    shared = {id(parameter) for parameter in objective.discriminator.parameters()}
    assert all(parameter.grad is not None for parameter in objective.discriminator.parameters())
    own = [parameter for parameter in objective.generator.parameters() if id(parameter) not in shared]
    assert own
    assert all(parameter.grad is None for parameter in own)
    reaches = [parameter for parameter in objective.generator.parameters() if id(parameter) in shared]
    assert bool(reaches) == (sharing == "shared" and backbone == "electra")


def test_generator_loss_gives_the_discriminator_no_gradient(tiny_shards: Path) -> None:
    objective, batch = make(tiny_shards, generator={"embedding_sharing": "separate"})
    objective(batch.rows).terms["generator"].total.backward()
    assert all(parameter.grad is None for parameter in objective.discriminator.parameters())
    assert all(parameter.grad is not None for parameter in objective.generator.parameters())
