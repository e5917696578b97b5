"""Weights divided among processes, for models that do not fit on one device: PyTorch's FSDP2.

Each process keeps a part of every weight, of its gradient and of its optimizer state: some of the rows. The weights of
a unit are gathered before it computes, and given back afterwards. Each layer is a unit. What lies in no layer is one
too, the root, which stays gathered during a step. Files hold whole weights, under the same names.

Source: Rajbhandari et al. 2020, "ZeRO", section 5.3 (parameters divided); Zhao et al. 2023, "PyTorch FSDP".
"""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

# As `torch.nn.utils.clip_grad_norm_`, where it keeps a norm of zero from dividing.
SMALLEST_NORM = 1e-6


def shard_parameters(module: nn.Module, units: Iterable[nn.Module], device: torch.device, processes: int) -> None:
    """Divides the weights of a module, which may lie on the CPU, among all processes; each keeps its part on `device`.

    The weights must be the same in all processes. The device holds its parts and one whole unit at most.

    Args: units: modules inside, without weights in common, that are gathered one after another; all else is the root.
    """
    mesh = init_device_mesh(device.type, (processes,))
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(module, mesh=mesh)
    # Passages are written there, by networks of the root unit.
    register_fsdp_forward_method(module, "prepare")


def is_sharded(module: nn.Module) -> bool:
    """True after `shard_parameters`."""
    return isinstance(module, FSDPModule)


@torch.no_grad()
def local(tensor: Tensor) -> Tensor:
    """The part of this process, which shares its memory with the tensor; a tensor that is not divided, as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of a parameter, and divided as it is. No process asks another."""
    if not isinstance(like, DTensor):
        return whole.to(like.device)
    part: Tensor = distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return part


@torch.no_grad()
def gathered(tensors: dict[str, Tensor], *, is_kept: bool) -> dict[str, Tensor]:
    """The whole tensors in the memory of the CPU, if `is_kept`, else none. All processes call it together.

    One tensor after another is gathered, so that the device needs room for the largest only.
    """
    kept = {}
    for name, tensor in tensors.items():
        whole = tensor.detach()
        if isinstance(whole, DTensor):
            whole = whole.full_tensor()
        if is_kept:
            kept[name] = whole.cpu().contiguous()
    return kept


@torch.no_grad()
def copy_weights(tensors: dict[str, Tensor], module: nn.Module) -> None:
    """Copies whole tensors into a module's parameters of the same names."""
    for name, parameter in module.named_parameters():
        local(parameter).copy_(local(part_of(tensors[name], parameter)))


@torch.no_grad()
def clip_divided_gradients(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Clips gradients that are divided among the processes to a norm. Nothing waits for the device.

    Returns: () float32; the norm over the gradients of all processes before clipping.
    """
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if not gradients:  # then in every process
        return torch.zeros((), device=parameters[0].device)
    squares = nn.utils.get_total_norm(gradients).double().square()
    distributed.all_reduce(squares)
    norm = squares.sqrt().float()
    torch._foreach_mul_(gradients, (limit / (norm + SMALLEST_NORM)).clamp(max=1.0))
    return norm
