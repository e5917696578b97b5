"""The largest memory that a training step takes, found by taking a step on tensors that have shapes but no data.

The step is the real one: the objective's forward pass, the backward pass and the optimizer's update. The bytes of the
tensors alive at the same time are added up while it runs. So nothing has to be listed, and nothing can be forgotten:
the bfloat16 copies that autocast makes of the weights, the vocabulary-wide logits and their gradients, the temporary
tensors of an optimizer, and what gradient checkpointing spares.

What a process takes besides is not part of the sum: Python and the libraries, rows that wait, the temporary memory of a
kernel, and what the allocator wastes.
"""

import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from electrain.data.shards.rows import PackedBatch
from electrain.data.tokenizer.tokenizer import SpecialIds
from electrain.models.backbones import choose_attention
from electrain.pretraining.build import Vocabulary, build_objective, corrupted_micro_batch, with_compared_words
from electrain.pretraining.configuration import PretrainConfig
from electrain.pretraining.flops import without_data
from electrain.pretraining.objectives.rows import Rows
from electrain.training.arithmetic import Arithmetic
from electrain.training.loop import TrainingRun, forward_and_backward
from electrain.training.optimizer import build_optimizers, clip_gradients, trained_networks
from electrain.training.runtime import Runtime

SPECIAL_IDS = SpecialIds(pad=0, cls=1, sep=2, mask=3)  # any ids give the same cost


@dataclass(frozen=True)
class StepMemory:
    """Bytes of tensors at the moment of a step at which they are most."""

    weights: int  # buffers included
    gradients: int
    optimizer_state: dict[str, int]  # by kind: exp_avg, momentum_buffer, ...
    activations: int  # all the rest: what the passes keep, and what they or the optimizer need on the way

    @property
    def total(self) -> int:
        """Their sum."""
        return self.weights + self.gradients + sum(self.optimizer_state.values()) + self.activations


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all tensors that operations make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def count(self, tensor: Tensor) -> None:
        """Counts a tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage._cdata)
        weakref.finalize(storage, self._forget, storage._cdata, size).atexit = False
        self.now += size
        self.most = max(self.most, self.now)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.count(leaf)
        return result


def step_memory(
    config: PretrainConfig, rows: int, dtype: torch.dtype, device: torch.device, *, vocabulary_size: int
) -> StepMemory:
    """The memory of a training step on one device, uncompiled.

    Args:
        rows: rows of a micro-batch; the gradients of a step with more rows are added up.
        dtype: of matrix products: float32, or by autocast bfloat16 or float16.
        device: its type decides the form of attention; no such device is needed.
    """
    # The weights of a generator from a folder are read, which the meta device cannot do.
    with nullcontext() if config.generator.source else torch.device("meta"):
        built = build_objective(config, vocabulary_size=vocabulary_size, special_ids=SPECIAL_IDS)
    choose_attention(built, device, config.data.sequence_length)
    stages = (0, config.generator.own_stage_steps) if config.generator.own_stage_steps else (0,)
    each = [row_of(config, vocabulary_size, step) for step in stages]  # with data, by which noise is placed
    # Fake tensors run shapes only, which takes no memory, whatever the size of the model.
    with FakeTensorMode(allow_non_fake_inputs=True):
        objective: Any = without_data([built])[0]
        arithmetic = Arithmetic(str(dtype).removeprefix("torch."), has_fast_bfloat16=dtype == torch.bfloat16)
        runtime = _Planned(device, 0, 1, arithmetic)
        optimizers = build_optimizers(objective, config.training, config.parity, runtime.muon_dtype)
        run = TrainingRun(objective, optimizers, lambda _: [], config.training, runtime, parity=config.parity)
        found = [_stage_memory(run, config, repeated(_without_values(row), rows)) for row in each]
    return max(found, key=lambda memory: memory.total)


class _Planned(Runtime):
    """A device that need not be there: its tensors are fake ones of the CPU."""

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype != torch.float32)


def row_of(config: PretrainConfig, vocabulary_size: int, step: int) -> Rows:
    """One row as a step has them; its passages are written already."""
    shape = (1, config.data.sequence_length)
    ids, ones = torch.full(shape, len(SPECIAL_IDS.all)), torch.ones(shape, dtype=torch.bool)
    packed = PackedBatch(ids, torch.zeros_like(ids), ones, ~ones, torch.zeros(1, dtype=torch.int64), ones)
    continues_word, by_frequency = torch.zeros(vocabulary_size, dtype=torch.bool), torch.arange(vocabulary_size)
    vocabulary = Vocabulary(vocabulary_size, SPECIAL_IDS.mask, continues_word, by_frequency)
    (made,) = with_compared_words([corrupted_micro_batch(packed, config, vocabulary, step)], config, vocabulary, step)
    return made.rows._replace(writing_uniforms=None)


def repeated(row: Rows, count: int) -> Rows:
    """As many rows, all the same."""
    fields = (  # what has one dimension belongs to the step
        field.repeat(count, *[1] * (field.ndim - 1)) if isinstance(field, Tensor) and field.ndim > 1 else field
        for field in row
    )
    return Rows._make(fields)


def _without_values(row: Rows) -> Rows:
    return Rows._make(torch.empty_like(field) if isinstance(field, Tensor) else field for field in row)


def _stage_memory(run: TrainingRun[Rows], config: PretrainConfig, rows: Rows) -> StepMemory:
    objective, optimizers = run.objective, run.optimizers
    objective.begin_step(0 if rows.generator_alone else config.generator.own_stage_steps)
    objective.train()
    parameters = list(objective.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    live = LiveBytes()
    for tensor in (*parameters, *objective.buffers()):
        live.count(tensor)
    weights = live.now
    with live:
        # The first update makes the optimizers' states, which every later step finds.
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        gradients = live.now - weights
        _update(run)
        # Recorded passes on a GPU keep their gradients, and so does a step until its last micro-batch.
        keeps_gradients = run.runtime.device.type == "cuda" or config.training.batch_rows > len(rows.token_ids)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=not keeps_gradients)
        live.most = live.now
        names = ("generator", "discriminator", "correction", "electric", "policy", "baseline", "masked_language_model")
        outcome = forward_and_backward(run, objective)(rows, dict.fromkeys(names, torch.ones(())), 0)
        _update(run)
        del outcome  # until here the loop holds it
        for parameter in trained:
            parameter.grad = None
    state = _bytes_by_kind(optimizers)
    return StepMemory(weights, gradients, state, live.most - weights - gradients - sum(state.values()))


def _update(run: TrainingRun[Rows]) -> None:
    clip_gradients(trained_networks(run.objective, run.training))
    with warnings.catch_warnings():
        # Muon compares addresses, which tensors without data do not have.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        # Not `update_weights`: whether a gradient is finite cannot be asked without data.
        for optimizer in run.optimizers:
            optimizer.step()


def _bytes_by_kind(optimizers: Sequence[Optimizer]) -> dict[str, int]:
    """Bytes of the optimizers' states by their names. States that are parts of one tensor count once."""
    found: dict[str, dict[int, int]] = {}
    for optimizer in optimizers:
        for values in optimizer.state.values():
            for kind, value in values.items():
                if isinstance(value, Tensor) and value.ndim:
                    storage = value.untyped_storage()
                    found.setdefault(kind, {})[storage._cdata] = storage.nbytes()
    return {kind: sum(sizes.values()) for kind, sizes in found.items()}
