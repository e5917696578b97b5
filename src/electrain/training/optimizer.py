"""Optimizers and the learning-rate schedule."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from electrain.training.muon import Muon
from electrain.training.objective import Objective
from electrain.training.settings import ParityConfig, TrainingConfig
from electrain.training.sharded_muon import ShardedMuon
from electrain.training.sharding import clip_divided_gradients, local, part_of

# Clark et al. 2020, table 6; the epsilon is the reference implementation's.
BETAS = (0.9, 0.999)
EPSILON = 1e-6
GRADIENT_NORM_LIMIT = 1.0
_ADAMW = partial(torch.optim.AdamW, betas=BETAS, eps=EPSILON, fused=True)
# Warm-up-stable-decay: the last fifth of the steps decays (Hägele et al. 2024, section 4: 10-20% suffices).
DECAY_FRACTION = 0.2
# How transformers names what is inside layer N: GPT-2 has "h" where the others have "layer" or "layers".
_LAYER = re.compile(r"\.(?:layers?|h)\.(\d+)\.")
_EMBEDDINGS = re.compile(r"embed|\.w[tp]e\.")
_WORD_EMBEDDINGS = re.compile(r"(word|tok)_embeddings\.|\.wte\.")


class AdamWithoutBiasCorrection(Optimizer):
    """AdamW without correction for moments that start at zero, as in the reference code of BERT and ELECTRA.

    Attributes:
        found_inf: () float32 on the parameters' device, 1 refuses the next step; see `electrain.training.muon.Muon`.
    """

    def __init__(self, parameters: Iterable[Any], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": 0.0})
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not trained:
                continue
            for parameter in trained:
                if not self.state[parameter]:
                    self.state[parameter] = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            states = [[self.state[one][name] for one in trained] for name in ("exp_avg", "exp_avg_sq")]
            kept = [[local(tensor) for tensor in tensors] for tensors in (trained, *states)]
            # All parameters end to end in one vector: a few operations on a device, instead of a few for each.
            old = [_end_to_end(tensors) for tensors in kept]
            weights, first, second = old
            gradients = _end_to_end([local(parameter.grad) for parameter in trained])
            first = first.lerp(gradients, 1 - BETAS[0])
            second = (second * BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
            weights = weights * (1 - group["lr"] * group["weight_decay"])
            weights = weights.addcdiv_(first, second.sqrt().add_(EPSILON), value=-group["lr"])
            for tensors, before, after in zip(kept, old, (weights, first, second), strict=True):
                if self.found_inf is not None:
                    after = torch.where(self.found_inf > 0, before, after)
                parts = after.split([tensor.numel() for tensor in tensors])
                torch._foreach_copy_(tensors, [part.view_as(one) for part, one in zip(parts, tensors, strict=True)])


def _end_to_end(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


Named = list[tuple[str, nn.Parameter]]


def trained_networks(objective: Objective[Any], training: TrainingConfig) -> list[Named]:
    """Names and parameters to train: one list, or one per network if the generator has its own learning rate."""
    networks = [[pair for pair in network if pair[1].requires_grad] for network in objective.parameter_networks()]
    if training.generator_peak_learning_rate:
        return networks
    return [[pair for network in networks for pair in network]]


def build_optimizers(
    objective: Objective[Any],
    training: TrainingConfig,
    parity: ParityConfig,
    muon_dtype: torch.dtype = torch.float32,
) -> list[Optimizer]:
    """One optimizer for each network, or two with muon: for the matrices inside the layers, and for the rest.

    Args: muon_dtype: of Muon's products; bfloat16 is faster where the device has native bfloat16 products.
    """
    rates = (training.peak_learning_rate, training.generator_peak_learning_rate)
    dtype = muon_dtype if training.optimizer == "muon" else None
    adam = AdamWithoutBiasCorrection if parity.no_bias_correction else _ADAMW
    optimizers: list[Optimizer] = []
    for named, rate in zip(trained_networks(objective, training), rates, strict=False):
        if named:
            ratios = dict.fromkeys((name for name, _ in named), rate / training.peak_learning_rate)
            optimizers += _optimizers_of(named, ratios, training.peak_learning_rate, training.weight_decay, dtype, adam)
    return optimizers


def _optimizers_of(
    named: Named,
    ratios: dict[str, float],
    peak: float,
    weight_decay: float,
    muon_dtype: torch.dtype | None,
    adam: Callable[..., Optimizer],
) -> list[Optimizer]:
    """One optimizer by `adam`, or two with Muon: for the matrices inside the layers, and for the rest.

    Args:
        ratios: of each parameter's learning rate to the peak, by its name.
        muon_dtype: of Muon's products; None: no Muon.
    """
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        is_of_muon = muon_dtype is not None and _is_inner_matrix(name, parameter)
        # Biases and LayerNorm are not decayed. They are the parameters with fewer than two dimensions.
        decay = weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((is_of_muon, ratios[name], decay), []).append(parameter)
    plain, inner = (
        [
            {"params": parameters, "weight_decay": decay, "rate_ratio": ratio, "lr": peak * ratio}
            for (is_of_muon, ratio, decay), parameters in groups.items()
            if is_of_muon == wanted
        ]
        for wanted in (False, True)
    )
    optimizers = [adam(plain, lr=peak)] if plain else []
    if muon_dtype is not None and inner:
        kind = ShardedMuon if isinstance(named[0][1], DTensor) else Muon
        optimizers.append(kind(inner, peak, weight_decay, muon_dtype))
    return optimizers


@dataclass(frozen=True)
class LayeredRates:
    """The learning rates of fine-tuning: that of the head, and what the encoder's layers have of it.

    Attributes:
        peak: the learning rate of all that is above the encoder's layers, and of a decoder.
        layer_decay: factor of the learning rate from each layer to the one below; 1 gives all the same rate.
        word_embedding_ratio: further factor of the learning rate of the encoder's word embeddings.
        doubles_top_decay: True decays the top layer twice, as the reference implementation does.
    Source: google-research/electra, model/optimization.py, `_get_layer_lrs`; Clark et al. 2020, table 7.
    """

    peak: float
    layer_decay: float = 1.0
    word_embedding_ratio: float = 1.0
    doubles_top_decay: bool = False


def build_layered_optimizers(
    model: nn.Module, rates: LayeredRates, weight_decay: float, muon_dtype: torch.dtype | None = None
) -> list[Optimizer]:
    """AdamW for all weights, or two optimizers with Muon: for the matrices inside the layers, and for the rest.

    Args: muon_dtype: of Muon's products; None: no Muon.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    top = max((depth for name, _ in named if (depth := _layer_number(name)) is not None), default=0)

    def ratio_of(name: str) -> float:
        depth = _layer_number(name)
        below = 0 if depth is None else top - depth + 1 + rates.doubles_top_decay
        ratio = rates.word_embedding_ratio if depth == 0 and _WORD_EMBEDDINGS.search(name) else 1.0
        return ratio * rates.layer_decay**below

    ratios = {name: ratio_of(name) for name, _ in named}
    return _optimizers_of(named, ratios, rates.peak, weight_decay, muon_dtype, _ADAMW)


def _layer_number(name: str) -> int | None:
    """The layer of an encoder's parameter: 0 for the embeddings, 1 for the lowest layer, None for all above."""
    if name.startswith("model.decoder.") or ".decoder." in name:
        return None
    if _EMBEDDINGS.search(name):
        return 0
    found = _LAYER.search(name)
    return int(found.group(1)) + 1 if found else None


def clip_gradients(networks: list[Named]) -> Tensor:
    """Clips the gradients of each network to `GRADIENT_NORM_LIMIT`. Nothing waits for the device.

    Networks with optimizers of their own are clipped separately: a large gradient of one must not shrink the other's.

    Returns: () float32; the norm over all networks before clipping.
    """
    norms = []
    for parameters in ([parameter for _, parameter in named] for named in networks if named):
        clip = clip_divided_gradients if isinstance(parameters[0], DTensor) else nn.utils.clip_grad_norm_
        norms.append(clip(parameters, GRADIENT_NORM_LIMIT))
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def update_weights(optimizers: list[Optimizer], rate: float, is_finite: Tensor) -> None:
    """Takes a step of every optimizer, or changes nothing where `is_finite` is False. Nothing waits for the device.

    Args: is_finite: () bool on the parameters' device.
    """
    set_learning_rate(optimizers, rate)
    for optimizer in optimizers:
        # The protocol of PyTorch's fused optimizers, which those of this package follow.
        optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
        optimizer.step()


def _is_inner_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and bool(_LAYER.search(name))


def learning_rate(step: int, training: TrainingConfig, parity: ParityConfig) -> float:
    """The learning rate of the update after `step` finished ones. Source: Clark et al. 2020, table 6 (linear)."""
    peak, warmup, steps = training.peak_learning_rate, training.warmup_steps, training.steps
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if parity.multiplied_warmup:  # the reference code decays from step 0 on, so that it never reaches the peak
        return peak * rise * (1 - step / steps)
    if training.schedule == "linear":
        fall = (steps - step) / max(1, steps - warmup)
    else:
        fall = (steps - step) / max(1, round(DECAY_FRACTION * steps))
    return peak * min(rise, fall, 1.0)


def set_learning_rate(optimizers: list[Optimizer], rate: float) -> None:
    """Sets the learning rate of every parameter group, times the group's own ratio if it has one."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("rate_ratio", 1.0)


def optimizer_tensors(optimizers: list[Optimizer], model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of the optimizers' states, named by number of the optimizer, parameter and kind."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = {}
    for number, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state.items():
            for kind, value in state.items():
                tensors[f"{number}|{names[id(parameter)]}|{kind}"] = torch.as_tensor(value)
    return tensors


def restore_optimizers(optimizers: list[Optimizer], model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Loads the tensors of `optimizer_tensors`, as whole ones, back into the optimizers."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        number, name, kind = key.split("|")
        parameter = parameters[name]
        is_divided = value.shape == parameter.shape  # the number of steps is not
        value = part_of(value, parameter) if is_divided else value.to(parameter.device)
        optimizers[int(number)].state[parameter][kind] = value
