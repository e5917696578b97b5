"""Losses equal Hugging Face's and hand-worked ones, and do not depend on how a step is cut into micro-batches."""

import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from electrain.pretraining.configuration import PretrainConfig
from electrain.pretraining.objectives.head_losses import is_likeliest, replaced_token_loss, word_loss
from electrain.pretraining.objectives.rows import Rows
from electrain.training import loop, optimizer
from electrain.training.arithmetic import Arithmetic
from electrain.training.loop import StepResult, TrainingRun, train
from electrain.training.objective import MicroBatch, Outcome
from electrain.training.optimizer import build_optimizers
from electrain.training.runtime import Runtime
from tiny_pretraining import batches_of, objective_of, tiny_configuration

CPU = Runtime(torch.device("cpu"), 0, 1)
PADDED = {"reference_packing": True}


def labels_of(rows: Rows) -> torch.Tensor:
    """Hugging Face's labels: the word where a position is selected, -100 elsewhere."""
    labels = torch.full_like(rows.token_ids, -100)
    row, slots = torch.nonzero(rows.is_selected, as_tuple=True)
    places = rows.positions[row, slots]
    labels[row, places] = rows.token_ids[row, places]
    return labels


def inputs_of(rows: Rows, backbone: str) -> dict[str, Any]:
    types = {"token_type_ids": rows.token_type_ids} if backbone == "electra" else {}
    return {"attention_mask": rows.attention_mask, **types}


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
    batch = batches_of(config, tiny_shards)(0)[0]
    rows = batch.rows
    mask = rows.attention_mask
    assert (mask is None) == (not parity)
    outcome: Outcome = objective(rows)
    generated = generator(rows.masked_ids, labels=labels_of(rows), **inputs_of(rows, backbone))
    assert mean(outcome, batch, "generator") == pytest.approx(generated.loss.item(), rel=1e-5)

    corrupted, is_replaced = outcome.observations["corrupted_ids"], outcome.observations["is_replaced"]
    labels = is_replaced.long() if backbone == "electra" or mask is None else is_replaced.long().where(mask, -100)
    detected = detector(corrupted, labels=labels, **inputs_of(rows, backbone))
    assert mean(outcome, batch, "discriminator") == pytest.approx(detected.loss.item(), rel=1e-5)
    assert 0.01 < is_replaced.float().mean() < 0.2


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_masked_language_modelling_equals_hugging_faces(tiny_shards: Path, backbone: str) -> None:
    config = tiny_configuration(
        encoder={"backbone": backbone}, parity=PADDED, training={"objective": "masked-language-modelling"}
    )
    objective = objective_of(config, tiny_shards)
    batch = batches_of(config, tiny_shards)(0)[0]
    rows = batch.rows
    result = objective.model.network(rows.masked_ids, labels=labels_of(rows), **inputs_of(rows, backbone))
    assert mean(objective(rows), batch, "masked_language_model") == pytest.approx(result.loss.item(), rel=1e-5)


def mean(outcome: Outcome, batch: MicroBatch[Rows], name: str) -> float:
    return float(outcome.terms[name].total.detach() / batch.counts[name])


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_head_at_masked_positions_equals_the_full_head(tiny_shards: Path, backbone: str) -> None:
    config = tiny_configuration(encoder={"backbone": backbone})
    objective = objective_of(config, tiny_shards).eval()
    rows = batches_of(config, tiny_shards)(0)[0].rows
    positions = rows.positions
    with torch.no_grad():
        few = objective.generator(rows.masked_ids, rows.token_type_ids, None, positions)
        all_of_them = objective.generator.export().eval()(rows.masked_ids, **inputs_of(rows, backbone)).logits
    expected = all_of_them.gather(1, positions.unsqueeze(-1).expand(-1, -1, all_of_them.shape[-1]))
    assert few.shape == (8, 4, 106)
    torch.testing.assert_close(few, expected)


def test_padding_changes_nothing(tiny_shards: Path) -> None:
    """A padded row gives the same logits as the same row cut to its real tokens."""
    config = tiny_configuration(parity=PADDED)
    objective = objective_of(config, tiny_shards)
    for attention in ("eager", "sdpa"):
        objective.discriminator.network.set_attn_implementation(attention)
        rows = batches_of(config, tiny_shards)(0)[0].rows
        ids, types, mask = rows.token_ids, rows.token_type_ids, rows.attention_mask
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


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_word_loss_of_a_compiled_step_is_that_of_an_uncompiled_one(scale: float) -> None:
    """Compiled on a CPU, it has a gradient of its own."""
    source = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, 5, 11, generator=source) * scale
    words, is_selected = torch.randint(11, (2, 5), generator=source), torch.rand(2, 5, generator=source) < 0.7
    results = []
    for form in (word_loss, torch.compile(word_loss, backend="aot_eager")):
        logits = drawn.clone().requires_grad_()
        total = form(logits, words, is_selected)
        (total * 0.3).backward()
        results.append((total.detach(), logits.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_a_word_is_the_likeliest_unless_another_is_likelier() -> None:
    logits = torch.tensor([[[1.0, 3.0, 2.0], [1.0, 2.0, 2.0], [3.0, 2.0, 2.0]]])
    for dtype in (torch.float32, torch.bfloat16):
        assert is_likeliest(logits.to(dtype), torch.tensor([[1, 2, 1]])).tolist() == [[True, True, False]]


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_losses_start_at_guessing(tiny_shards: Path, backbone: str) -> None:
    config = tiny_configuration(encoder={"backbone": backbone})
    batch = batches_of(config, tiny_shards)(0)[0]
    outcome = objective_of(config, tiny_shards, spread=0.0)(batch.rows)
    # Hugging Face draws ModernBERT's classifier wider: two logits of variance 1 add about a quarter of a nat.
    within = 0.02 if backbone == "electra" else 0.4
    assert mean(outcome, batch, "discriminator") == pytest.approx(math.log(2), abs=within)
    assert mean(outcome, batch, "generator") == pytest.approx(math.log(106), abs=0.1)


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
    losses, cut_losses = ({name: float(loss) for name, loss in one.losses.items()} for one in (result, cut_result))
    assert losses == pytest.approx(cut_losses, rel=1e-5)
    assert at_once.keys() == in_parts.keys()
    for name, gradient in at_once.items():
        torch.testing.assert_close(in_parts[name], gradient, rtol=1e-3, atol=1e-5)


def one_step(
    config: PretrainConfig, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, torch.Tensor], StepResult[Rows]]:
    """The gradients of the first step as the real loop computes them, before clipping, and what it reports."""
    objective = objective_of(config, shards)
    gradients: dict[str, torch.Tensor] = {}
    results: list[StepResult[Rows]] = []
    update = loop._update

    def remember(*arguments: Any, **named: Any) -> None:
        gradients.update({name: value.grad.clone() for name, value in objective.named_parameters()})
        update(*arguments, **named)

    monkeypatch.setattr(optimizer, "GRADIENT_NORM_LIMIT", 1e9)
    monkeypatch.setattr(loop, "_update", remember)
    monkeypatch.setattr(loop, "StopRequest", AskedAtOnce)
    optimizers = build_optimizers(objective, config.training, config.parity)
    run = TrainingRun(objective, optimizers, batches_of(config, shards), config.training, CPU, parity=config.parity)
    train(run, results.append)
    monkeypatch.undo()
    assert len(results) == 1
    return gradients, results[0]


class AskedAtOnce(loop.StopRequest):
    """Ends the loop after its first step."""

    def __init__(self) -> None:
        super().__init__(signal.SIGTERM)


def test_gradient_clipping_limits_the_norm(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_configuration()
    gradients, result = one_step(config, tiny_shards, monkeypatch)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    assert float(result.gradient_norm) == pytest.approx(norm, rel=1e-4)
    assert norm > 1.0


def test_rows_are_counted_once(tiny_shards: Path) -> None:
    """Micro-batches that do not divide a step evenly still hold each of its rows once."""
    whole = batches_of(tiny_configuration(), tiny_shards)(3)
    parts = batches_of(tiny_configuration(training={"micro_batch_rows": 3}), tiny_shards)(3)
    assert [len(part.rows.token_ids) for part in parts] == [3, 3, 2]
    for name, value in whole[0].rows._asdict().items():
        if isinstance(value, torch.Tensor):
            assert np.array_equal(torch.cat([getattr(part.rows, name) for part in parts]), value)


def test_rows_are_prepared_in_the_precision_of_the_run(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator writes passages under autocast too: in float32 they would be other words, and slower."""
    config = tiny_configuration(training={"steps": 1, "warmup_steps": 0})
    objective = objective_of(config, tiny_shards)
    prepare, seen = objective.prepare, []

    def remember(*given: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return prepare(*given)

    monkeypatch.setattr(objective, "prepare", remember)
    optimizers = build_optimizers(objective, config.training, config.parity)
    runtime = Runtime(torch.device("cpu"), 0, 1, Arithmetic("bfloat16"))
    train(
        TrainingRun(objective, optimizers, batches_of(config, tiny_shards), config.training, runtime), lambda _: False
    )
    assert seen == [True]
