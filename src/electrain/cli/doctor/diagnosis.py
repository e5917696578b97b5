"""All that `electrain doctor` says: the facts, and of each thing that is wrong what to do about it."""

import getpass
import os
import re
import socket
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.table import Table

from electrain import __version__
from electrain.cli.doctor.machine import (
    Facts,
    encoding_facts,
    folder_facts,
    has_nvidia_driver,
    memory_facts,
    processor_facts,
    system_facts,
    variables,
)
from electrain.foundation.json_reading import Json
from electrain.foundation.progress import counted

GIGABYTE = 10**9
# A small run with its checkpoints takes about one, and so does a copy of a published model (docs/file-formats.md).
LEAST_FREE_BYTES = GIGABYTE
LEAST_MEMORY_BYTES = 2 * GIGABYTE  # torch and transformers alone take a quarter of it
HUB = "https://huggingface.co"
_TIMEOUT_SECONDS = 5.0
_SHORTEST_NAME = 3
_OTHER_FOLDERS = {
    "cache of the hub": "set HF_HOME to a folder that you can write",
    "temporary folder": "set TMPDIR to a folder that you can write",
}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong on this machine."""

    problem: str
    remedy: str
    prevents: bool = False  # True if electrain cannot work


def diagnose(*, online: bool = False) -> Facts:
    """What is here, and what is wrong with it. Args: online: ask the hub one request."""
    facts: Facts = {
        "system": system_facts(),
        "processor": processor_facts(),
        "memory": memory_facts(),
        "encodings": encoding_facts(),
        "variables": variables(),
        "folders": cast(Json, folder_facts()),
        "hub": _hub_facts(online=online),
    }
    packages, found = _installed()
    facts |= packages
    problems = [*found, *_of_torch(facts), *_of_machine(facts)]
    answer: Facts = {
        "electrain": __version__,
        "usable": not any(one.prevents for one in problems),
        "problems": [cast(Json, asdict(one)) for one in problems],
        **facts,
    }
    return cast(Facts, without_private_names(answer))


def _installed() -> tuple[Facts, list[Problem]]:
    """The libraries, the extras and what torch says, with what is wrong with the libraries."""
    try:
        from electrain.cli.doctor.packages import PURPOSES, package_of, requirements
        from electrain.cli.doctor.probe import TORCH, probe
    except ImportError as error:
        missing = Problem(f"a library cannot be imported: {error}", "pip install --force-reinstall packaging", True)
        return {"packages": [], "extras": [], "torch": {}}, [missing]
    declared = requirements()
    packages = [package_of(one) for one in declared[""]]
    faults, torch = probe(one.module for one in packages if one.state != "missing")
    broken = [one.name for one in packages if faults.get(one.module)]
    packages = [
        replace(one, state="broken", reason=faults[one.module]) if one.name in broken else one for one in packages
    ]
    problems = []
    if not packages:
        problems.append(Problem("electrain is not installed, only found", "pip install . in its folder"))
    for one in packages:
        if one.state != "ok":
            is_what = f"cannot be imported ({one.reason})" if one.state == "broken" else f"is {one.state}"
            command = f'pip install {"--force-reinstall " if one.state == "broken" else ""}"{one.name}{one.accepted}"'
            held = f" ({one.installed}; accepted: {one.accepted})" if one.state.startswith("too") else ""
            problems.append(Problem(f"{one.name} {is_what}{held}", command, True))
    extras = []
    for name, purpose in PURPOSES.items():
        members = [package_of(one) for one in declared.get(name, [])]
        lacking = [one.name for one in members if one.state != "ok"]
        extras.append({"name": name, "purpose": purpose, "missing": lacking})
    listed = [one.to_dict() for one in packages]
    return cast(Facts, {"packages": listed, "extras": extras, TORCH: torch}), problems


def _of_torch(facts: Facts) -> list[Problem]:
    """What keeps torch from the device that is there."""
    torch = cast(Facts, facts["torch"])
    problems = []
    if torch.get("fault"):
        problems.append(Problem(f"torch cannot use a device: {torch['fault']}", "correct that, then ask again", True))
    if torch and not torch.get("gpus") and has_nvidia_driver() and not os.environ.get("ELECTRAIN_DEVICE"):
        if torch.get("cuda"):
            remedy = "update NVIDIA's driver, or unset CUDA_VISIBLE_DEVICES"
            problems.append(Problem("NVIDIA's driver is installed, but torch sees no GPU", remedy))
        else:
            remedy = "pip install --force-reinstall torch, with the command for CUDA from https://pytorch.org"
            problems.append(Problem("NVIDIA's driver is installed, but this torch is built for the CPU only", remedy))
    cores, threads = cast(Facts, facts["processor"])["available_cores"], torch.get("threads")
    if isinstance(threads, int) and isinstance(cores, int) and threads > cores:
        what = f"torch computes with {counted(threads, 'thread')}, and this process may use {counted(cores, 'core')}"
        problems.append(Problem(f"{what}: they wait for each other", f"set OMP_NUM_THREADS={cores}"))
    return problems


def _of_machine(facts: Facts) -> list[Problem]:
    """Too little memory or disk, folders that cannot be written, text that cannot be read."""
    problems = []
    for name, folder in cast(dict[str, Facts], facts["folders"]).items():
        free = cast(int, folder["free_bytes"])
        if not folder["is_writable"]:
            problems.append(
                Problem(f"the {name} cannot be written", _OTHER_FOLDERS.get(name, "work in another folder"))
            )
        elif free < LEAST_FREE_BYTES:
            problems.append(
                Problem(f"the disk of the {name} has only {free / GIGABYTE:.1f} GB left", "free some space")
            )
    sizes = [size for size in cast(Facts, facts["memory"]).values() if isinstance(size, int) and size]
    if sizes and min(sizes) < LEAST_MEMORY_BYTES:
        problems.append(Problem(f"there are only {min(sizes) / GIGABYTE:.1f} GB of memory", "use the smallest models"))
    if cast(Facts, facts["system"])["bits"] == 32:
        problems.append(Problem("this Python has 32 bits", "install a Python of 64 bits", True))
    for what, name in (("file_names", "names of files"), ("locale", "files of other programs")):
        encoding = str(cast(Facts, facts["encodings"])[what])
        if re.sub("[-_]", "", encoding.lower()) not in ("utf8", "utf8sig"):
            remedy = "set PYTHONUTF8=1, or LANG=C.UTF-8"
            problems.append(Problem(f"{name} are read as {encoding}, not as UTF-8", remedy))
    told = cast(Facts, facts["hub"])
    if told["is_reachable"] is False:
        problems.append(Problem(f"the hub cannot be reached ({told['reason']})", "check the network and the proxy"))
    return problems


def _hub_facts(*, online: bool) -> Facts:
    """Whether models of the hub can be had; None for what was not asked. An address of one's own is not told."""
    endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    on = ("1", "on", "yes", "true")
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name, "").lower() in on]
    facts: Facts = {
        "is_offline": bool(offline),
        "endpoint": endpoint if endpoint == HUB else "another (HF_ENDPOINT)",
        "has_proxy": bool(urllib.request.getproxies()),
        "is_reachable": None,
        "reason": "",
    }
    if not online or offline:
        return facts
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
            return facts | {"is_reachable": True}
    except urllib.error.HTTPError as error:
        return facts | {"is_reachable": error.code < 500, "reason": f"status {error.code}"}
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return facts | {"is_reachable": False, "reason": type(reason).__name__}


def without_private_names(value: Json) -> Json:
    """The value with the names of the user, of the home folder and of the machine left out of its texts."""
    hidden: list[tuple[str, str]] = []
    with suppress(RuntimeError):  # nobody's home
        hidden.append((re.escape(str(Path.home())), "~"))
    with suppress(KeyError, OSError, ImportError):  # an unknown user
        hidden.append((rf"(?<=[/\\]){re.escape(getpass.getuser())}(?=[/\\])", "..."))
    name = socket.gethostname()
    if len(name) >= _SHORTEST_NAME:
        hidden.append((rf"\b{re.escape(name)}\b", "..."))

    def clean(part: Json) -> Json:
        if isinstance(part, dict):
            return {key: clean(one) for key, one in part.items()}
        if isinstance(part, list):
            return [clean(one) for one in part]
        if isinstance(part, str):
            for pattern, instead in hidden:
                part = re.sub(pattern, instead, part)
        return part

    return clean(value)


def print_table(found: Facts) -> None:
    """The answer for a person, on standard output."""
    console = Console(highlight=False, markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(found):
        table.add_row(name, text)
    console.print(table)
    for one in cast(list[Facts], found["problems"]):
        console.print(f"\n{'broken' if one['prevents'] else 'note'}: {one['problem']}\n  -> {one['remedy']}")
    console.print("\nelectrain can be used here" if found["usable"] else "\nelectrain cannot be used here yet")


def _rows(found: Facts) -> list[tuple[str, str]]:
    system, processor, torch, hub = (cast(Facts, found[name]) for name in ("system", "processor", "torch", "hub"))
    quota = f", {processor['core_quota']:g} by the container's quota" if processor["core_quota"] else ""
    memory = {name: cast(int, size or 0) / GIGABYTE for name, size in cast(Facts, found["memory"]).items()}
    contained = (
        f", of which this container may use {memory['container_bytes']:.1f}" if memory["container_bytes"] else ""
    )
    rows = [
        ("electrain", str(found["electrain"])),
        ("system", f"{system['name']} {system['release']}, {system['machine']}, {system['libc']}".rstrip(", ")),
        ("Python", f"{system['python']}, {system['implementation']}, {system['bits']} bits"),
        ("processor", str(processor["name"])),
        ("instructions", " ".join(cast(list[str], processor["instructions"])) or str(torch.get("kernels", "unknown"))),
        ("cores", f"{processor['allowed_cores']} of {processor['cores']}{quota}"),
        ("memory", f"{memory['machine_bytes']:.1f} GB{contained}" if memory["machine_bytes"] else "unknown"),
    ]
    if "device" in torch:
        gpus = ", ".join(cast(list[str], torch["gpus"]))
        rows += [
            ("device", f"{torch['device']}{f' ({gpus})' if gpus else ''}: {torch['device_reason']}"),
            ("precision", f"{torch['precision']}: {torch['precision_reason']}"),
            ("threads", f"{torch['threads']}, kernels for {torch['kernels']}"),
        ]
    rows += [("set variables", " ".join(f"{name}={text}" for name, text in cast(Facts, found["variables"]).items()))]
    for one in cast(list[dict[str, str]], found["packages"]):
        state = one["state"] if one["state"] == "ok" else one["state"].upper()
        rows.append((one["name"], f"{one['installed'] or '-'} ({one['accepted']}) {state}"))
    for extra in cast(list[Facts], found["extras"]):
        lacking = ", ".join(cast(list[str], extra["missing"]))
        how = f'not installed ({lacking}): pip install "electrain[{extra["name"]}]"' if lacking else "installed"
        rows.append((f"extra {extra['name']}", f"{extra['purpose']}: {how}"))
    for name, folder in cast(dict[str, Facts], found["folders"]).items():
        free = f"{cast(int, folder['free_bytes']) / GIGABYTE:.1f} GB free"
        rows.append((name, free if folder["is_writable"] else f"{free}, cannot be written"))
    reached = {True: "reachable", False: "not reachable", None: "not asked; --online asks"}
    rows.append(
        ("hub", "offline by a variable" if hub["is_offline"] else reached[cast("bool | None", hub["is_reachable"])])
    )
    encodings = cast(Facts, found["encodings"])
    rows.append(("encodings", f"file names {encodings['file_names']}, locale {encodings['locale']}"))
    return [(name, text) for name, text in rows if text]
