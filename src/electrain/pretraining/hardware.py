"""Devices by name: the rate of their matrix products, and their memory."""

import difflib
import time
from dataclasses import dataclass

import torch

from electrain.foundation.errors import ConfigurationError
from electrain.foundation.limits import memory_bytes
from electrain.foundation.progress import say
from electrain.training.arithmetic import choose_arithmetic, measure_matrix_rate
from electrain.training.runtime import device_of

THIS_MACHINE = "this"
GIGABYTE = 10**9

# Fraction of the nominal rate that training reaches. Large models reach 0.2 to 0.5 (Narayanan et al. 2021, table 1:
# 0.44 to 0.52; Chowdhery et al. 2022, table 3: 0.21 to 0.46), narrow ones less: the ELECTRA paper's own Small run (one
# V100, 4 days) comes to 0.21 of float32. The `matrix_rate_fraction` of a short run is better than this assumption.
UTILISATION_OF_NOMINAL = 0.3
# Fraction of a measured rate, from which the losses of large products are already taken off.
UTILISATION_OF_MEASURED = 0.6
# A process that has the machine to itself gets nearly all of the time of its threads.
SHARE_OF_A_FREE_MACHINE = 0.8


@dataclass(frozen=True)
class Hardware:
    """One device."""

    name: str  # as on the command line
    float32_flops: float  # operations per second of float32 matrix products, 2 m n k each, without TF32
    bfloat16_flops: float  # the same in bfloat16, dense, accumulating in float32; 0 where the device has no bfloat16
    memory_bytes: float  # 0: unknown
    utilisation: float = UTILISATION_OF_NOMINAL  # assumed fraction of these rates that training reaches
    float16_flops: float = 0.0  # the same in float16, dense; 0 where training cannot use it
    device: str = "cuda"  # kind of device: cuda or cpu

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of `precision = "auto"` on this device."""
        return torch.bfloat16 if self.bfloat16_flops else torch.float16 if self.float16_flops else torch.float32

    def flops(self, dtype: torch.dtype) -> float:
        """Operations per second in a dtype. Raises: ConfigurationError: the device is not made for it."""
        rates = {torch.bfloat16: self.bfloat16_flops, torch.float16: self.float16_flops}
        rate = rates.get(dtype, self.float32_flops)
        if not rate:
            name = str(dtype).removeprefix("torch.")
            raise ConfigurationError(f'{self.name}: has no {name} instructions; set [training] precision = "auto"')
        return rate


_KNOWN = [
    # NVIDIA Tesla P100 SXM2 data sheet, 2016: 10.6 TFLOPS single precision and 21.2 half, without tensor cores.
    Hardware("p100", 10.6e12, 0.0, 16 * GIGABYTE, float16_flops=21.2e12),
    # NVIDIA Tesla V100 SXM2 data sheet, 2020: 15.7 TFLOPS single precision. Its tensor cores know float16 only: 125.
    Hardware("v100", 15.7e12, 0.0, 32 * GIGABYTE, float16_flops=125e12),
    # NVIDIA T4 data sheet, 2019: 8.1 TFLOPS single precision, 16 GB. Float16 only, as above: 65.
    Hardware("t4", 8.1e12, 0.0, 16 * GIGABYTE, float16_flops=65e12),
    # NVIDIA A100 data sheet, 2022: 19.5 and 312 TFLOPS.
    Hardware("a100-40gb", 19.5e12, 312e12, 40 * GIGABYTE, float16_flops=312e12),
    Hardware("a100-80gb", 19.5e12, 312e12, 80 * GIGABYTE, float16_flops=312e12),
    # NVIDIA H100 and H200 SXM data sheets, 2023 and 2024: 67 TFLOPS, and 1,979 with sparsity, hence half.
    Hardware("h100", 67e12, 989e12, 80 * GIGABYTE, float16_flops=989e12),
    Hardware("h200", 67e12, 989e12, 141 * GIGABYTE, float16_flops=989e12),
    # NVIDIA L4 data sheet, 2023: 30.3 TFLOPS, and 242 with sparsity, hence half.
    Hardware("l4", 30.3e12, 121e12, 24 * GIGABYTE, float16_flops=121e12),
    # NVIDIA Ada architecture white paper, appendix A: 82.6, and 165.2 dense with float32 accumulation.
    Hardware("rtx-4090", 82.6e12, 165.2e12, 24 * GIGABYTE, float16_flops=165.2e12),
    # NVIDIA GA102 architecture white paper, appendix A: 35.6, and 71 dense with float32 accumulation.
    Hardware("rtx-3090", 35.6e12, 71e12, 24 * GIGABYTE, float16_flops=71e12),
    # Two cores with 256-bit vectors at 3 GHz: two fused multiply-adds of eight numbers a cycle. `this` measures.
    Hardware("cpu-2", 2 * 3e9 * 32, 0.0, 8 * GIGABYTE, device="cpu"),
]


def hardware_names() -> list[str]:
    """Names that `named_hardware` knows."""
    return [hardware.name for hardware in _KNOWN] + [THIS_MACHINE]


def named_hardware(name: str) -> Hardware:
    """The device of that name. `this` measures the present machine, which takes about a second.

    Raises: ConfigurationError: the name is unknown; the message suggests the nearest known one.
    """
    wanted = name.lower().replace(" ", "-").replace("_", "-")
    if wanted == THIS_MACHINE:
        return _this_machine()
    for hardware in _KNOWN:
        if hardware.name == wanted:
            return hardware
    longer = [known for known in hardware_names() if known.startswith(wanted)]
    nearest = longer or difflib.get_close_matches(wanted, hardware_names(), n=1, cutoff=0.4)
    hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    raise ConfigurationError(f"--hardware {name}: unknown; {hint}known: {', '.join(hardware_names())}")


def busy_notice(cores: float, threads: int) -> str:
    """What to say of a measurement that got the time of so many cores; "" if it had nearly all that it could use."""
    share = min(1.0, cores / threads)
    if share >= SHARE_OF_A_FREE_MACHINE:
        return ""
    of_all = "a core" if threads == 1 else f"{threads} cores"
    alone = max(0.01, share)
    return (
        f"; other programs use this machine: the measurement got {share:.0%} of {of_all}. Alone, the run takes about "
        f"{alone:.0%} of these hours"
    )


def _this_machine() -> Hardware:
    device = device_of()
    if device.type == "cuda":
        memory = float(torch.cuda.get_device_properties(device).total_memory)
    else:
        memory = float(memory_bytes())
    rates = {"bfloat16": 0.0, "float16": 0.0}
    best = choose_arithmetic("auto", device)
    started, used = time.perf_counter(), time.process_time()
    if best.precision in rates:
        rates[best.precision] = measure_matrix_rate(device, best.dtype)
    float32 = measure_matrix_rate(device, torch.float32)
    cores = (time.process_time() - used) / max(time.perf_counter() - started, 1e-9)
    rate = rates.get(best.precision, float32)
    busy = busy_notice(cores, torch.get_num_threads()) if device.type == "cpu" else ""
    say(
        f"plan: matrix products run at {rate / 1e9:,.0f} GFLOP/s in {best.precision}, measured as `pretrain` does{busy}"
    )
    return Hardware(
        THIS_MACHINE, float32, rates["bfloat16"], memory, UTILISATION_OF_MEASURED, rates["float16"], device.type
    )
