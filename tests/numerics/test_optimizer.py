"""Optimizers and learning rates against hand-worked values."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from electrain.pretraining.build import build_objective
from electrain.training.objective import Objective, Outcome
from electrain.training.optimizer import (
    AdamWithoutBiasCorrection,
    build_optimizers,
    clip_gradients,
    learning_rate,
    optimizer_tensors,
    restore_optimizers,
    set_learning_rate,
    trained_networks,
)
from electrain.training.settings import ParityConfig, TrainingConfig
from tiny_pretraining import SPECIAL_IDS, objective_of, tiny_configuration

MULTIPLIED = ParityConfig(multiplied_warmup=True)


def test_adam_without_bias_correction_equals_a_scalar_loop() -> None:
    """Against BERT's optimizer written out: m / (sqrt(v) + 1e-6) + decay x weight, times the rate."""
    gradients = [[0.5, -2.0], [1.0, 0.0], [-0.25, 3.0], [0.0, 1e-7]]
    rate, decay = 0.1, 0.01
    expected, first, second = [1.0, -3.0], [0.0, 0.0], [0.0, 0.0]
    parameter = nn.Parameter(torch.tensor(expected, dtype=torch.float64))
    optimizer = AdamWithoutBiasCorrection([{"params": [parameter], "weight_decay": decay}], lr=rate)
    for pair in gradients:
        for index, gradient in enumerate(pair):
            first[index] = 0.9 * first[index] + 0.1 * gradient
            second[index] = 0.999 * second[index] + 0.001 * gradient**2
            update = first[index] / (math.sqrt(second[index]) + 1e-6) + decay * expected[index]
            expected[index] -= rate * update
        parameter.grad = torch.tensor(pair, dtype=torch.float64)
        optimizer.step()
    assert parameter.tolist() == pytest.approx(expected, rel=1e-12)


class TwoLayers(Objective[Any]):
    """Parameters named as those outside and inside a network's layers are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4))
        self.layer = nn.Sequential(nn.Linear(4, 4))

    def prepare(self, rows: Any, device: torch.device) -> Any:
        raise NotImplementedError

    def forward(self, rows: Any) -> Outcome:
        raise NotImplementedError


def test_first_update_without_bias_correction_is_three_times_adams() -> None:
    """0.1 / sqrt(0.001) = 3.16 times the learning rate, where Adam takes the learning rate."""
    sizes = {}
    for parity in (ParityConfig(), ParityConfig(no_bias_correction=True)):
        model = TwoLayers()
        weight = model.body[0].weight
        before = weight[0, 0].item()
        training = TrainingConfig(10, 1, 0.01, 0, weight_decay=0.0)
        (optimizer,) = build_optimizers(model, training, parity)
        weight.grad = torch.full_like(weight, 7.0)
        optimizer.step()
        sizes[parity.no_bias_correction] = before - weight[0, 0].item()
    assert sizes[False] == pytest.approx(0.01, rel=1e-4)
    assert sizes[True] == pytest.approx(0.0316228, rel=1e-4)


def test_a_parameter_without_gradient_stays() -> None:
    parameter = nn.Parameter(torch.ones(2))
    AdamWithoutBiasCorrection([{"params": [parameter], "weight_decay": 0.5}], lr=0.1).step()
    assert parameter.tolist() == [1.0, 1.0]


def rates(schedule: Any, parity: ParityConfig, warmup: int = 2) -> list[float]:
    training = TrainingConfig(10, 1, 0.6, warmup, schedule=schedule)
    return [learning_rate(step, training, parity) for step in range(10)]


def test_linear_schedule_by_hand() -> None:
    by_hand = [0.3, 0.6, 0.6, 0.525, 0.45, 0.375, 0.3, 0.225, 0.15, 0.075]
    assert rates("linear", ParityConfig()) == pytest.approx(by_hand)


def test_multiplied_schedule_by_hand() -> None:
    """Warm-up (1/2, 1, 1 ...) times decay over all steps (1, 0.9, 0.8 ...): the peak is never quite reached."""
    by_hand = [0.3, 0.54, 0.48, 0.42, 0.36, 0.3, 0.24, 0.18, 0.12, 0.06]
    assert rates("linear", MULTIPLIED) == pytest.approx(by_hand)


def test_warmup_stable_decay_by_hand() -> None:
    assert rates("warmup-stable-decay", ParityConfig()) == pytest.approx([0.3] + [0.6] * 8 + [0.3])


@pytest.mark.parametrize("schedule", ["linear", "warmup-stable-decay"])
def test_without_warmup_the_first_rate_is_the_peak(schedule: str) -> None:
    assert rates(schedule, ParityConfig(), warmup=0)[0] == 0.6
    assert all(rate > 0 for rate in rates(schedule, ParityConfig(), warmup=0))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_biases_and_layer_norms_are_not_decayed(backbone: str, optimizer: Any) -> None:
    config = tiny_configuration(encoder={"backbone": backbone}, training={"optimizer": optimizer})
    objective = build_objective(config, vocabulary_size=60, special_ids=SPECIAL_IDS)
    optimizers = build_optimizers(objective, config.training, config.parity)
    decays: dict[int, float] = {}
    for one in optimizers:
        for group in one.param_groups:
            for parameter in group["params"]:
                assert id(parameter) not in decays
                decays[id(parameter)] = group["weight_decay"]
    for name, parameter in objective.named_parameters():
        is_free = name.endswith("bias") or "norm" in name.lower()
        assert decays.pop(id(parameter)) == (0.0 if is_free else 0.01), name
    assert not decays


def test_muon_takes_the_matrices_inside_the_layers_only() -> None:
    config = tiny_configuration(training={"optimizer": "muon"})
    objective = build_objective(config, vocabulary_size=60, special_ids=SPECIAL_IDS)
    _, muon = build_optimizers(objective, config.training, config.parity)
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    taken = [names[id(parameter)] for group in muon.param_groups for parameter in group["params"]]
    assert len(taken) == 2 * 2 * 6  # two networks, two layers, six matrices in each
    assert all(".encoder.layer." in name and name.endswith("weight") for name in taken)


def test_muon_takes_the_matrices_of_a_gpt2_generator_too() -> None:
    config = tiny_configuration(training={"optimizer": "muon"}, generator={"kind": "causal"})
    objective = build_objective(config, vocabulary_size=60, special_ids=SPECIAL_IDS)
    _, muon = build_optimizers(objective, config.training, config.parity)
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    taken = [names[id(parameter)] for group in muon.param_groups for parameter in group["params"]]
    of_generator = [name for name in taken if name.startswith("generator.")]
    assert len(of_generator) == 2 * 4  # two layers; attention's and the feed-forward network's two matrices each
    assert all(".h." in name and name.endswith("weight") for name in of_generator)


@pytest.mark.parametrize("parity", [ParityConfig(), ParityConfig(no_bias_correction=True)])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_survives_naming(parity: ParityConfig, optimizer: Any) -> None:
    """Three updates = two, the states written out by name and read into new optimizers, and one more."""
    training = TrainingConfig(10, 1, 0.01, 0, optimizer=optimizer)

    def model() -> TwoLayers:
        torch.manual_seed(1)
        return TwoLayers()

    def update(network: nn.Module, optimizers: list[Any], seed: int) -> None:
        torch.manual_seed(seed)
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        for one in optimizers:
            one.step()

    straight = model()
    optimizers = build_optimizers(straight, training, parity)
    for seed in range(3):
        update(straight, optimizers, seed)
    first = model()
    optimizers = build_optimizers(first, training, parity)
    update(first, optimizers, 0)
    update(first, optimizers, 1)
    second = model()
    second.load_state_dict(first.state_dict())
    restored = build_optimizers(second, training, parity)
    restore_optimizers(restored, second, optimizer_tensors(optimizers, first))
    update(second, restored, 2)
    for one, other in zip(straight.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_generator_with_its_own_rate_is_another_networks_affair(tiny_shards: Path) -> None:
    """Two sets of optimizers, each clipped by itself; shared embeddings belong to the discriminator."""
    config = tiny_configuration(training={"generator_peak_learning_rate": 5e-4, "optimizer": "muon"})
    objective = objective_of(config, tiny_shards)
    judge, generator = trained_networks(objective, config.training)
    assert {name.split(".")[0] for name, _ in judge} == {"discriminator"}
    assert {name.split(".")[0] for name, _ in generator} == {"generator"}
    assert any("word_embeddings" in name for name, _ in judge)
    optimizers = build_optimizers(objective, config.training, config.parity)
    set_learning_rate(optimizers, 1e-3)
    rates = {group["lr"] for optimizer in optimizers[:2] for group in optimizer.param_groups}
    assert rates == {1e-3}
    rates = {group["lr"] for optimizer in optimizers[2:] for group in optimizer.param_groups}
    assert list(rates) == [pytest.approx(1e-3 * 5e-4 / 2e-3)]
    for number, (_, parameter) in enumerate([*judge, *generator]):
        parameter.grad = torch.full_like(parameter, 1e-6 if number >= len(judge) else 10.0)
    before = [parameter.grad.clone() for _, parameter in generator]  # type: ignore[union-attr]
    clip_gradients([judge, generator])
    assert float(torch.cat([p.grad.flatten() for _, p in judge]).norm()) == pytest.approx(1.0, rel=1e-3)  # type: ignore[union-attr]
    assert all(torch.equal(p.grad, old) for (_, p), old in zip(generator, before, strict=True))  # type: ignore[arg-type]
