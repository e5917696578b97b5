"""How a run multiplies matrices: measured when it begins, and recorded, so that a resumed run multiplies the same."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from electrain.foundation.errors import ConfigurationError
from electrain.foundation.output_folder import MANIFEST_NAME, Manifest, read_manifest, write_manifest
from electrain.training.settings import Precision

FACT = "arithmetic"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Autocast also casts weights and activations, so products must gain more than that costs. Where two bytes are native
# they are about twice as fast or more, and where they are emulated a hundred times slower (docs/experiments.md).
LEAST_SPEEDUP = 1.2
# Both formats take turns for about this long, and at least this often, so that other work disturbs both alike.
TRIAL_SECONDS = 0.2
LEAST_TRIALS = 5


@dataclass(frozen=True)
class Arithmetic:
    """The number formats of a device.

    Attributes:
        precision: format of the run's matrix products: float32, bfloat16 or float16.
        has_fast_bfloat16: True where bfloat16 products are worth while, whatever `precision` is.
        speedup: rate of two-byte products over that of float32 products; 0 where it was not measured.
    """

    precision: str = "float32"
    has_fast_bfloat16: bool = False
    speedup: float = 0.0

    @property
    def dtype(self) -> torch.dtype:
        """`precision` as PyTorch's type."""
        return DTYPES[self.precision]

    def to_numbers(self) -> list[float]:
        """As processes exchange it."""
        return [float(list(DTYPES).index(self.precision)), float(self.has_fast_bfloat16), self.speedup]

    @classmethod
    def from_numbers(cls, numbers: list[float]) -> "Arithmetic":
        """The opposite of `to_numbers`."""
        return cls(list(DTYPES)[int(numbers[0])], bool(numbers[1]), numbers[2])


def choose_arithmetic(precision: Precision, device: torch.device) -> Arithmetic:
    """The arithmetic of a new run. `auto` takes two bytes a number where a measurement finds their products faster.

    Raises: ConfigurationError: the device cannot compute in this precision.
    """
    require_possible(precision, device)
    half = half_precision_of(device)
    speedup = 0.0 if half is None else measure_speedup(device, half)
    is_fast = speedup >= LEAST_SPEEDUP
    chosen = precision
    if precision == "auto":
        chosen = "bfloat16" if is_fast and half == torch.bfloat16 else "float16" if is_fast else "float32"
    return Arithmetic(chosen, is_fast and half == torch.bfloat16, round(speedup, 2))


def require_possible(precision: Precision, device: torch.device) -> None:
    """Raises: ConfigurationError: the device cannot compute in this precision."""
    # PyTorch emulates float16 products on a CPU: 1 GFLOP/s on a core that reaches 90 in float32. On Apple's devices
    # nobody has compared the two-byte formats with float32 yet.
    refused = {"cpu": ("float16",), "mps": ("float16", "bfloat16")}.get(device.type, ())
    if precision in refused:
        raise ConfigurationError(f'precision = "{precision}": not supported on the device {device.type}; set "auto"')


def half_precision_of(device: torch.device) -> torch.dtype | None:
    """The format of two bytes that a device may be fast in. None: it has none that training can rely on."""
    if device.type == "cpu":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return None


def measure_speedup(device: torch.device, half: torch.dtype) -> float:
    """Rate of matrix products in `half` over their rate in float32: the best of interleaved trials."""
    size = 256 if device.type == "cpu" else 4096  # emulated, 256 take 27 ms
    source = torch.Generator().manual_seed(0)  # a run's own random numbers stay as they are
    drawn = torch.randn(size, size, generator=source).to(device)
    factors = {dtype: drawn.to(dtype) for dtype in (torch.float32, half)}
    best = dict.fromkeys(factors, math.inf)
    for factor in factors.values():
        factor @ factor  # the first product also chooses a kernel
    deadline, trials = time.perf_counter() + TRIAL_SECONDS, 0
    with _one_thread():
        while trials < LEAST_TRIALS or time.perf_counter() < deadline:
            for dtype, factor in factors.items():
                synchronize(device)
                start = time.perf_counter()
                factor @ factor
                synchronize(device)
                best[dtype] = min(best[dtype], time.perf_counter() - start)
            trials += 1
    return best[torch.float32] / best[half]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads wait for each other, so that other work on the machine would disturb two more than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure_matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Floating-point operations per second of large matrix products, 2 m n k each: the best of several trials."""
    size = 8192 if device.type == "cuda" else 1024
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
    elif device.type == "mps":
        torch.mps.synchronize()


def recorded_arithmetic(output: Path, kind: str, device: torch.device) -> Arithmetic | None:
    """What the run in a folder chose on a device of this type; None: it chooses now.

    A run made before this was recorded went by the processor's instructions, and does so again.
    """
    if not (output / MANIFEST_NAME).exists():
        return None
    facts = read_manifest(output, kind).facts
    if FACT not in facts:
        has_bfloat16 = _has_bfloat16_instructions(device)
        return Arithmetic("bfloat16" if has_bfloat16 else "float32", has_bfloat16)
    found: dict[str, Any] | None = facts[FACT].get(device.type)
    return None if found is None else Arithmetic(**found)


def record_arithmetic(output: Path, kind: str, device: torch.device, arithmetic: Arithmetic) -> None:
    """Writes into the manifest of a run what it chose on a device of this type, unless that is there."""
    manifest = read_manifest(output, kind)
    recorded = manifest.facts.get(FACT, {})
    if device.type not in recorded:
        facts = manifest.facts | {FACT: recorded | {device.type: asdict(arithmetic)}}
        write_manifest(output, Manifest(kind, manifest.finished, manifest.inputs, facts))


def _has_bfloat16_instructions(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
