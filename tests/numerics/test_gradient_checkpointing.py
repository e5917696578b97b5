"""Layers that are computed twice give the losses and gradients of layers that are computed once, bit for bit."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from regenerate import OBJECTIVES
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ElectraConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from electrain.foundation.configuration import merge_tables
from electrain.foundation.errors import ConfigurationError
from electrain.models.backbones import choose_attention
from electrain.models.gradient_checkpointing import checkpoint_layers, checkpointed_layers
from tiny_pretraining import batches_of, objective_of, tiny_configuration

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
DROPOUTS = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def calls_of_layers(module: nn.Module) -> list[int]:
    """A list that gets an entry for every call of a layer that keeps gradients, the second one included."""
    calls: list[int] = []
    for layer in module.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.register_forward_pre_hook(lambda *_: calls.append(1) if torch.is_grad_enabled() else None)
    return calls


def results_of(module: nn.Module, loss: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(3)
    value = loss()
    value.backward()
    gradients = {name: one.grad for name, one in module.named_parameters() if one.grad is not None}
    assert gradients
    return value.detach(), gradients


def assert_same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert torch.equal(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert torch.equal(gradient, other[1][name]), name


def _sum_of_terms(objective: Any, rows: Any, precision: str = "float32") -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        return torch.stack([term.weight * term.total for term in objective(rows).terms.values()]).sum()


def pretraining_results(
    tables: dict[str, Any], shards: Path, *, is_checkpointed: bool, step: int
) -> tuple[tuple[Tensor, dict[str, Tensor]], int, int]:
    config = tiny_configuration(**merge_tables(tables, {"training": {"gradient_checkpointing": is_checkpointed}}))
    objective = objective_of(config, shards).train()
    choose_attention(objective, torch.device("cpu"), config.data.sequence_length)
    objective.begin_step(step)
    rows = objective.prepare(batches_of(config, shards)(step)[0].rows, torch.device("cpu"))
    calls = calls_of_layers(objective)

    results = results_of(objective, partial(_sum_of_terms, objective, rows, config.training.precision))
    return results, len(calls), len(list(checkpointed_layers(objective)))


@pytest.mark.parametrize(
    "training", [{}, {"dropout": 0.1}, {"precision": "bfloat16"}], ids=["plain", "dropout", "bf16"]
)
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "recurrent"])
def test_every_objective(tiny_shards: Path, name: str, training: dict[str, Any]) -> None:
    """Written passages and both stages included; each stage trains one of the two networks."""
    tables = merge_tables(OBJECTIVES[name], {"training": {"steps": 50, **training}})
    for step in (0, 30) if name == "two_stage" else (0,):
        once, calls, none = pretraining_results(tables, tiny_shards, is_checkpointed=False, step=step)
        twice, more_calls, layers = pretraining_results(tables, tiny_shards, is_checkpointed=True, step=step)
        assert_same(once, twice)
        assert none == 0
        assert layers == calls or step == 30 or name == "two_stage"
        recomputed = 2 if name == "two_stage" else layers
        assert more_calls - calls == recomputed


def _joined(encoder: Any, decoder: Any) -> PreTrainedModel:
    return EncoderDecoderModel(config=EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder))


TASK_MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZES, **DROPOUTS)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES, **DROPOUTS, pad_token_id=0)),
    "deberta-v2": lambda: DebertaV2ForSequenceClassification(
        DebertaV2Config(**SIZES, **DROPOUTS, relative_attention=True, pos_att_type=["p2c", "c2p"], conv_kernel_size=3)
    ),
    "electra to gpt2": lambda: _joined(
        ElectraConfig(**SIZES, **DROPOUTS, embedding_size=8),
        GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, add_cross_attention=True, is_decoder=True),
    ),
    "bert to electra": lambda: _joined(
        BertConfig(**SIZES, **DROPOUTS), ElectraConfig(**SIZES, **DROPOUTS, add_cross_attention=True, is_decoder=True)
    ),
}


def _loss_of(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    logits: Tensor = model(**inputs).logits
    return logits.square().sum()


@pytest.mark.parametrize("name", TASK_MODELS)
def test_models_for_tasks(name: str) -> None:
    """With dropout, as fine-tuning has it: the same masks are drawn twice."""
    results, counts = [], []
    ids = torch.arange(2, 26).reshape(2, 12)
    for is_checkpointed in (False, True):
        torch.manual_seed(1)
        model = TASK_MODELS[name]().train()
        choose_attention(model, torch.device("cpu"), 12)
        if is_checkpointed:
            checkpoint_layers(model, has_dropout=True)
        calls = calls_of_layers(model)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if " to " in name:
            inputs |= {"decoder_input_ids": ids, "use_cache": False}
        results.append(results_of(model, partial(_loss_of, model, inputs)))
        counts.append(len(calls))
    assert_same(*results)
    assert counts[1] == 2 * counts[0] > 0


def test_less_is_kept(tiny_shards: Path) -> None:
    """Between the passes, a layer keeps no product of its own."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.untyped_storage().nbytes()
        return tensor

    for is_checkpointed in (False, True):
        config = tiny_configuration(training={"gradient_checkpointing": is_checkpointed}, encoder={"layers": 8})
        objective = objective_of(config, tiny_shards).train()
        rows = batches_of(config, tiny_shards)(0)[0].rows
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outcome = objective(rows)
        del outcome
    assert kept[1] < kept[0] / 3


def test_a_network_without_layers_refuses(tiny_shards: Path) -> None:
    config = tiny_configuration(encoder={"backbone": "lstm"}, training={"gradient_checkpointing": True})
    with pytest.raises(ConfigurationError, match=r"electrain-lstm cannot be computed twice; set it to false"):
        objective_of(config, tiny_shards)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["replaced_token_detection_modernbert", "causal"])
def test_compiled_layers(tiny_shards: Path, name: str) -> None:
    """A layer that is compiled by itself is called twice as a whole."""
    results, counted = [], []
    for is_checkpointed in (False, True):
        torch._dynamo.reset()  # the layers of earlier tests count against the limit of recompilation
        config = tiny_configuration(
            **merge_tables(OBJECTIVES[name], {"training": {"gradient_checkpointing": is_checkpointed}})
        )
        objective = objective_of(config, tiny_shards).train()
        rows = batches_of(config, tiny_shards)(0)[0].rows
        calls = 0
        for layer in objective.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.compile(dynamic=False)
                compiled = layer._compiled_call_impl

                def counting(*args: Any, compiled: Any = compiled, **named: Any) -> Any:
                    nonlocal calls
                    calls += 1
                    return compiled(*args, **named)

                layer._compiled_call_impl = counting
        results.append(results_of(objective, partial(_sum_of_terms, objective, rows)))
        counted.append(calls)
    assert_same(*results)
    assert counted[1] == 2 * counted[0] > 0
