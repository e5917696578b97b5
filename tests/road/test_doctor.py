"""What `electrain doctor` says of a machine, also of one on which something is missing or broken."""

import getpass
import json
import os
import platform
import re
import socket
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from command_line import command
from electrain import __version__
from electrain.cli.doctor import diagnosis, machine, packages, probe
from electrain.cli.doctor.diagnosis import diagnose, without_private_names
from electrain.cli.doctor.packages import PURPOSES, package_of
from electrain.foundation import limits, progress

TORCH: dict[str, object] = {
    "version": "2.13.0+cpu",
    "threads": 1,
    "kernels": "AVX2",
    "cuda": "",
    "gpus": [],
    "device": "cpu",
    "device_reason": "torch sees no GPU",
    "precision": "float32",
    "precision_reason": "measured",
}
Facts = dict[str, Any]


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Torch's answer, without the seconds that importing everything takes; a test may change it."""
    torch = dict(TORCH)
    monkeypatch.setattr(probe, "probe", lambda names: (dict.fromkeys(names, ""), torch))
    monkeypatch.setattr(diagnosis, "has_nvidia_driver", lambda: False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "ELECTRAIN_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    return torch


def problems(found: Facts) -> str:
    return "\n".join(f"{one['problem']} -> {one['remedy']}" for one in found["problems"])


def test_a_whole_installation(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The only test that imports every library, in a process of its own."""
    code, (found,), said = command(capsys, "doctor")
    assert (code, found["usable"]) == (0, True), problems(found)
    assert {line.split()[0] for line in said.splitlines()} == {"doctor:"}  # no word of the libraries themselves
    assert found["electrain"] == __version__
    assert found["torch"]["device"] == "cpu"
    assert "times as fast" in found["torch"]["precision_reason"]
    names = {one["name"]: one for one in found["packages"]}
    assert names["torch"]["installed"].startswith("2.")
    assert {one["state"] for one in found["packages"]} == {"ok"}


def test_doctor_says_at_once_what_it_does(
    healthy: Facts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def diagnosed(**_: object) -> Facts:
        said.append(capsys.readouterr().err)
        return {"usable": True}

    monkeypatch.setattr(diagnosis, "diagnose", diagnosed)
    assert command(capsys, "doctor")[0] == 0
    assert said[0].startswith("doctor: looks at this machine")


def test_libraries_that_are_broken_or_end_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so: wrong ELF class')")
    (tmp_path / "numpy.py").write_text("import os; os.abort()")
    (tmp_path / "noisy.py").write_text("print('noise'); import sys; print('noise', file=sys.stderr)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(progress, "SECONDS_BEFORE_FIRST_LINE", 0.0)
    faults, torch = probe.probe(["torch", "numpy", "noisy", "absent_module"])
    assert capsys.readouterr().err.startswith("doctor: 0 of 4 libraries, trying torch")
    assert faults["torch"] == "OSError: libtorch.so: wrong ELF class"
    assert "SIGABRT" in faults["numpy"]
    assert faults["noisy"] == ""
    assert faults["absent_module"].startswith("ModuleNotFoundError")
    assert torch == {}


def test_a_broken_torch_is_said_with_its_remedy(
    healthy: Facts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "probe", lambda names: ({"torch": "OSError: half installed"}, {}))
    code, (found,), _ = command(capsys, "doctor")
    assert (code, found["usable"]) == (2, False)
    assert "torch cannot be imported (OSError: half installed) -> pip install --force-reinstall" in problems(found)


def test_the_command_starts_without_any_library_of_models(tmp_path: Path) -> None:
    """As where torch is missing: no module that the command itself imports may need it."""
    hiding = "import sys; sys.modules |= dict.fromkeys(('torch', 'numpy', 'transformers', 'packaging'))\n"
    code = hiding + (
        "from electrain.cli.doctor import diagnosis; found = diagnosis.diagnose()\n"
        "assert not found['usable'] and 'packaging' in found['problems'][0]['problem'], found\n"
        "diagnosis.print_table(found)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert ended.returncode == 0, ended.stderr
    assert "cannot be used here yet" in ended.stdout


@pytest.mark.parametrize(
    ("requirement", "installed", "state"),
    [
        ("torch>=2.11", "2.13.0+cpu", "ok"),
        ("torch>=2.11", "2.11.0a0+git", "too old"),
        ("torch>=2.11", "2.9", "too old"),
        ("torch>=2.11,<3", "3.1", "too new"),
        ("torch>=2.11", "2.14.0.dev20260101", "ok"),
        ("torch", "strange", "ok"),
        ("torch>=2.11", "", "missing"),
    ],
)
def test_versions_beside_their_ranges(
    requirement: str, installed: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if not installed:
            raise packages.importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(packages.importlib.metadata, "version", version)
    assert package_of(Requirement(requirement)).state == state


def test_too_old_and_missing_libraries_are_named(healthy: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"": [Requirement("numpy>=999"), Requirement("not-there>=1")], "serve": [Requirement("not-there-either")]}
    monkeypatch.setattr(packages, "requirements", lambda: wanted)
    found = diagnose()
    assert not found["usable"]
    assert re.search(r'numpy is too old \(\S+; accepted: >=999\) -> pip install "numpy>=999"', problems(found))
    assert 'not-there is missing -> pip install "not-there>=1"' in problems(found)
    serve = next(one for one in found["extras"] if one["name"] == "serve")
    assert serve["missing"] == ["not-there-either"]
    assert "export" in [one["name"] for one in found["extras"]]


def test_requirements_are_those_of_pyproject(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(PURPOSES) == set(project["optional-dependencies"]) - {"dev"}

    def unknown(name: str) -> None:
        raise packages.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.importlib.metadata, "requires", unknown)
    from_checkout = packages.requirements()
    assert {str(one) for one in from_checkout[""]} == {str(Requirement(line)) for line in project["dependencies"]}
    lines = [*project["dependencies"]]
    for extra in project["optional-dependencies"]:
        lines += [f'{line}; extra == "{extra}"' for line in project["optional-dependencies"][extra]]
    monkeypatch.setattr(packages.importlib.metadata, "requires", lambda name: lines)
    installed = packages.requirements()
    for name in ("", *PURPOSES):
        assert [one.name for one in installed[name]] == [one.name for one in from_checkout[name]]


def test_nothing_private_is_told(
    healthy: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home" / "lovelace"
    home.mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setattr(getpass, "getuser", lambda: "lovelace")
    monkeypatch.setattr(socket, "gethostname", lambda: "analytical-engine")
    monkeypatch.setattr(platform, "processor", lambda: "none")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.analytical-engine.example")
    monkeypatch.setenv("https_proxy", "http://lovelace:secret@proxy.example")
    monkeypatch.chdir(home)
    healthy["fault"] = f"OSError: {home}/venv/libtorch.so of /data/lovelace/x on analytical-engine"
    found = diagnose()
    diagnosis.print_table(found)
    told = json.dumps(found) + capsys.readouterr().out
    for private in ("lovelace", "analytical-engine", "secret", "mirror", str(tmp_path)):
        assert private not in told
    assert "~/venv/libtorch.so of /data/.../x on ..." in problems(found)
    assert found["hub"]["has_proxy"] is True
    assert without_private_names({"a": ["rooted", 1, None, True]}) == {"a": ["rooted", 1, None, True]}


def test_a_gpu_that_torch_does_not_see(healthy: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "has_nvidia_driver", lambda: True)
    assert "this torch is built for the CPU only" in problems(diagnose())
    healthy["cuda"] = "13.0"
    assert "torch sees no GPU -> update NVIDIA's driver" in problems(diagnose())
    healthy["gpus"] = ["NVIDIA H100"]
    assert "NVIDIA" not in problems(diagnose())


def test_a_wrong_variable_is_said(healthy: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRAIN_DEVICE", "gpu")
    found = probe.torch_facts()
    assert "ELECTRAIN_DEVICE=gpu: set it to cpu" in str(found["fault"])
    healthy["fault"] = found["fault"]
    assert not diagnose()["usable"]


def test_little_memory_disk_and_rights(healthy: Facts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    healthy["threads"] = 64
    monkeypatch.setattr(limits, "core_quota", lambda: 1.5)
    monkeypatch.setattr(limits, "allowed_cores", lambda: 64)
    monkeypatch.setattr(machine, "container_memory_bytes", lambda: 10**9)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 10**8))
    found = diagnose()
    told = problems(found)
    assert "64 threads, and this process may use 2 cores" in told
    assert "OMP_NUM_THREADS=2" in told
    assert "only 1.0 GB of memory" in told
    assert "the disk of the working folder has only 0.5 GB left" in told
    assert found["usable"], "these only make it slow or stop it later"
    monkeypatch.setattr(machine, "_is_writable", lambda path: False)
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: (_ for _ in ()).throw(FileNotFoundError(2, "none")))
    told = problems(diagnose())
    for name, remedy in (
        ("working folder", "another folder"),
        ("cache of the hub", "HF_HOME"),
        ("temporary", "TMPDIR"),
    ):
        assert re.search(rf"the {name}.* cannot be written -> .*{remedy}", told)


def test_encodings_other_than_utf8(healthy: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.locale, "getpreferredencoding", lambda _: "cp1252")
    assert "read as cp1252, not as UTF-8 -> set PYTHONUTF8=1" in problems(diagnose())
    monkeypatch.setattr(machine.locale, "getpreferredencoding", lambda _: "UTF8")
    assert "UTF-8" not in problems(diagnose())


def test_the_network_is_used_only_when_asked(healthy: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(request: urllib.request.Request, timeout: float) -> None:
        asked.append(request.full_url)
        raise urllib.error.URLError(ConnectionRefusedError(111, "refused by host at home"))

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert diagnose()["hub"]["is_reachable"] is None
    assert asked == []
    found = diagnose(online=True)
    assert asked == ["https://huggingface.co"]
    assert found["hub"]["is_reachable"] is False
    assert "the hub cannot be reached (ConnectionRefusedError)" in problems(found)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert diagnose(online=True)["hub"]["is_offline"] is True
    assert len(asked) == 1


CPUINFO = "processor : 0\nmodel name : A Chip\nflags : fpu avx2 fma amx_bf16 avx512f\n\nprocessor : 1\nflags : fpu\n"
ARM = "processor : 0\nFeatures : fp asimd asimddp bf16 sve\n"
SYSCTL = b"machdep.cpu.brand_string: Apple M9\nhw.optional.arm.FEAT_BF16: 1\nhw.optional.arm.FEAT_SME: 0\n"


def test_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PROCESSOR", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    found = machine.processor_facts()
    assert (found["name"], found["instructions"]) == ("A Chip", ["avx2", "fma", "avx512f", "amx_bf16"])
    (tmp_path / "cpuinfo").write_text(ARM)
    assert machine.processor_facts()["instructions"] == ["asimd", "asimddp", "bf16", "sve"]
    (tmp_path / "cpuinfo").unlink()
    monkeypatch.setattr(platform, "processor", lambda: "Intel64 Family 6, GenuineIntel")  # as on Windows
    assert machine.processor_facts()["name"] == "Intel64 Family 6, GenuineIntel"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=SYSCTL))
    found = machine.processor_facts()
    assert (found["name"], found["instructions"]) == ("Apple M9", ["bf16"])


def test_a_table_for_a_person(
    healthy: Facts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(diagnosis, "has_nvidia_driver", lambda: True)
    from electrain.cli.doctoring import doctor

    doctor()
    shown = capsys.readouterr().out
    for words in ("torch sees no GPU", "extra serve", "GB free", "note: NVIDIA's driver", "can be used here"):
        assert words in shown
    assert os.linesep + "{" not in shown
