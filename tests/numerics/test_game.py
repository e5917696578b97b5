"""The adversarial estimators against exact enumeration, and what reaches the generator from the discriminator."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from electrain.pretraining.objectives.game import (
    gumbel_noise,
    mixed_logits,
    policy_gradient_losses,
    relaxed_words,
    reversed_straight_through,
    rewards,
)
from electrain.pretraining.objectives.sampling import sample_words
from tiny_pretraining import batches_of, objective_of, tiny_configuration

VOCABULARY = 5


def reward_table() -> torch.Tensor:
    """What each word of a tiny vocabulary earns."""
    return torch.tensor([0.1, 2.0, -1.0, 0.5, 1.2])


def test_rewards_are_the_discriminators_cross_entropy() -> None:
    logits, is_replaced = torch.tensor([0.0, math.log(3), math.log(3)]), torch.tensor([True, True, False])
    assert rewards(logits, is_replaced).tolist() == pytest.approx([math.log(2), math.log(4 / 3), math.log(4)])


def test_policy_gradient_equals_exact_enumeration() -> None:
    """Averaged over every word with its probability, the estimate is minus the gradient of the expected reward."""
    torch.manual_seed(0)
    logits = torch.randn(VOCABULARY, requires_grad=True)
    table = reward_table()
    (exact,) = torch.autograd.grad((torch.softmax(logits, 0) * table).sum(), logits)
    for baseline in (0.0, 0.7):
        estimate = torch.zeros(VOCABULARY)
        for word in range(VOCABULARY):
            loss = policy_gradient_losses(
                logits[None], torch.tensor([word]), table[word][None], torch.tensor([baseline])
            ).sum()
            (gradient,) = torch.autograd.grad(loss, logits)
            estimate += torch.softmax(logits.detach(), 0)[word] * gradient
        torch.testing.assert_close(-estimate, exact, rtol=1e-5, atol=1e-6)


def test_policy_gradient_equals_enumeration_over_two_positions() -> None:
    """Two words at once, each with a reward of its own that also depends on the other: the sum stays unbiased for the
    part of the gradient that goes through each word's own chance."""
    torch.manual_seed(1)
    logits = torch.randn(2, 3, requires_grad=True)
    table = torch.randn(2, 3, 3)  # the reward of position p when the words are (a, b)
    chances = torch.softmax(logits, -1)
    fixed = chances.detach()
    own = sum(
        chances[0, a] * fixed[1, b] * table[0, a, b] + fixed[0, a] * chances[1, b] * table[1, a, b]
        for a, b in product(range(3), repeat=2)
    )
    (exact,) = torch.autograd.grad(own, logits)
    estimate = torch.zeros(2, 3)
    for a, b in product(range(3), repeat=2):
        loss = policy_gradient_losses(logits, torch.tensor([a, b]), table[:, a, b], torch.zeros(2)).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        estimate += fixed[0, a] * fixed[1, b] * gradient
    torch.testing.assert_close(-estimate, exact, rtol=1e-5, atol=1e-6)


def uniforms_of(count: int) -> torch.Tensor:
    return torch.rand(count, 1, generator=torch.Generator().manual_seed(3))


def test_gumbel_words_follow_the_softmax() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5])
    count = 40_000
    noise = gumbel_noise(uniforms_of(count), VOCABULARY)
    words, _ = relaxed_words(logits.expand(count, 1, -1), noise, 1.0)
    seen = torch.bincount(words.flatten(), minlength=VOCABULARY) / count
    # four standard deviations of a share are at most 0.01 here
    torch.testing.assert_close(seen, torch.softmax(logits, 0), rtol=0, atol=0.01)


def test_gumbel_noise_is_a_function_of_its_position_alone() -> None:
    uniforms = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    noise = gumbel_noise(uniforms, 7)
    assert torch.equal(gumbel_noise(uniforms[[1]], 7), noise[[1]])
    assert torch.equal(gumbel_noise(uniforms, 5), noise[..., :5])
    assert noise.unique().numel() == noise.numel()
    assert float(gumbel_noise(uniforms_of(20_000), 1).mean()) == pytest.approx(0.5772, abs=0.04)


def test_relaxed_words_become_the_words_as_the_temperature_falls() -> None:
    logits = torch.randn(50, 1, VOCABULARY, generator=torch.Generator().manual_seed(1))
    noise = gumbel_noise(uniforms_of(50), VOCABULARY)
    words, soft = relaxed_words(logits, noise, 1e-3)
    one_hot = functional.one_hot(words, VOCABULARY).float()
    assert float((soft - one_hot).abs().max()) < 0.5
    assert float((soft - one_hot).abs().mean()) < 0.01
    assert torch.equal(words, relaxed_words(logits, noise, 5.0)[0])


def test_gumbel_gradient_tends_to_the_exact_one() -> None:
    """Of a linear reward, averaged over much noise; the bias falls with the temperature."""
    logits = torch.tensor([0.3, -0.2, 0.8, 0.0, -0.5], requires_grad=True)
    table = reward_table()
    (exact,) = torch.autograd.grad((torch.softmax(logits, 0) * table).sum(), logits)
    count = 200_000
    noise = gumbel_noise(uniforms_of(count), VOCABULARY)
    errors = []
    for temperature in (2.0, 0.3):
        _, soft = relaxed_words(logits.expand(count, 1, -1), noise, temperature)
        (gradient,) = torch.autograd.grad((soft.squeeze(1) @ table).mean(), logits)
        errors.append(float((gradient - exact).norm() / exact.norm()))
    assert errors[1] < 0.05 < errors[0]


def test_reversed_words_change_nothing_forward_and_the_sign_backward() -> None:
    soft = torch.softmax(torch.randn(2, 3, VOCABULARY), -1).requires_grad_()
    table = torch.randn(VOCABULARY, 4, requires_grad=True)
    weights = torch.randn(2, 3, 4)
    added = reversed_straight_through(soft, table, 0.5)
    assert torch.equal(added, torch.zeros_like(added))
    (added * weights).sum().backward()
    torch.testing.assert_close(soft.grad, -0.5 * weights @ table.detach().T)
    assert table.grad is None


def test_a_mixture_gives_gradient_to_its_weights_alone() -> None:
    parts = [torch.randn(2, 3, VOCABULARY, requires_grad=True) for _ in range(2)]
    weights = torch.randn(2, 3, 2, requires_grad=True)
    mixed = mixed_logits(parts, weights)
    chances = torch.softmax(weights, -1)
    expected = sum(chances[..., [k]] * torch.softmax(parts[k], -1) for k in range(2))
    torch.testing.assert_close(mixed.exp(), expected)
    mixed[0, 0, 1].backward()
    assert weights.grad is not None
    assert all(part.grad is None for part in parts)


ADVERSARIES = ["likelihood", "policy-gradient", "gumbel", "mixture"]


@pytest.mark.parametrize("training", ADVERSARIES)
def test_only_the_chosen_estimator_reaches_the_generator(tiny_shards: Path, training: str) -> None:
    """The detection loss alone gives the generator a gradient through relaxed words only, where there are any."""
    config = tiny_configuration(generator={"training": training, "embedding_sharing": "separate"})
    objective = objective_of(config, tiny_shards)
    outcome = objective(batches_of(config, tiny_shards)(0)[0].rows)
    gradients = generator_gradients(objective, outcome.terms["discriminator"].total)
    reached = {"gumbel": {"generator"}, "mixture": {"mixture"}}
    assert gradients == reached.get(training, set())
    if training == "policy-gradient":
        assert generator_gradients(objective, outcome.terms["policy"].total) == {"generator"}
        assert generator_gradients(objective, outcome.terms["baseline"].total) == {"baseline"}
        touched = torch.autograd.grad(
            outcome.terms["policy"].total,
            list(objective.discriminator.parameters()),
            allow_unused=True,
            retain_graph=True,
        )
        assert all(gradient is None for gradient in touched)


def generator_gradients(objective: Any, loss: torch.Tensor) -> set[str]:
    """Which parts outside the discriminator a loss gives a gradient."""
    named = [(name, p) for name, p in objective.named_parameters() if not name.startswith("discriminator")]
    gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True, retain_graph=True)
    return {
        name.split(".")[0]
        for (name, _), gradient in zip(named, gradients, strict=True)
        if gradient is not None and float(gradient.abs().sum()) > 0
    }


def test_relaxed_words_leave_the_discriminators_own_gradient_as_it_is(tiny_shards: Path) -> None:
    """Minimising over the discriminator is the same step whether or not its gradient is passed on, reversed."""
    results = {}
    for weight in (0.0, 1.0):
        config = tiny_configuration(
            generator={"training": "gumbel", "embedding_sharing": "separate"}, game={"adversarial_weight": weight}
        )
        objective = objective_of(config, tiny_shards)
        outcome = objective(batches_of(config, tiny_shards)(0)[0].rows)
        parameters = list(objective.discriminator.parameters())
        results[weight] = torch.autograd.grad(outcome.terms["discriminator"].total, parameters)
    for without, with_it in zip(*results.values(), strict=True):
        torch.testing.assert_close(without, with_it, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("at", ["all", "selected"])
def test_relaxed_words_are_worth_as_much_as_a_reward_at_every_masked_fraction(tiny_shards: Path, at: str) -> None:
    config = tiny_configuration(
        generator={"training": "gumbel"},
        corruption={"masked_fraction": 0.1, "last_masked_fraction": 0.4},
        discriminator={"detection_at": at, "loss_weight": 20.0},
        training={"steps": 11},
    )
    of_step = batches_of(config, tiny_shards)
    for step, fraction in ((0, 0.1), (5, 0.25), (10, 0.4)):
        asked_for_each = fraction if at == "all" else 1.0
        assert float(of_step(step)[0].rows.reversal) == pytest.approx(1 / (20 * asked_for_each))


def test_the_journal_is_told_of_the_mixture_not_of_one_depth(tiny_shards: Path) -> None:
    config = tiny_configuration(generator={"training": "mixture"})
    objective = objective_of(config, tiny_shards, spread=0.5)
    rows = batches_of(config, tiny_shards)(0)[0].rows
    seen = objective(rows).observations
    hidden, logits = objective.generator.propose(
        rows.masked_ids,
        rows.token_type_ids,
        rows.attention_mask,
        rows.positions,
        objective.proposals.depths,
    )
    weights = torch.softmax(objective.mixture(hidden), -1)
    chances = sum(weights[..., [k]] * torch.softmax(logits[k], -1) for k in range(len(logits)))
    entropies = -(chances * chances.log()).sum(-1)
    expected = float(entropies[rows.is_selected].sum().detach())
    assert float(seen["generator_entropy"]) == pytest.approx(expected, rel=1e-4)


def test_the_gumbel_gradient_ascends_the_discriminators_loss(tiny_shards: Path) -> None:
    """A small step of the generator along it makes the discriminator's expected loss larger."""
    config = tiny_configuration(
        generator={"training": "gumbel", "embedding_sharing": "separate"},
        game={"likelihood_weight": 0.0, "gumbel_temperature": 0.3},
    )
    objective = objective_of(config, tiny_shards, spread=0.3)
    parameters = list(objective.generator.parameters())

    def mean_loss(seed: int) -> torch.Tensor:
        rows = batches_of(config, tiny_shards)(0)[0].rows
        rows = rows._replace(uniforms=torch.rand(rows.uniforms.shape, generator=torch.Generator().manual_seed(seed)))
        return objective(rows).terms["discriminator"].total

    gradients = [torch.zeros_like(parameter) for parameter in parameters]
    for seed in range(60):
        for total, gradient in zip(
            gradients, torch.autograd.grad(mean_loss(seed), parameters, allow_unused=True), strict=True
        ):
            total += 0 if gradient is None else gradient / 60
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    with torch.no_grad():
        before = sum(float(mean_loss(seed)) for seed in range(100, 160)) / 60
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1.0 * gradient / norm  # what descending on the reversed gradient does
        after = sum(float(mean_loss(seed)) for seed in range(100, 160)) / 60
    assert after > before


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_of_both_kinds_follow_the_same_distribution(temperature: float) -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5])
    count = 40_000
    drawn = sample_words(logits.expand(count, -1), uniforms_of(count).squeeze(1), torch.tensor(temperature))
    seen = torch.bincount(drawn, minlength=VOCABULARY) / count
    torch.testing.assert_close(seen, torch.softmax(logits / temperature, 0), rtol=0, atol=0.01)
