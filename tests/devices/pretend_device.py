"""A second device that any machine has: its tensors compute on the CPU and mix with others as a GPU's do.

PyTorch lets Python register a backend. A tensor of this one reports the device `pretend:0`, and holds a CPU tensor
with its values. Every operator computes on those, so that whole training steps run, and refuses a tensor that lies on
the CPU, as CUDA does. So a tensor made without `device=` fails on a machine without a GPU too.

It is no GPU in three ways: it is as fast and rounds as the CPU does, autocast changes no dtype, and nothing compiles.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._device import _device_constructors
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
WITHOUT_FLOAT64 = "pretend without float64"  # the same device, but it refuses float64 as Apple's GPUs do
_aten = torch.ops.aten
_TRAVELLING = {_aten._to_copy.default, _aten.copy_.default, _aten._has_compatible_shallow_copy_type.default}
# Of these CUDA takes the indices from the CPU, which are its second argument.
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


# A registered backend takes over pinned memory, which it does not have, from CUDA. With a real device it is not needed.
IS_REGISTERED = not torch.cuda.is_available()
if IS_REGISTERED:
    _setup_privateuseone_for_python_backend(NAME, _Backend())
DEVICE = torch.device(NAME if IS_REGISTERED else "cuda", 0)
_refused: set[torch.dtype] = set()


class PretendTensor(Tensor):
    """A tensor on the pretend device.

    Attributes:
        held: the CPU tensor that has the values.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendTensor":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        made = Tensor._make_wrapper_subclass(cls, held.shape, device=DEVICE, **layout)
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operator, *args, **(kwargs or {}))

    # What CUDA answers without being asked to move the tensor, and what tells shared memory apart.
    def tolist(self) -> Any:
        return self.held.tolist()

    def __format__(self, how: str) -> str:
        return format(self.held, how)

    # A list of numbers as an index would become a tensor where no kernel of Python is called.
    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_without_lists(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_without_lists(index), value)

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()


def _without_lists(index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(torch.as_tensor(part) if isinstance(part, list) else part for part in parts)


def _tensors_in(values: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def _require_one_device(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuses a CPU tensor beside one of ours; CUDA takes one without dimensions as a number."""
    if operator in _TRAVELLING:
        return
    if operator in _INDEXING and isinstance(args[0], PretendTensor):
        args = (args[0], *args[2:])
    tensors = _tensors_in((args, kwargs))
    elsewhere = [tuple(x.shape) for x in tensors if not isinstance(x, PretendTensor) and x.ndim]
    if elsewhere and len(elsewhere) < len(tensors) and any(isinstance(x, PretendTensor) for x in tensors):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, pretend:0 and cpu! "
            f"({operator}; on the CPU: {elsewhere})"
        )


def _compute(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """What an operator gives of the held tensors, back on the device."""
    _require_one_device(operator, args, kwargs)
    ours = [tensor for tensor in _tensors_in((args, kwargs)) if isinstance(tensor, PretendTensor)]
    given_args, given = pytree.tree_map_only(PretendTensor, lambda tensor: tensor.held, (args, kwargs))
    stays = bool(ours)
    if kwargs.get("device") is not None:
        stays = torch.device(kwargs["device"]).type == NAME
        given["device"] = torch.device("cpu")
    result = _MISSING_ON_THE_CPU.get(operator, operator)(*given_args, **given)
    if operator is _aten.copy_.default:
        return args[0]
    # An operator in place gives back the tensor that it was given.
    known: dict[int, Tensor] = {id(tensor.held): tensor for tensor in ours}
    if stays and any(tensor.dtype in _refused for tensor in _tensors_in(result)):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")

    def wrapped(tensor: Tensor) -> Tensor:
        return known[id(tensor)] if id(tensor) in known else PretendTensor(tensor)

    return pytree.tree_map_only(Tensor, wrapped, result) if stays else result


def _on_the_cpu(operator: Any) -> Any:
    """For operators whose own kernel resizes its result, which a wrapper's shape does not follow."""

    def compute(*args: Any, **kwargs: Any) -> Tensor:
        return PretendTensor(operator(*args, **{**kwargs, "device": torch.device("cpu")}))

    return compute


def _lstm_cell(from_input: Tensor, from_state: Tensor, cell: Tensor, *biases: Tensor | None) -> tuple[Tensor, ...]:
    """The new state, the new cell, and what the backward pass needs; the CPU has no such operator."""
    gates = (from_input + from_state + sum(bias for bias in biases if bias is not None)).chunk(4, 1)
    enter, forget, new, leave = gates[0].sigmoid(), gates[1].sigmoid(), gates[2].tanh(), gates[3].sigmoid()
    after = forget * cell + enter * new
    return leave * after.tanh(), after, torch.cat([enter, forget, new, leave], 1)


def _lstm_cell_backward(
    state_gradient: Tensor | None, cell_gradient: Tensor | None, before: Tensor, after: Tensor, gates: Tensor, *_: bool
) -> tuple[Tensor, ...]:
    enter, forget, new, leave = gates.chunk(4, 1)
    seen, by_state = after.tanh(), torch.zeros_like(after) if state_gradient is None else state_gradient
    by_cell = by_state * leave * (1 - seen**2) + (0 if cell_gradient is None else cell_gradient)
    through = [
        by_cell * new * enter * (1 - enter),
        by_cell * before * forget * (1 - forget),
        by_cell * enter * (1 - new**2),
        by_state * seen * leave * (1 - leave),
    ]
    joined = torch.cat(through, 1)
    return joined, by_cell * forget, joined.sum(0)


_MISSING_ON_THE_CPU = {
    _aten._thnn_fused_lstm_cell.default: _lstm_cell,
    _aten._thnn_fused_lstm_cell_backward_impl.default: _lstm_cell_backward,
}
# Both are kept: an operator is forgotten with its library.
_FALLBACKS, _OPERATORS = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
_FALLBACKS.fallback(_compute, "PrivateUse1")
_FALLBACKS.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
for _name, _operator in {
    "arange": _aten.arange.default,
    "arange.start": _aten.arange.start,
    "arange.start_step": _aten.arange.start_step,
    "eye": _aten.eye.default,
    "linspace": _aten.linspace.default,
}.items():
    _OPERATORS.impl(_name, _on_the_cpu(_operator), "PrivateUse1")


@contextmanager
def without_float64() -> Iterator[None]:
    """While it runs every operator refuses to make a tensor of float64 on the device."""
    _refused.add(torch.float64)
    try:
        yield
    finally:
        _refused.clear()


@contextmanager
def in_use(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While it runs `torch.tensor` makes tensors here too, and a module that moves keeps its `nn.Parameter` objects.

    Elsewhere a parameter keeps its identity by taking the new data, which a wrapper cannot do; so the two are swapped.
    """
    if not IS_REGISTERED:
        pytest.skip("with a CUDA device there is no pretend one")
    _device_constructors()  # `with torch.device(...)` remembers the true functions at its first use
    make, move = torch.tensor, nn.Module.to

    def tensor(data: Any, *, device: Any = None, **named: Any) -> Tensor:
        made = make(data, **named)
        return made if device is None else made.to(device)

    def to(module: nn.Module, *args: Any, **named: Any) -> nn.Module:
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return move(module, *args, **named)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)

    def enter(self: torch.inference_mode) -> None:  # wrappers need the version counters that it does without
        self._instead = torch.no_grad()
        self._instead.__enter__()

    with monkeypatch.context() as patch:
        patch.setattr(torch, "tensor", tensor)
        patch.setattr(torch.inference_mode, "__enter__", enter)
        patch.setattr(torch.inference_mode, "__exit__", lambda self, *error: self._instead.__exit__(*error))
        patch.setattr(nn.Module, "to", to)
        yield
