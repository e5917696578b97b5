"""Muon for matrices that are divided among processes, as `electrain.training.sharding` divides them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from electrain.training.muon import MOMENTUM, ROOT_MEAN_SQUARE, STATE_NAME, Muon, orthogonalised
from electrain.training.sharding import local


class ShardedMuon(Muon):
    """Muon whose processes keep their rows of each matrix, and of its momentum.

    Only whole matrices can be made orthogonal. So every process gathers them, those of one shape at a time, and makes
    all of them orthogonal, of which it then uses its rows: a step costs each process as much time as it costs a single
    one, and besides the memory of all matrices of one shape.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient. All processes call it together."""
        del closure
        for group in self.param_groups:
            alike: dict[torch.Size, list[DTensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, same in alike.items():
                self._update(same, max(shape), group["lr"], group["lr"] * group["weight_decay"])

    def _update(self, same: list[DTensor], longer: int, rate: float, decay: float) -> None:
        gradients = torch.stack([local(one.grad) for one in same if one.grad is not None])
        weight: float | Tensor = 1 - MOMENTUM
        kept: float | Tensor = 1 - decay
        if self.found_inf is not None:
            is_refused = self.found_inf > 0
            # Gradients that are not finite must not get any further: NaN times zero is NaN again.
            gradients = torch.where(is_refused, 0.0, gradients)
            weight, kept = torch.where(is_refused, 0.0, weight), torch.where(is_refused, 1.0, kept)
        states = [local(self._momentum(one)) for one in same]
        momentum = torch.stack(states).lerp_(gradients, weight)
        torch._foreach_copy_(states, list(momentum.unbind()))
        ahead = gradients.lerp(momentum, MOMENTUM)  # Nesterov's momentum
        if self.found_inf is not None:
            ahead = torch.where(is_refused, 0.0, ahead)
        direction = self._own_rows_of_orthogonal(ahead, same[0])
        weights = [local(one) for one in same]
        torch._foreach_mul_(weights, kept)
        torch._foreach_add_(weights, list(direction.unbind()), alpha=-rate * ROOT_MEAN_SQUARE * math.sqrt(longer))

    def _momentum(self, parameter: DTensor) -> Tensor:
        state = self.state[parameter]
        if STATE_NAME not in state:
            state[STATE_NAME] = torch.zeros_like(parameter)
        momentum: Tensor = state[STATE_NAME]
        return momentum

    def _own_rows_of_orthogonal(self, ahead: Tensor, like: DTensor) -> Tensor:
        """(matrices, own rows, columns): from the rows of this process to its rows of the orthogonal matrices."""
        matrices, own, columns = ahead.shape
        mesh, rows = like.device_mesh, like.shape[0]
        # Each process has as many rows as the first, but for the last ones, which have fewer or none.
        most = -(-rows // mesh.size())
        padded = ahead.new_zeros(matrices, most, columns)
        padded[:, :own] = ahead
        parts = padded.new_empty(mesh.size() * matrices, most, columns)
        distributed.all_gather_into_tensor(parts, padded, group=mesh.get_group())
        whole = parts.view(mesh.size(), matrices, most, columns).transpose(0, 1).reshape(matrices, -1, columns)
        whole = whole[:, :rows].to(self.dtype)
        is_standing = rows > columns
        result = orthogonalised(whole.mT if is_standing else whole)
        first = min(mesh.get_local_rank() * most, rows)
        result = (result.mT if is_standing else result)[:, first : first + own]
        return result.to(ahead.dtype, memory_format=torch.contiguous_format)
