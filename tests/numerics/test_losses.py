"""Losses equal Hugging Face's and hand-worked ones, and do not depend on how a step is cut into micro-batches."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from electrain.pretrain.configuration import PretrainConfig
from electrain.pretrain.objectives.head_losses import replaced_token_loss
from electrain.training import loop, optimizer
from electrain.training.loop import RunState, StepResult, train
from electrain.training.objective import Outcome, word_loss
from electrain.training.optimizer import build_optimizers
from electrain.training.runtime import Runtime
from tiny_pretraining import batches_of, objective_of, tiny_configuration

CPU = Runtime(torch.device("cpu"), 0, 1, torch.float32)
PADDED = {"reference_packing": True}


def labels_of(tensors: dict[str, Any]) -> torch.Tensor:
    """Hugging Face's labels: the word where a position is selected, -100 elsewhere."""
    labels = torch.full_like(tensors["token_ids"], -100)
    rows, slots = torch.nonzero(tensors["is_selected"], as_tuple=True)
    places = tensors["positions"][rows, slots]
    labels[rows, places] = tensors["token_ids"][rows, places]
    return labels


def inputs_of(tensors: dict[str, Any], backbone: str) -> dict[str, Any]:
    types = {"token_type_ids": tensors["token_type_ids"]} if backbone == "electra" else {}
    return {"attention_mask": tensors["attention_mask"], **types}


@pytest.mark.parametrize("parity", [{}, PADDED], ids=["full rows", "padding"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_both_losses_equal_hugging_faces(
    tiny_shards: Path, backbone: str, attention: str, parity: dict[str, Any]
) -> None:
    config = tiny_configuration(encoder={"backbone": backbone}, parity=parity)
    objective = objective_of(config, tiny_shards)
    detector, generator = objective.discriminator.network, objective.generator.export()
    for network in (detector, generator, objective.generator.network):
        network.set_attn_implementation(attention)
    tensors = batches_of(config, tiny_shards)(0)[0].tensors
    mask = tensors["attention_mask"]
    assert (mask is None) == (not parity)
    outcome: Outcome = objective(**tensors)
    generated = generator(tensors["masked_ids"], labels=labels_of(tensors), **inputs_of(tensors, backbone))
    assert mean(outcome, "generator") == pytest.approx(generated.loss.item(), rel=1e-5)

    corrupted, is_replaced = outcome.observations["corrupted_ids"], outcome.observations["is_replaced"]
    labels = is_replaced.long() if backbone == "electra" or mask is None else is_replaced.long().where(mask, -100)
    detected = detector(corrupted, labels=labels, **inputs_of(tensors, backbone))
    assert mean(outcome, "discriminator") == pytest.approx(detected.loss.item(), rel=1e-5)
    assert 0.01 < is_replaced.float().mean() < 0.2


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_masked_language_modelling_equals_hugging_faces(tiny_shards: Path, backbone: str) -> None:
    config = tiny_configuration(
        encoder={"backbone": backbone}, parity=PADDED, training={"objective": "masked-language-modelling"}
    )
    objective = objective_of(config, tiny_shards)
    tensors = batches_of(config, tiny_shards)(0)[0].tensors
    result = objective.model.network(tensors["masked_ids"], labels=labels_of(tensors), **inputs_of(tensors, backbone))
    assert mean(objective(**tensors), "masked_language_model") == pytest.approx(result.loss.item(), rel=1e-5)


def mean(outcome: Outcome, name: str) -> float:
    term = outcome.terms[name]
    return float(term.total.detach() / term.scored)


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_head_at_masked_positions_equals_the_full_head(tiny_shards: Path, backbone: str) -> None:
    config = tiny_configuration(encoder={"backbone": backbone})
    objective = objective_of(config, tiny_shards).eval()
    tensors = batches_of(config, tiny_shards)(0)[0].tensors
    positions = tensors["positions"]
    with torch.no_grad():
        few = objective.generator(tensors["masked_ids"], tensors["token_type_ids"], None, positions)
        all_of_them = objective.generator.export().eval()(tensors["masked_ids"], **inputs_of(tensors, backbone)).logits
    expected = all_of_them.gather(1, positions.unsqueeze(-1).expand(-1, -1, all_of_them.shape[-1]))
    assert few.shape == (8, 4, 106)
    torch.testing.assert_close(few, expected)


def test_padding_changes_nothing(tiny_shards: Path) -> None:
    """A padded row gives the same logits as the same row cut to its real tokens."""
    config = tiny_configuration(parity=PADDED)
    objective = objective_of(config, tiny_shards)
    for attention in ("eager", "sdpa"):
        objective.discriminator.network.set_attn_implementation(attention)
        tensors = batches_of(config, tiny_shards)(0)[0].tensors
        ids, types, mask = tensors["token_ids"], tensors["token_type_ids"], tensors["attention_mask"]
        row = int(mask.sum(1).argmin())
        length = int(mask[row].sum())
        assert length < 24
        with torch.no_grad():
            padded = objective.discriminator(ids, types, mask)[row, :length]
            alone = objective.discriminator(ids[[row], :length], types[[row], :length], None)[0]
        torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


def test_losses_by_hand() -> None:
    third = math.log(3.0)  # sigmoid(ln 3) = 3/4
    logits = torch.tensor([[0.0, third, -third, third]])
    is_replaced = torch.tensor([[False, True, False, False]])
    is_scored = torch.tensor([[True, True, True, False]])
    scored = math.log(2) + 2 * math.log(4 / 3)
    assert float(replaced_token_loss(logits, is_replaced, is_scored)) == pytest.approx(scored)
    assert float(replaced_token_loss(logits, is_replaced, None)) == pytest.approx(scored + math.log(4))
    words = torch.tensor([[1, 0]])
    word_logits = torch.tensor([[[0.0, third], [0.0, 5.0]]])
    assert float(word_loss(word_logits, words, torch.tensor([[True, False]]))) == pytest.approx(math.log(4 / 3))


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_losses_start_at_guessing(tiny_shards: Path, backbone: str) -> None:
    config = tiny_configuration(encoder={"backbone": backbone})
    outcome = objective_of(config, tiny_shards, spread=0.0)(**batches_of(config, tiny_shards)(0)[0].tensors)
    # Hugging Face draws ModernBERT's classifier wider: two logits of variance 1 add about a quarter of a nat.
    within = 0.02 if backbone == "electra" else 0.4
    assert mean(outcome, "discriminator") == pytest.approx(math.log(2), abs=within)
    assert mean(outcome, "generator") == pytest.approx(math.log(106), abs=0.1)


def test_detection_weighs_fifty(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step's loss is generator + 50 x detection, and so are the gradients of the detection head."""
    once, result = one_step(tiny_configuration(discriminator={"loss_weight": 1.0}), tiny_shards, monkeypatch)
    assert result.loss == pytest.approx(result.losses["generator"] + result.losses["discriminator"])
    fifty, result = one_step(tiny_configuration(), tiny_shards, monkeypatch)
    assert result.loss == pytest.approx(result.losses["generator"] + 50 * result.losses["discriminator"])
    heads = [name for name in once if "discriminator_predictions" in name]
    assert len(heads) == 4
    for name in heads:
        torch.testing.assert_close(50 * once[name], fifty[name], rtol=1e-4, atol=1e-6)
    projection = "generator.network.generator_lm_head.bias"
    torch.testing.assert_close(once[projection], fifty[projection])


@pytest.mark.parametrize("objective", ["replaced-token-detection", "masked-language-modelling"])
def test_eight_rows_equal_four_times_two(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch, objective: str) -> None:
    """Also when the micro-batches score unequal numbers of tokens: no average of averages."""
    settings: dict[str, Any] = {"parity": PADDED}
    whole = tiny_configuration(training={"objective": objective}, **settings)
    cut = tiny_configuration(training={"objective": objective, "micro_batch_rows": 2}, **settings)
    parts = batches_of(cut, tiny_shards)(0)
    for name in parts[0].counts:
        assert len({part.counts[name] for part in parts}) > 1
    at_once, result = one_step(whole, tiny_shards, monkeypatch)
    in_parts, cut_result = one_step(cut, tiny_shards, monkeypatch)
    assert result.losses == pytest.approx(cut_result.losses, rel=1e-5)
    assert at_once.keys() == in_parts.keys()
    for name, gradient in at_once.items():
        torch.testing.assert_close(in_parts[name], gradient, rtol=1e-3, atol=1e-5)


def one_step(
    config: PretrainConfig, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, torch.Tensor], StepResult]:
    """The gradients of the first step as the real loop computes them, before clipping, and what it reports."""
    objective = objective_of(config, shards)
    gradients: dict[str, torch.Tensor] = {}
    results: list[StepResult] = []
    update = loop._update

    def remember(*arguments: Any, **named: Any) -> None:
        gradients.update({name: value.grad.clone() for name, value in objective.named_parameters()})
        update(*arguments, **named)

    monkeypatch.setattr(optimizer, "GRADIENT_NORM_LIMIT", 1e9)
    monkeypatch.setattr(loop, "_update", remember)
    monkeypatch.setattr(loop, "StopRequest", AskedAtOnce)
    train(
        objective,
        build_optimizers(objective, config.training, config.parity),
        batches_of(config, shards),
        config.training,
        config.parity,
        CPU,
        RunState(),
        results.append,
    )
    monkeypatch.undo()
    assert len(results) == 1
    return gradients, results[0]


class AskedAtOnce(loop.StopRequest):
    """Ends the loop after its first step."""

    def __init__(self) -> None:
        super().__init__(is_asked=True)


def test_gradient_clipping_limits_the_norm(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_configuration()
    gradients, result = one_step(config, tiny_shards, monkeypatch)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    assert result.gradient_norm == pytest.approx(norm, rel=1e-4)
    assert norm > 1.0


def test_rows_are_counted_once(tiny_shards: Path) -> None:
    """Micro-batches that do not divide a step evenly still hold each of its rows once."""
    whole = batches_of(tiny_configuration(), tiny_shards)(3)
    parts = batches_of(tiny_configuration(training={"micro_batch_rows": 3}), tiny_shards)(3)
    assert [len(part.tensors["token_ids"]) for part in parts] == [3, 3, 2]
    for name, tensor in whole[0].tensors.items():
        if tensor is not None:
            assert np.array_equal(torch.cat([part.tensors[name] for part in parts]), tensor)
