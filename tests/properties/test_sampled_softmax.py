"""Comparing with a few words estimates what comparing with all of them gives."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from regenerate import OBJECTIVES

from electrain.models.heads import WordRows, compared_logits
from electrain.pretraining.objectives.corruption import propose
from electrain.pretraining.objectives.head_losses import is_likeliest, word_loss
from electrain.pretraining.objectives.rows import Rows
from electrain.pretraining.objectives.sampling import compared_words
from tiny_pretraining import batches_of, objective_of, tiny_configuration

SAMPLED = [name for name in OBJECTIVES if name.startswith("sampled_softmax")]


def made(shards: Path, name: str, **training: Any) -> tuple[Any, Rows]:
    """The objective, with widely spread weights, and the rows of its first step."""
    sections = {**OBJECTIVES[name]}
    sections["training"] = {**sections["training"], **training}
    config = tiny_configuration(**sections)
    return objective_of(config, shards), batches_of(config, shards)(0)[0].rows


@given(st.permutations(range(40)), st.integers(3, 39), st.integers(0, 2**31), st.integers(0, 10**6))
def test_the_most_frequent_are_always_there_and_all_words_are_stood_for(
    order: list[int], count: int, seed: int, step: int
) -> None:
    words, weights = compared_words(torch.tensor(order), count, seed, step)
    frequent, drawn = order[: count - count // 3], count // 3
    assert words.tolist() == sorted(set(words.tolist()))
    assert len(words) == len(weights) == count
    assert set(frequent) <= set(words.tolist())
    stand_for = dict(zip(words.tolist(), weights.exp().tolist(), strict=True))
    assert all(stand_for[word] == 1 for word in frequent)
    others = [number for word, number in stand_for.items() if word not in frequent]
    assert others == pytest.approx([(40 - len(frequent)) / drawn] * drawn)
    assert torch.equal(words, compared_words(torch.tensor(order), count, seed, step)[0])


def test_every_other_word_is_drawn_as_often() -> None:
    """10 of 80 rare words in each of 4,000 steps: 500 times each, give or take four deviations of 21."""
    drawn = torch.zeros(100)
    for step in range(4000):
        drawn[compared_words(torch.arange(99, -1, -1), 30, 7, step)[0]] += 1
    assert (drawn[80:] == 4000).all()
    assert (drawn[:80] - 500).abs().max() < 84


@pytest.mark.parametrize("name", SAMPLED)
def test_logits_are_those_of_the_whole_vocabulary(tiny_shards: Path, name: str) -> None:
    objective, rows = made(tiny_shards, name)
    assert rows.compared is not None
    whole = rows._replace(compared=None, compared_weights=None)
    columns = torch.cat([rows.originals.unsqueeze(-1), rows.compared.expand(*rows.positions.shape, -1)], -1)
    if name.endswith("modelling"):
        given_rows = (rows.masked_ids, rows.token_type_ids, rows.attention_mask)
        few = objective.model.predict(objective.model.read(*given_rows, words=rows.words), rows.positions)[1]
        every = objective.model.predict(objective.model.read(*given_rows), rows.positions)[1]
    else:
        few = propose(rows, objective.generator, objective.proposals).logits
        every = propose(whole, objective.generator, objective.proposals).logits
        head, table = objective.discriminator.correction, objective.discriminator.word_embeddings.weight
        hidden = torch.randn(*rows.positions.shape, 32)
        few.append(head(hidden, head.rows(rows.words, table)))
        every.append(head(hidden, table))
    for ours, theirs in zip(few, every, strict=True):
        torch.testing.assert_close(ours, theirs.gather(-1, columns), rtol=1e-4, atol=1e-5)


def test_the_loss_by_hand() -> None:
    """Words 1, 2 and 4 of a large vocabulary, where 4 stands for three; originals 2, 4 and 9, which is not there."""
    nothing = torch.zeros(1, 3, dtype=torch.int64)
    rows = Rows(torch.tensor([[2, 4, 9]]), nothing, None, nothing > 0, nothing, torch.tensor([[0, 1, 2]]),
                nothing == 0, nothing.float(), compared=torch.tensor([1, 2, 4]),
                compared_weights=torch.tensor([1.0, 1.0, 3.0]).log())  # fmt: skip
    likelihoods = torch.tensor([[[5.0, 2.0, 5.0, 1.0], [7.0, 2.0, 5.0, 7.0], [4.0, 2.0, 5.0, 1.0]]])
    losses = [
        word_loss(rows.answerable(likelihoods.log()), rows.answers, torch.arange(3)[None] == place)
        for place in range(3)
    ]
    # The original counts once: at its own place where it is compared anyway, and even if it stands for others there.
    right = torch.tensor([5 / (2 + 5 + 3 * 1), 7 / (2 + 5 + 7), 4 / (4 + 2 + 5 + 3 * 1)])
    torch.testing.assert_close(torch.stack(losses), -right.log())
    chances = rows.proposable(likelihoods.log()).softmax(-1)
    torch.testing.assert_close(chances[0, 2], torch.tensor([2 / 10, 5 / 10, 3 / 10]))
    cooler = rows._replace(temperature=torch.tensor(0.5)).proposable(likelihoods.log()).softmax(-1)
    torch.testing.assert_close(cooler[0, 2], torch.tensor([4 / 32, 25 / 32, 3 / 32]))


@pytest.mark.parametrize("name", SAMPLED)
def test_the_mean_of_many_steps_is_the_loss_of_all_words(tiny_shards: Path, name: str) -> None:
    """Two thirds of the vocabulary, the words of 300 steps with the same rows: within three hundredths.

    The mean of the logarithm of a sum lies a little below the logarithm of its mean.
    """
    objective, rows = made(tiny_shards, name)
    term = "masked_language_model" if name.endswith("modelling") else "generator"
    losses = []
    for step in range(300):
        words, weights = compared_words(torch.arange(106), 72, 0, step)
        with torch.no_grad():
            losses.append(objective(rows._replace(compared=words, compared_weights=weights)).terms[term].total)
    whole = objective(rows._replace(compared=None, compared_weights=None)).terms[term].total.detach()
    torch.testing.assert_close(torch.stack(losses).mean(), whole, rtol=0.03, atol=0)


def test_only_compared_words_are_proposed(tiny_shards: Path) -> None:
    objective, rows = made(tiny_shards, "sampled_softmax")
    proposal = propose(rows, objective.generator, objective.proposals)
    assert rows.compared is not None
    assert torch.isin(proposal.words, rows.compared).all()
    assert not torch.equal(proposal.words, rows.originals)


def test_a_step_has_its_own_words_whatever_its_rows(tiny_shards: Path) -> None:
    """Micro-batches of a step share them; steps and seeds differ; a vocabulary below twice as many is taken whole."""

    def compared(step: int, **training: Any) -> list[list[int]]:
        config = tiny_configuration(training={"softmax_words": 36, **training})
        found = [batch.rows.compared for batch in batches_of(config, tiny_shards)(step)]
        return [each.tolist() for each in found if each is not None]

    (one,) = compared(3)
    assert compared(3, micro_batch_rows=2) == [one] * 4
    assert compared(3, batch_rows=4) == [one]
    assert compared(4) != [one]
    assert compared(3, seed=1) != [one]
    assert compared(3, softmax_words=54) == []
    assert len(compared(3, softmax_words=53)[0]) == 53


def test_hits_are_those_among_the_compared_words(tiny_shards: Path) -> None:
    """An original among the compared words is computed twice, and must not lose against itself by rounding."""
    _, rows = made(tiny_shards, "sampled_softmax")
    assert rows.compared is not None
    weight = torch.randn(len(rows.compared) + rows.positions.numel(), 24)
    place = torch.searchsorted(rows.compared, rows.originals.flatten()).clamp(max=len(rows.compared) - 1)
    is_there = rows.compared[place] == rows.originals.flatten()
    assert is_there.any()
    weight[: len(rows.compared)][place[is_there]] = weight[len(rows.compared) :][is_there]
    features = 9 * weight[len(rows.compared) :].view(*rows.positions.shape, 24)  # each likes its own original best
    logits = compared_logits(features, WordRows(weight, None))
    seen = is_there.view(rows.positions.shape) & rows.is_selected
    assert is_likeliest(rows.distinct(logits), rows.answers)[seen].float().mean() > 0.95
