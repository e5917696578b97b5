"""`electrain.ReplacedTokenDetection` on a device: the CPU's masks, samples and losses."""

from contextlib import ExitStack
from pathlib import Path

import pretend_device
import pytest
import torch
from short_runs import CUDA

from electrain.pretraining.plain_module import ReplacedTokenDetection
from tiny_pretraining import invented_text, tiny_configuration

TEXTS = [{"text": text} for text in invented_text(12, seed=3)]


@pytest.mark.parametrize("noise", ["random", "whole-word"])
@pytest.mark.parametrize("name", [pretend_device.NAME, CUDA])
def test_a_device_computes_what_the_cpu_computes(
    name: str, noise: str, tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_configuration(corruption={"noise": noise}, training={"dropout": 0.0})
    module = ReplacedTokenDetection(config, tiny_shards / "tokenizer")
    batch = module.collator()(TEXTS)
    assert "attention_mask" in batch
    expected = [module(**batch) for _ in range(2)]
    there = ReplacedTokenDetection(config, tiny_shards / "tokenizer")
    with ExitStack() as stack:
        if name == pretend_device.NAME:
            stack.enter_context(pretend_device.in_use(monkeypatch))
        there.to(name)
        tokens = torch.tensor(int((batch["labels"] != -100).sum()))
        moved = {key: tensor.to(name) for key, tensor in batch.items()}
        for one in expected:
            found = there(**moved, num_items_in_batch=tokens.to(name))
            found.loss.backward()
            assert found.corrupted_ids.tolist() == one.corrupted_ids.tolist()
            assert float(found.loss) == pytest.approx(float(one.loss), rel=1e-4)
        there.eval()
        assert float(there(**moved).loss) == pytest.approx(float(module.eval()(**batch).loss), rel=1e-4)
