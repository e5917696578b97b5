"""Counts what training costs by running the real modules on tensors that have shapes but no data.

Nothing here is a table: every operation that a forward pass dispatches is seen and counted. Two conventions:

*true*: what the machine really multiplies. Matrix products only, 2 m n k operations each; the backward pass is twice
the forward one (a product for the gradient of the input, one for that of the weight); looking up an embedding is free.
For hours, and for the fraction of the machine's rate that a run reaches.

*paper*: the convention behind the published figures (Clark et al. 2020, table 8; the reference implementation's
`flops_computation.py` states it). Elementwise operations count as well, looking up an embedding is a product with a
one-hot vector (2 x table size for each token, in both networks), dropout is on, words are predicted at 20/128 of the
positions, and the backward pass counts as much as the forward one. Only for comparing with published figures.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretrain.objectives.masked_language_modelling import MaskedLanguageModelling
from electrain.pretrain.objectives.replaced_token_detection import ReplacedTokenDetection

TRUE_BACKWARD_PER_FORWARD = 2
PAPER_BACKWARD_PER_FORWARD = 1
PAPER_MASKED_FRACTION = 20 / 128

# Operations per element in the paper's convention: a layer norm is a mean, a square, a sum, a bias and a scale; the
# tanh form of GELU has eight operations; a softmax has a maximum, a subtraction, an exponential, a sum and a division.
# Dropout has four, which PyTorch dispatches as a random draw (number and comparison), a division and a product.
LAYER_NORM_COST = 5
ACTIVATION_COST = 8
SOFTMAX_COST = 5
RANDOM_DRAW_COST = 2


def _per_element(cost: int) -> Callable[..., int]:
    """Counts `cost` operations for each element of the first result."""

    def count(*_: Any, out_shape: Any, **__: Any) -> int:
        first = out_shape if not out_shape or isinstance(out_shape[0], int) else out_shape[0]
        return int(cost * prod(first))

    return count


def _product_and_bias(bias: Sequence[int], left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * left[0] * left[1] * right[1] + left[0] * right[1]


def _dense_look_up(table: Sequence[int], *_: Any, out_shape: Any, **__: Any) -> int:
    return int(2 * table[0] * prod(out_shape))


def _recurrent_layer(
    rows: Sequence[int], from_input: Sequence[int], from_state: Sequence[int], *_: Any, **__: Any
) -> int:
    return 2 * rows[0] * rows[1] * from_input[0] * (from_input[1] + from_state[1])


_aten = torch.ops.aten
RECURRENT_COSTS: Mapping[Any, Callable[..., int]] = {_aten.mkldnn_rnn_layer: _recurrent_layer}
PAPER_COSTS: Mapping[Any, Callable[..., int]] = {
    _aten.addmm: _product_and_bias,
    _aten.embedding: _dense_look_up,
    _aten.native_layer_norm: _per_element(LAYER_NORM_COST),
    _aten.gelu: _per_element(ACTIVATION_COST),
    _aten._softmax: _per_element(SOFTMAX_COST),
    _aten._safe_softmax: _per_element(SOFTMAX_COST),
    _aten._log_softmax: _per_element(SOFTMAX_COST),
    _aten.bernoulli_: _per_element(RANDOM_DRAW_COST),
    _aten.div_: _per_element(1),
    _aten.mul: _per_element(1),
    _aten.add: _per_element(1),
}


@dataclass(frozen=True)
class NetworkPass:
    """How a network, or one head of it, is run in a training step.

    Attributes:
        module: what is run.
        run: gives the result of `module`, or of a copy of it without data, for a number of rows without padding.
        trains: False where there is no backward pass, as for a frozen generator.
    """

    module: nn.Module
    run: Callable[[Any, int], Tensor]
    trains: bool = True


def _detection(length: int) -> Callable[[Any, int], Tensor]:
    def run(module: Any, rows: int) -> Tensor:
        ids = torch.zeros(rows, length, dtype=torch.long)
        logits: Tensor = module(ids, ids, None)
        return logits

    return run


def _prediction(length: int, positions: int, depths: tuple[int, ...] = ()) -> Callable[[Any, int], Tensor]:
    """Words at some positions of each row, after each of the depths, with their log-probabilities."""

    def run(module: Any, rows: int) -> Tensor:
        ids = torch.zeros(rows, length, dtype=torch.long)
        logits = module.propose(ids, ids, None, ids[:, :positions], depths)[1]
        return torch.stack([torch.log_softmax(one.float(), dim=-1) for one in logits])

    return run


def _correction(positions: int) -> Callable[[Any, int], Tensor]:
    """The correction head alone, at some positions of each row."""

    def run(module: Any, rows: int) -> Tensor:
        hidden = torch.zeros(rows, positions, module.configuration.hidden_size)
        logits = module.correction(hidden, module.word_embeddings.weight)
        return torch.log_softmax(logits.float(), dim=-1)

    return run


def _relaxation(positions: int) -> Callable[[Any, int], Tensor]:
    """Relaxed words times the discriminator's table."""

    def run(module: Any, rows: int) -> Tensor:
        table = module.word_embeddings.weight
        product: Tensor = torch.zeros(rows, positions, table.shape[0]) @ table
        return product

    return run


def passes_of(
    objective: ReplacedTokenDetection | MaskedLanguageModelling, *, sequence_length: int, masked_positions: int
) -> list[NetworkPass]:
    """How an objective runs its networks on rows of `sequence_length` tokens, `masked_positions` of them selected.

    The discriminator first. Writing passages is not among them: it costs about as much as one forward pass of the
    generator over the rows written.
    """
    prediction = _prediction(sequence_length, masked_positions)
    if isinstance(objective, MaskedLanguageModelling):
        return [NetworkPass(objective.model, prediction)]
    judge, proposals = objective.discriminator, objective.proposals
    passes = [NetworkPass(judge, _detection(sequence_length))]
    if not isinstance(objective.generator, UnigramGenerator):
        prediction = _prediction(sequence_length, masked_positions, proposals.depths)
        passes.append(NetworkPass(objective.generator, prediction, objective.trains_generator))
    if judge.correction is not None:
        asked = sequence_length if objective.judge.correction_at == "all" else masked_positions
        passes.append(NetworkPass(judge, _correction(asked)))
    if proposals.training in ("gumbel", "mixture"):
        passes.append(NetworkPass(judge, _relaxation(masked_positions)))
    return passes


def _without_data(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Copies of the modules whose tensors have no data, tied among each other as the originals are."""
    modules = list(modules)
    copies: dict[int, Any] = {}
    for module in modules:
        for parameter in module.parameters():
            empty = torch.empty(parameter.shape, dtype=parameter.dtype)
            copies.setdefault(id(parameter), nn.Parameter(empty, parameter.requires_grad))
        for buffer in module.buffers():
            copies.setdefault(id(buffer), torch.empty(buffer.shape, dtype=buffer.dtype))
    return [copy.deepcopy(module, copies) for module in modules]


def _forward_flops(network: NetworkPass, module: nn.Module, rows: int, costs: Mapping[Any, Any]) -> float:
    """Operations of one forward pass, attention spelled out so that its softmax is seen."""
    # The counter puts a hook on each parameter that is passed to a module, as DeBERTa's relative positions are. Under
    # `no_grad` that fails for a parameter that requires a gradient.
    module.requires_grad_(False)
    counter = FlopCounterMode(display=False, custom_mapping=dict(costs))
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network.run(module, rows)
    return float(counter.get_total_flops())


def training_flops_per_row(passes: Sequence[NetworkPass], micro_batch_rows: int = 1) -> float:
    """Operations that a machine really does to train on one row, both passes of all networks ("true" above).

    Rows per second times this, divided by the machine's measured matrix-product rate, is how well the machine is used.
    The modules are copied without their data: they stay as they are. Call it before a model is sharded or compiled.

    Args:
        micro_batch_rows: rows of one forward pass, among which work that is done once per pass is divided.
    """
    total = 0.0
    with FakeTensorMode(allow_non_fake_inputs=True):
        for network, module in zip(passes, _without_data(n.module for n in passes), strict=True):
            backward = TRUE_BACKWARD_PER_FORWARD if network.trains else 0
            total += _forward_flops(network, module.eval(), micro_batch_rows, RECURRENT_COSTS) * (1 + backward)
    return total / micro_batch_rows


def paper_flops_per_row(passes: Sequence[NetworkPass]) -> float:
    """Operations to train on one row as the paper counts them ("paper" above).

    The modules must have been built with dropout, and words be predicted at PAPER_MASKED_FRACTION of the positions.
    """
    total = 0.0
    with FakeTensorMode(allow_non_fake_inputs=True):
        for network, module in zip(passes, _without_data(n.module for n in passes), strict=True):
            backward = PAPER_BACKWARD_PER_FORWARD if network.trains else 0
            total += _forward_flops(network, module.train(), 1, PAPER_COSTS) * (1 + backward)
    return total


def activation_bytes(passes: Sequence[NetworkPass], rows: int, dtype: torch.dtype) -> int:
    """Bytes that autograd keeps between the forward and the backward pass of a micro-batch, counted tensor by tensor.

    Weights are left out, their bfloat16 copies are not.

    Args:
        rows: rows of the micro-batch.
        dtype: of matrix products: float32, or bfloat16 by autocast, which leaves some tensors in float32.
    """
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        modules = _without_data(network.module for network in passes)
        weights = {p.untyped_storage()._cdata for module in modules for p in module.parameters()}
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            results = [n.run(m.train(), rows) for n, m in zip(passes, modules, strict=True) if n.trains]
        del results
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights)
