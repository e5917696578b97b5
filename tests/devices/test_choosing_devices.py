"""Which device a machine's runs take, and how a Mac's GPU is tried first."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pretend_device
import pytest
import torch
from pretend_device import DEVICE

from electrain.foundation.errors import ConfigurationError
from electrain.training import runtime
from electrain.training.runtime import apple_gpu_works, device_of, sample_gradients


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that says that it has Apple's GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    apple_gpu_works.cache_clear()
    yield
    apple_gpu_works.cache_clear()


def test_the_gradients_that_are_compared_are_the_same_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sample_gradients(torch.device("cpu"))
    assert expected.shape == (3 * 16 * 16,)
    assert torch.isfinite(expected).all()
    assert (expected.abs() > 1e-3).float().mean() > 0.5
    with pretend_device.in_use(monkeypatch), pretend_device.without_float64():
        torch.testing.assert_close(sample_gradients(DEVICE), expected)


@pytest.mark.usefixtures("mac")
@pytest.mark.parametrize("found", ["right", "wrong", "not a number", "operator missing"])
def test_a_mac_takes_its_gpu_only_if_that_computes_what_the_cpu_does(
    monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    """The GPU is played by the CPU, for no machine of ours has one."""
    true = sample_gradients

    def gradients(device: torch.device) -> torch.Tensor:
        right = true(torch.device("cpu"))
        if device.type == "mps" and found == "operator missing":
            raise NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device")
        factor = {"wrong": 1.01, "not a number": float("nan")}.get(found, 1.0)
        return right * factor if device.type == "mps" else right

    monkeypatch.setattr(runtime, "sample_gradients", gradients)
    assert device_of() == torch.device("mps" if found == "right" else "cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")  # its tensors cannot travel between processes
    assert device_of() == torch.device("cpu")


def test_the_cpu_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of() == torch.device("cuda", 0)
    monkeypatch.setenv("ELECTRAIN_DEVICE", "cpu")
    assert device_of() == torch.device("cpu")
    monkeypatch.setenv("ELECTRAIN_DEVICE", "gpu")
    with pytest.raises(ConfigurationError, match="ELECTRAIN_DEVICE=gpu: set it to cpu, or unset it"):
        device_of()


@pytest.mark.parametrize(
    ("own", "rounds"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)
def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(own: dict[str, str], rounds: str) -> None:
    """OpenMP reads the variables when torch loads it, so that the package must set its own before."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    asked = "import electrain, os, sys; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    found = subprocess.run([sys.executable, "-c", asked], env=environment | own, capture_output=True, text=True)
    assert found.stdout.split() == ["False", rounds]
