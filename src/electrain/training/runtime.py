"""The machine that a run is on: device, processes, precision, and the rate of its matrix products."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from electrain.foundation.errors import ConfigurationError
from electrain.training.settings import Precision

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
    dtype: torch.dtype  # of matrix products: bfloat16 (autocast) or float32
    # True where bfloat16 products are native, whatever `dtype` is. An optimizer may compute in bfloat16 there.
    has_fast_bfloat16: bool = False

    @property
    def is_first(self) -> bool:
        """True in the one process that writes files and prints."""
        return self.rank == 0

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def sum(self, numbers: list[float]) -> list[float]:
        """Sums of the numbers over all processes, in float64."""
        if self.processes == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return [float(number) for number in tensor.tolist()]

    def wait(self) -> None:
        """Returns when every process has called it."""
        self.sum([0.0])

    def of_first(self, numbers: list[float]) -> list[float]:
        """The numbers of the first process, in every process, so that all make the same decision."""
        return self.sum([number if self.is_first else 0.0 for number in numbers])

    def gather(self, number: float) -> list[float]:
        """The number of each process, in order."""
        return self.sum([number if rank == self.rank else 0.0 for rank in range(self.processes)])

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


def has_bfloat16_instructions(device: torch.device) -> bool:
    """True if bfloat16 matrix products are native. Where they are emulated, float32 is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products for a precision on a device."""
    if precision == "float32" or (precision == "auto" and not has_bfloat16_instructions(device)):
        return torch.float32
    return torch.bfloat16


def device_of(local_rank: int = 0) -> torch.device:
    """The CUDA device of a process of this machine, or the CPU if there is none.

    Raises: ConfigurationError: there are more processes than CUDA devices.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigurationError(
            f"process {local_rank} has no GPU: {torch.cuda.device_count()} here; lower torchrun --nproc-per-node"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def started_runtime(precision: Precision) -> Iterator[Runtime]:
    """Joins the other processes of a `torchrun`, if any, and makes arithmetic reproducible.

    Raises: ConfigurationError: more processes than CUDA devices.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    device = device_of(int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, cuBLAS is not reproducible
    # Embedding gradients must be summed in a fixed order for a resumed run to equal an uninterrupted one.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if processes > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Runtime(device, rank, processes, resolve_dtype(precision, device), has_bfloat16_instructions(device))
    finally:
        if processes > 1:
            distributed.destroy_process_group()


def measure_matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Floating-point operations per second of large matrix products, 2 m n k each: the best of several trials."""
    size = 1024 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    deadline = time.perf_counter() + seconds
    left @ right  # the first product also chooses a kernel
    while True:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(4):
            left @ right
        synchronize(device)
        end = time.perf_counter()
        best = max(best, 4 * 2 * size**3 / (end - start))
        if end > deadline:
            return best


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
