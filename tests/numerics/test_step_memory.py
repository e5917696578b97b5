"""The memory of a step on tensors without data, against the same step on real tensors."""

from typing import Any

import pytest
import torch
from regenerate import OBJECTIVES

from electrain.data.tokenizer.tokenizer import SpecialIds
from electrain.foundation.configuration import merge_tables
from electrain.models.backbones import choose_attention
from electrain.pretraining.build import build_objective
from electrain.pretraining.memory import LiveBytes, repeated, row_of, step_memory
from electrain.training.arithmetic import Arithmetic
from electrain.training.loop import TrainingRun, forward_and_backward
from electrain.training.optimizer import build_optimizers, update_weights
from electrain.training.runtime import Runtime
from tiny_pretraining import tiny_configuration

CPU = torch.device("cpu")
VOCABULARY, ROWS = 300, 4
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "electra": {},
    "modernbert, muon": {"encoder": {"backbone": "modernbert"}, "training": {"optimizer": "muon"}},
    "bfloat16": {"training": {"precision": "bfloat16"}},
    "checkpointed": {"training": {"gradient_checkpointing": True}, "encoder": {"layers": 6}},
    "dropout": {"training": {"dropout": 0.1}},
    "one micro-batch": {"training": {"batch_rows": ROWS}},
    **{name: OBJECTIVES[name] for name in ("masked_language_modelling", "article", "policy_gradient", "mixture")},
}


@pytest.mark.parametrize("name", CASES)
def test_a_real_step_takes_as_much(name: str) -> None:
    config = tiny_configuration(**merge_tables({"training": {"batch_rows": 2 * ROWS}}, CASES[name]))
    arithmetic = Arithmetic("bfloat16" if config.training.precision == "bfloat16" else "float32")
    expected = step_memory(config, ROWS, arithmetic.dtype, CPU, vocabulary_size=VOCABULARY)
    objective: Any = build_objective(
        config, vocabulary_size=VOCABULARY, special_ids=SpecialIds(pad=0, cls=1, sep=2, mask=3)
    )
    choose_attention(objective, CPU, config.data.sequence_length)
    rows = repeated(row_of(config, VOCABULARY, 0), ROWS)
    live = LiveBytes()
    for tensor in (*objective.parameters(), *objective.buffers()):
        live.count(tensor)
    optimizers = build_optimizers(objective, config.training, config.parity)
    run = TrainingRun(objective, optimizers, lambda _: [], config.training, Runtime(CPU, 0, 1, arithmetic))
    pass_, counts = (
        forward_and_backward(run, objective.train()),
        dict.fromkeys(
            ("generator", "discriminator", "correction", "policy", "baseline", "masked_language_model"), torch.ones(())
        ),
    )
    with live:
        for _ in range(2):  # the first step makes the states
            for _ in range(config.training.batch_rows // ROWS):
                pass_(rows, counts, 0)
            update_weights(optimizers, 1e-3, torch.tensor(True))
            for optimizer in optimizers:
                optimizer.zero_grad()
    assert expected.total == pytest.approx(live.most, rel=0.02)
