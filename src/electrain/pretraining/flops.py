"""Counts the operations of training by running the real modules on fake tensors, which have shapes but no data.

Every operation that a forward pass dispatches is counted, so that no formula can disagree with the modules. There are
two conventions.

*true*: the operations that the machine performs. Only matrix products count, 2 m n k operations each. The backward
pass costs twice the forward pass: one product for the gradient of the input, one for that of the weight. A layer under
gradient checkpointing runs forward twice. Looking up an embedding is free. It serves to estimate hours, and the
fraction of the machine's rate that a run reaches.

*paper*: the convention behind the published figures (Clark et al. 2020, table 8; `flops_computation.py` of the
reference implementation states it). Elementwise operations count too. Looking up an embedding is a product with a
one-hot vector (2 x table size for each token, in both networks). Dropout is on, words are predicted at 20/128 of the
positions, and the backward pass costs as much as the forward pass. It serves only to compare with published figures.
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

from electrain.models.gradient_checkpointing import checkpointed_layers
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretraining.objectives.masked_language_modelling import MaskedLanguageModelling
from electrain.pretraining.objectives.replaced_token_detection import ReplacedTokenDetection

TRUE_BACKWARD_PER_FORWARD = 2
PAPER_BACKWARD_PER_FORWARD = 1
PAPER_MASKED_FRACTION = 20 / 128

# Operations per element in the paper's convention. A layer norm is a mean, a square, a sum, a bias and a scale. The
# tanh form of GELU has eight operations. A softmax has a maximum, a subtraction, an exponential, a sum and a division.
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
Costs = Mapping[Any, Callable[..., int]]
RECURRENT_COSTS: Costs = {_aten.mkldnn_rnn_layer: _recurrent_layer}
PAPER_COSTS: Costs = {
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
    """How a training step runs a network, or one head of it."""

    module: nn.Module
    # From `module`, or a copy of it without data, and a number of rows without padding to the result
    run: Callable[[Any, int], Tensor]
    trains: bool = True  # False if there is no backward pass, as for a frozen generator


def passes_of(
    objective: ReplacedTokenDetection | MaskedLanguageModelling,
    *,
    sequence_length: int,
    masked_positions: int,
    compared_words: int = 0,
) -> list[NetworkPass]:
    """How an objective runs its networks on rows of `sequence_length` tokens, of which `masked_positions` are selected.

    Each original is compared with `compared_words` words, or with the whole vocabulary if that is 0. The discriminator
    comes first. Writing passages is left out: it costs about as much as one forward pass of the generator over the
    written rows.
    """
    length, selected = sequence_length, masked_positions

    def words(rows: int) -> Tensor | None:
        return torch.zeros(compared_words + rows * selected, dtype=torch.long) if compared_words else None

    def detect(module: Any, rows: int) -> Tensor:
        ids = torch.zeros(rows, length, dtype=torch.long)
        logits: Tensor = module(ids, ids, None)
        return logits

    def predict(module: Any, rows: int) -> Tensor:
        ids = torch.zeros(rows, length, dtype=torch.long)
        depths = () if isinstance(objective, MaskedLanguageModelling) else objective.proposals.depths
        logits = module.predict(module.read(ids, ids, None, depths, words(rows)), ids[:, :selected])[1]
        return torch.stack([torch.log_softmax(one.float(), dim=-1) for one in logits])

    def correct(module: Any, rows: int) -> Tensor:
        assert isinstance(objective, ReplacedTokenDetection)
        places = length if objective.judge.correction_at == "all" else selected
        hidden = torch.zeros(rows, places, module.configuration.hidden_size)
        head, table, ids = module.correction, module.word_embeddings.weight, words(rows)
        return torch.log_softmax(head(hidden, table if ids is None else head.rows(ids, table)).float(), dim=-1)

    def weigh(module: Any, rows: int) -> Tensor:
        energies: Tensor = module.energy(torch.zeros(rows, length, module.configuration.hidden_size))
        return energies

    def relax(module: Any, rows: int) -> Tensor:
        table: Tensor = module.word_embeddings.weight
        return torch.zeros(rows, selected, table.shape[0]) @ table

    if isinstance(objective, MaskedLanguageModelling):
        return [NetworkPass(objective.model, predict)]
    judge = objective.discriminator
    passes = [NetworkPass(judge, detect)]
    if not isinstance(objective.generator, UnigramGenerator):
        passes.append(NetworkPass(objective.generator, predict, objective.trains_generator))
    if judge.correction is not None:
        passes.append(NetworkPass(judge, correct))
    if judge.energy is not None:
        passes.append(NetworkPass(judge, weigh))
    if objective.proposals.training in ("gumbel", "mixture"):
        passes.append(NetworkPass(judge, relax))
    return passes


def without_data(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Copies of the modules whose tensors have no data, tied to each other as the originals are."""
    modules = list(modules)
    # `deepcopy` takes the copy of an object from its memo if it is there. With every tensor entered beforehand, no data
    # is copied, and a tensor that two modules share stays one tensor.
    copies: dict[int, Any] = {}
    for module in modules:
        for parameter in module.parameters():
            empty = torch.empty(parameter.shape, dtype=parameter.dtype)
            copies.setdefault(id(parameter), nn.Parameter(empty, parameter.requires_grad))
        for buffer in module.buffers():
            copies.setdefault(id(buffer), torch.empty(buffer.shape, dtype=buffer.dtype))
    return [copy.deepcopy(module, copies) for module in modules]


def _flops(
    passes: Sequence[NetworkPass], rows: int, costs: Costs, backward_per_forward: int, *, dropout: bool
) -> float:
    """Operations of the forward and backward passes of all networks on a micro-batch."""
    total = 0.0
    # Fake tensors run shapes only, which takes no time or memory, whatever the size of the model.
    with FakeTensorMode(allow_non_fake_inputs=True):
        for network, module in zip(passes, without_data(network.module for network in passes), strict=True):
            # The counter puts a hook on each parameter that is passed to a module, as DeBERTa's relative positions are.
            # Under `no_grad` that fails for a parameter that requires a gradient.
            module.requires_grad_(False)
            counter = FlopCounterMode(display=False, custom_mapping=dict(costs))
            repeated = _repeated(module, counter)
            # Fused attention is one operation; in the plain form its softmax is dispatched, and counted.
            with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                network.run(module.train(dropout), rows)
            total += counter.get_total_flops() * (1 + backward_per_forward * network.trains)
            total += sum(repeated) * network.trains * (backward_per_forward == TRUE_BACKWARD_PER_FORWARD)
    return total


def _repeated(module: nn.Module, counter: FlopCounterMode) -> list[int]:
    """A list that gets the operations of each layer that the backward pass runs forward a second time."""
    starts: list[int] = []
    found: list[int] = []
    for layer in checkpointed_layers(module):
        layer.register_forward_pre_hook(lambda *_: starts.append(counter.get_total_flops()))
        layer.register_forward_hook(lambda *_: found.append(counter.get_total_flops() - starts[-1]))
    return found


def training_flops_per_row(passes: Sequence[NetworkPass], micro_batch_rows: int = 1) -> float:
    """Operations that a machine performs to train on one row ("true" above). Call it before a model is compiled.

    Args:
        micro_batch_rows: rows of one forward pass, which share the work that is done once per pass.
    """
    total = _flops(passes, micro_batch_rows, RECURRENT_COSTS, TRUE_BACKWARD_PER_FORWARD, dropout=False)
    return total / micro_batch_rows


def paper_flops_per_row(passes: Sequence[NetworkPass]) -> float:
    """Operations to train on one row as the paper counts them ("paper" above).

    The modules must have dropout, and must predict words at PAPER_MASKED_FRACTION of the positions.
    """
    return _flops(passes, 1, PAPER_COSTS, PAPER_BACKWARD_PER_FORWARD, dropout=True)
