"""The machine that a run is on: its device, its processes, and the precision that it computes in."""

import functools
import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed
from torch.nn import functional

from electrain.foundation.errors import ConfigurationError, ElectrainError
from electrain.foundation.progress import counted
from electrain.training.arithmetic import Arithmetic, choose_arithmetic, require_possible
from electrain.training.settings import Precision

T = TypeVar("T")

DEVICE_VARIABLE = "ELECTRAIN_DEVICE"
OUT_OF_MEMORY = (
    "the GPU's memory is full; set --training.gradient-checkpointing true, which costs about a third more time, or "
    "lower --training.micro-batch-rows, which changes rounding and the random draws of dropout; then continue with "
    "--resume"
)


@dataclass(frozen=True)
class Runtime:
    """Where and how this process computes."""

    device: torch.device
    rank: int  # from 0
    processes: int  # as `torchrun` started them
    arithmetic: Arithmetic = field(default_factory=Arithmetic)  # as chosen or recorded

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of matrix products: float32, or by autocast bfloat16 or float16."""
        return self.arithmetic.dtype

    @property
    def muon_dtype(self) -> torch.dtype:
        """The dtype of Muon's products, which bear bfloat16 in runs of any precision."""
        return torch.bfloat16 if self.arithmetic.has_fast_bfloat16 else torch.float32

    @property
    def is_first(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """The device in words, which name no host."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type == "mps":
            return "Apple GPU"
        return f"{platform.machine()} CPU, {counted(torch.get_num_threads(), 'thread')}"

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        is_half = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype if is_half else None, enabled=is_half)

    def sum(self, numbers: list[float]) -> list[float]:
        """Sums of the numbers over all processes, in float64."""
        if self.processes == 1:
            return numbers
        # NCCL exchanges tensors of its device, gloo those of the CPU.
        device = self.device if self.device.type == "cuda" else "cpu"
        tensor = torch.tensor(numbers, dtype=torch.float64, device=device)
        distributed.all_reduce(tensor)
        return [float(number) for number in tensor.tolist()]

    def counted(self, numbers: list[int | Tensor]) -> Tensor:
        """(numbers,) int64 on the device: the sums over all processes. Nothing waits for the device."""
        if any(isinstance(number, Tensor) for number in numbers):
            full = partial(torch.full, (), dtype=torch.int64, device=self.device)
            tensor = torch.stack([number if isinstance(number, Tensor) else full(number) for number in numbers])
        else:
            tensor = torch.tensor(numbers, dtype=torch.int64)
            # From ordinary memory the copy would wait until the device has done everything before it.
            tensor = (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)
        return self.added_up(tensor)

    def added_up(self, tensor: Tensor) -> Tensor:
        """The tensor's sum over all processes, in place. Nothing waits for the device."""
        if self.processes > 1:
            distributed.all_reduce(tensor)
        return tensor

    @property
    def widest_float(self) -> torch.dtype:
        """float64, or float32 on Apple's GPUs, which have no float64."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def wait(self) -> None:
        """Returns when every process has called it."""
        self.sum([0.0])

    def of_first(self, numbers: list[float]) -> list[float]:
        """The numbers of the first process, in every process, so that all make the same decision."""
        return self.sum([number if self.is_first else 0.0 for number in numbers])

    def gather(self, number: float) -> list[float]:
        """The number of each process, in order."""
        return self.sum([number if rank == self.rank else 0.0 for rank in range(self.processes)])

    def together(self, action: Callable[[], T]) -> T:
        """The result of an action, which all processes take; if it fails in any, all of them end.

        Raises: ElectrainError in the first process whose action raised one, SystemExit in the others, so that it is
            printed once.
        """
        result, problem = None, None
        try:
            result = action()
        except ElectrainError as error:
            problem = error
        failed = [number > 0 for number in self.gather(float(problem is not None))]
        if problem is not None and failed.index(True) == self.rank:
            raise problem
        if any(failed):
            raise SystemExit(2)
        return cast(T, result)

    def require_same(self, value: str, message: str) -> None:
        """Stops every process unless all hold the same value. The first one reports the message.

        Raises: ConfigurationError in the first process, SystemExit in the others, so that it is printed once.
        """
        number = float(int(hashlib.sha256(value.encode("utf-8")).hexdigest()[:12], 16))  # exact in float64
        if len(set(self.gather(number))) == 1:
            return
        if self.is_first:
            raise ConfigurationError(message)
        raise SystemExit(2)


def device_of(local_rank: int = 0) -> torch.device:
    """The CUDA device of a process of this machine, or a Mac's GPU if it works, or the CPU.

    The environment variable ELECTRAIN_DEVICE=cpu leaves every GPU alone.

    Raises: ConfigurationError: there are more processes than CUDA devices.
    """
    wanted = os.environ.get(DEVICE_VARIABLE, "")
    if wanted not in ("", "cpu"):
        raise ConfigurationError(f"{DEVICE_VARIABLE}={wanted}: set it to cpu, or unset it to use the GPU that is there")
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise ConfigurationError(
                f"process {local_rank} has no GPU: {torch.cuda.device_count()} here; lower torchrun --nproc-per-node"
            )
        return torch.device("cuda", local_rank)
    # Processes on Macs would exchange gradients over gloo, which takes CPU tensors only.
    is_alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return torch.device("mps" if is_alone and apple_gpu_works() else "cpu")


@functools.cache
def apple_gpu_works() -> bool:
    """True on a Mac whose GPU computes the gradients that the CPU computes, within rounding."""
    if not torch.backends.mps.is_available():
        return False
    try:
        expected, found = (sample_gradients(torch.device(name)) for name in ("cpu", "mps"))
    except (RuntimeError, TypeError):  # an operator is missing in this version of macOS
        return False
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def sample_gradients(device: torch.device) -> Tensor:
    """(numbers,) float32, on the CPU: the gradients of a small attention layer with a word loss, always the same."""
    source = torch.Generator().manual_seed(0)
    words, mixing, head = (torch.randn(16, 16, generator=source).to(device).requires_grad_() for _ in range(3))
    ids = torch.randint(16, (2, 8), generator=source).to(device)
    inputs = functional.layer_norm(functional.embedding(ids, words), (16,))
    split = (inputs @ mixing).view(2, 8, 2, 8).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(split, split, split).transpose(1, 2).reshape(2, 8, 16)
    loss = functional.cross_entropy((functional.gelu(mixed) @ head).flatten(0, 1), ids.flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat([one.grad.flatten().cpu() for one in (words, mixing, head) if one.grad is not None])


def compute_reproducibly(*, wanted: bool) -> None:
    """Makes a resumed run equal an uninterrupted one: sums, such as embeddings' gradients, keep their order.

    Args: wanted: False allows any order, which can be faster on a GPU.
    """
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # The gradient of cuDNN's attention sums in any order, whatever PyTorch is told. The other kernels obey.
    torch.backends.cuda.enable_cudnn_sdp(not wanted)


@contextmanager
def settings_restored(device: torch.device) -> Iterator[None]:
    """Gives the caller back its random numbers and PyTorch's settings, which `compute_reproducibly` changes."""
    was_wanted = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    had_cudnn = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_wanted, warn_only=warned_only)
            torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
            torch.backends.cuda.enable_cudnn_sdp(had_cudnn)


@contextmanager
def started_runtime(
    precision: Precision, recorded: Callable[[torch.device], Arithmetic | None] | None = None
) -> Iterator[Runtime]:
    """Joins the other processes of a `torchrun`, if any, and makes arithmetic reproducible until it is left.

    Args:
        precision: that of the configuration.
        recorded: what a run that goes on chose on a device of this type, if any. The first process asks it.
    Raises: ConfigurationError: more processes than CUDA devices, or a precision that the device does not have.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    device = device_of(int(os.environ.get("LOCAL_RANK", "0")))
    require_possible(precision, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, cuBLAS is not reproducible
    with settings_restored(device):
        compute_reproducibly(wanted=True)
        if processes > 1:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            runtime = Runtime(device, rank, processes)
            # A measurement is noisy, so one process makes it, once in a run.
            own = Arithmetic()
            if runtime.is_first:
                own = (recorded(device) if recorded else None) or choose_arithmetic(precision, device)
            yield replace(runtime, arithmetic=Arithmetic.from_numbers(runtime.of_first(own.to_numbers())))
        finally:
            if processes > 1:
                distributed.destroy_process_group()
