"""What the machine is: its system, processor, memory, disks and encodings. Nothing here needs a library."""

import locale
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from electrain.foundation.json_reading import Json
from electrain.foundation.limits import (
    allowed_cores,
    available_cores,
    container_memory_bytes,
    core_quota,
    machine_memory_bytes,
)

Facts = dict[str, Json]
_PROCESSOR = Path("/proc/cpuinfo")
_NVIDIA = Path("/proc/driver/nvidia/version")
# The instructions that PyTorch's kernels for matrices and vectors are chosen by: Linux's names, and those of macOS.
_INSTRUCTIONS = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "svebf16", "sme"),
)
_OF_MACOS = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_SME": "sme",
}
_SYSCTL_SECONDS = 5.0
# What decides how many threads compute, and on which device; their values are numbers or short words.
_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"),
    *("KMP_BLOCKTIME", "TOKENIZERS_PARALLELISM", "ATEN_CPU_CAPABILITY", "CUDA_VISIBLE_DEVICES", "ELECTRAIN_DEVICE"),
    *("WORLD_SIZE", "PYTHONUTF8", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"),
)


def system_facts() -> Facts:
    """The operating system, and Python."""
    return {
        "name": platform.system() or sys.platform,
        "release": platform.release(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "bits": 64 if sys.maxsize > 1 << 32 else 32,
    }


def processor_facts() -> Facts:
    """The processor's name, the instructions that matter, and the cores that this process may use."""
    name, instructions = _from_linux() or _from_macos() or (platform.processor(), [])
    return {
        "name": name or platform.machine(),
        "instructions": [*instructions],
        "cores": os.cpu_count() or 0,
        "allowed_cores": allowed_cores(),
        "core_quota": core_quota(),
        "available_cores": available_cores(),
    }


def _from_linux() -> tuple[str, list[str]] | None:
    try:
        lines = _PROCESSOR.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return fields.get("model name") or fields.get("Model") or "", [one for one in _INSTRUCTIONS if one in flags]


def _from_macos() -> tuple[str, list[str]] | None:
    if platform.system() != "Darwin":
        return None
    command = ["sysctl", "machdep.cpu.brand_string", "hw.optional"]
    try:
        told = subprocess.run(command, capture_output=True, timeout=_SYSCTL_SECONDS, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    fields = dict(line.split(": ", 1) for line in told.decode("utf-8", "replace").splitlines() if ": " in line)
    has = {ours for theirs, ours in _OF_MACOS.items() if fields.get(theirs) == "1"}
    return fields.get("machdep.cpu.brand_string", ""), [one for one in _INSTRUCTIONS if one in has]


def memory_facts() -> Facts:
    """Bytes of memory: of the machine (0: unknown), and what its container may use."""
    return {"machine_bytes": machine_memory_bytes(), "container_bytes": container_memory_bytes()}


def has_nvidia_driver() -> bool:
    """True where NVIDIA's driver is installed, whatever torch sees."""
    return _NVIDIA.exists() or shutil.which("nvidia-smi") is not None


def variables() -> Facts:
    """The environment variables that matter here and are set."""
    return {name: os.environ[name][:40] for name in _VARIABLES if name in os.environ}


def folder_facts() -> dict[str, Facts]:
    """Free bytes of the folders that electrain writes to, by what they are for, and whether it can write there."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    folders = {"working folder": Path.cwd(), "cache of the hub": Path(os.environ.get("HF_HUB_CACHE") or home / "hub")}
    with suppress(OSError):  # no temporary folder can be written, which is said of that one
        folders["temporary folder"] = Path(tempfile.gettempdir())
    found: dict[str, Facts] = {
        name: {"free_bytes": _free_bytes(path), "is_writable": _is_writable(path)} for name, path in folders.items()
    }
    found.setdefault("temporary folder", {"free_bytes": 0, "is_writable": False})
    return found


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there, in which it would be made."""
    return next((one for one in (path, *path.parents) if one.is_dir()), path)


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(_existing(path)).free
    except OSError:
        return 0


def _is_writable(path: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=_existing(path)):
            return True
    except OSError:
        return False


def encoding_facts() -> Facts:
    """How names of files and texts are encoded here."""
    return {
        "file_names": sys.getfilesystemencoding(),
        "locale": locale.getpreferredencoding(False),
        "standard_error": getattr(sys.stderr, "encoding", None) or "closed",
    }
