"""Muon: steps of momentum whose matrices are made nearly orthogonal first; all matrices of one shape at once.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is
scalable for LLM training", section 2.2, for the size of the step. The numbers are those of `torch.optim.Muon`, which
orthogonalises one matrix after another, and in bfloat16 on every machine.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

MOMENTUM = 0.95
NEWTON_SCHULZ_STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic polynomial; Jordan et al.
SMALLEST_NORM = 1e-7
# AdamW's updates have a root mean square of about 0.2, so that one learning rate serves both (Liu et al., section 2.2).
ROOT_MEAN_SQUARE = 0.2
STATE_NAME = "momentum_buffer"


@dataclass
class _Stack:
    """Matrices that are orthogonalised together, each lying down: (matrices, shorter side, longer side).

    On a CPU a stack holds one shape. On a GPU, where a small product costs as much as its launch, it holds all shapes
    with the same shorter side, and zeros fill the ends of shorter rows. They stay zeros in every product.
    """

    parameters: list[list[Tensor]]  # of each shape
    gradients: Tensor  # float; overwritten in every step, but for the zeros
    momentum: Tensor  # float; the parameters' states are views of it

    def parts(self, stacked: Tensor) -> Iterator[tuple[list[Tensor], Tensor]]:
        """The parameters of each shape, and their (parameters, rows, columns) part of a stack, standing as they do."""
        first = 0
        for same in self.parameters:
            rows, columns = same[0].shape
            part = stacked[first : first + len(same), :, : max(rows, columns)]
            yield same, part.mT if rows > columns else part
            first += len(same)


class Muon(Optimizer):
    """Muon for matrices; other parameters need another optimizer.

    Attributes:
        found_inf: () float32 on the parameters' device, 1 refuses the next step, which then changes nothing; None
            takes it. The name and the meaning are those of PyTorch's fused optimizers.
    """

    def __init__(self, parameters: Iterable[Any], lr: float, weight_decay: float, dtype: torch.dtype) -> None:
        """Muon of matrices, or of groups of them with rates and decays of their own, as PyTorch's optimizers take them.

        Args: dtype: of the products, bfloat16 where the device has native bfloat16 products, else float32.
        """
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.dtype = dtype
        self.found_inf: Tensor | None = None
        self._stacks: dict[int, list[_Stack]] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        del closure
        for number, group in enumerate(self.param_groups):
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not trained:
                continue
            on_device = works_apart(trained[0].device)
            if self.found_inf is not None and not on_device and self.found_inf:
                continue
            is_refused = self.found_inf > 0 if self.found_inf is not None and on_device else None
            rate, decay = group["lr"], 1 - group["lr"] * group["weight_decay"]
            directions = [(stack, self._direction(stack, is_refused)) for stack in self._stacks_of(number, trained)]
            torch._foreach_mul_(trained, decay if is_refused is None else torch.where(is_refused, 1.0, decay))
            for same, part in (pair for stack, direction in directions for pair in stack.parts(direction)):
                if on_device:  # in the form of the parameters, so that all of a shape are updated in one launch
                    part = torch.empty(part.shape, dtype=same[0].dtype, device=part.device).copy_(part)
                size = rate * ROOT_MEAN_SQUARE * math.sqrt(max(same[0].shape))
                torch._foreach_add_(same, list(part.unbind()), alpha=-size)

    def _direction(self, stack: _Stack, is_refused: Tensor | None) -> Tensor:
        """The nearly orthogonal matrices of a stack; zeros if the step is refused. Updates the momentum."""
        zero = stack.gradients.new_zeros(())
        for same, part in stack.parts(stack.gradients):
            of_shape = [parameter.grad for parameter in same if parameter.grad is not None]
            if is_refused is None:
                torch._foreach_copy_(list(part.unbind()), of_shape)
            else:
                gradients = torch.stack(of_shape)
                # Gradients that are not finite must not get any further: NaN times zero is NaN again.
                torch.where(is_refused, zero, gradients, out=part)
        momentum = stack.momentum
        weight: float | Tensor = 1 - MOMENTUM
        if is_refused is not None:
            weight = torch.where(is_refused, 0.0, 1 - MOMENTUM)
        momentum.lerp_(stack.gradients, weight)
        # Nesterov's momentum: the gradient and the momentum once more.
        ahead = stack.gradients.lerp_(momentum, MOMENTUM)
        if is_refused is not None:
            ahead = torch.where(is_refused, 0.0, ahead)
        return orthogonalised(ahead.to(self.dtype))

    def _stacks_of(self, number: int, trained: list[Tensor]) -> list[_Stack]:
        """The stacks of a parameter group. They are kept until other parameters get gradients, or states are loaded."""
        stacks = self._stacks.get(number, [])
        held = {id(parameter) for stack in stacks for same in stack.parameters for parameter in same}
        is_current = held == {id(parameter) for parameter in trained} and all(
            STATE_NAME in self.state[same[0]] and self.state[same[0]][STATE_NAME].data_ptr() == part.data_ptr()
            for stack in stacks
            for same, part in stack.parts(stack.momentum)
        )
        if not is_current:
            stacks = self._stacks[number] = [self._stacked(shapes) for shapes in _alike(trained)]
        return stacks

    def _stacked(self, shapes: list[list[Tensor]]) -> _Stack:
        first = shapes[0][0]
        size = (sum(map(len, shapes)), min(first.shape), max(max(same[0].shape) for same in shapes))
        gradients, momentum = (torch.zeros(size, dtype=first.dtype, device=first.device) for _ in range(2))
        stack = _Stack(shapes, gradients, momentum)
        for same, part in stack.parts(momentum):
            for parameter, view in zip(same, part.unbind(), strict=True):
                state = self.state[parameter]
                if STATE_NAME in state:
                    view.copy_(state[STATE_NAME])
                state[STATE_NAME] = view
        return stack


def works_apart(device: torch.device) -> bool:
    """True for a GPU: reading from it makes it wait, and a few large operations are faster than many small ones."""
    return device.type != "cpu"


def _alike(parameters: list[Tensor]) -> list[list[list[Tensor]]]:
    """The parameters of each stack, by shape."""
    stacks: dict[tuple[int, ...], dict[torch.Size, list[Tensor]]] = {}
    for parameter in parameters:
        sides = (min(parameter.shape), max(parameter.shape))
        key = sides[:1] if works_apart(parameter.device) else sides
        stacks.setdefault(key, {}).setdefault(parameter.shape, []).append(parameter)
    return [list(shapes.values()) for shapes in stacks.values()]


def orthogonalised(matrices: Tensor) -> Tensor:
    """(matrices, rows, columns) float: the matrices with singular values between about 0.7 and 1.2.

    Args: matrices: (matrices, rows, columns) float, rows <= columns; the dtype is that of the products.
    Source: Jordan et al. 2024; five Newton-Schulz iterations of an odd polynomial of degree five.
    """
    # The polynomial expands singular values up to 1, and the Frobenius norm is never below the largest of them.
    result: Tensor = matrices / torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True).clamp(min=SMALLEST_NORM)
    rows, columns = matrices.shape[1:]
    # For twice to four times as many columns as rows, the other form has 16 to 44% fewer operations. In bfloat16 its
    # products would lose the small eigenvalues.
    if matrices.dtype == torch.float32 and 2 * columns > 3 * rows:
        return torch.bmm(_square_factor(torch.bmm(result, result.mT)), result)
    first, third, fifth = COEFFICIENTS
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = torch.bmm(result, result.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth)
        result = torch.baddbmm(result, polynomial, result, beta=first)
    return result


def _square_factor(gram: Tensor) -> Tensor:
    """(matrices, rows, rows) float32: what all iterations together multiply a matrix by, from its product with itself.

    An iteration multiplies the matrix by a polynomial of the product, and the product by that polynomial twice. So the
    longer side is needed before the first iteration and after the last one only. The directions are those of the other
    form within a thousandth of their norm, whatever the matrix. In bfloat16 the two differ by a tenth of it or more.
    """
    first, third, fifth = COEFFICIENTS
    factor: Tensor | None = None
    for step in range(NEWTON_SCHULZ_STEPS):
        polynomial = torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth)
        polynomial.diagonal(dim1=1, dim2=2).add_(first)
        factor = polynomial if factor is None else torch.bmm(polynomial, factor)
        if step < NEWTON_SCHULZ_STEPS - 1:
            gram = torch.bmm(torch.bmm(polynomial, gram), polynomial)
    assert factor is not None
    return factor
