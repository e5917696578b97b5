"""The pretend device refuses what CUDA refuses, allows what it allows, and computes what the CPU computes."""

import pretend_device
import pytest
import torch
from pretend_device import DEVICE
from torch import nn


@pytest.fixture(autouse=True)
def pretending(monkeypatch: pytest.MonkeyPatch):
    with pretend_device.in_use(monkeypatch):
        yield


HERE = torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize(
    "mixing",
    [
        lambda there: there + HERE,
        lambda there: there @ HERE.T,
        lambda there: torch.cat([there, HERE]),
        lambda there: there.add_(HERE),
        lambda there: HERE.add_(there),
        lambda there: HERE[there > 1],
        lambda there: HERE * there.sum(),
        lambda there: torch.where(there > 1, there, HERE),
        lambda there: nn.functional.linear(there, HERE),
        lambda there: nn.functional.embedding(torch.tensor([0]), there),
    ],
)
def test_tensors_of_two_devices_do_not_mix(mixing) -> None:
    with pytest.raises(RuntimeError, match="at least two devices, pretend:0 and cpu"):
        mixing(HERE.to(DEVICE))


def test_what_cuda_allows() -> None:
    there = HERE.to(DEVICE)
    assert (there * torch.tensor(2.0)).device == DEVICE
    assert there[HERE > 1].tolist() == [2, 3, 4, 5]
    assert there[torch.tensor([1])].device == DEVICE
    assert torch.zeros(2, 3).copy_(there).tolist() == HERE.tolist()
    assert float(there.sum()) == 15
    assert f"{there.max():.1f}" == "5.0"
    there[:, [0, 2]] = 7.0
    assert there.cpu().numpy().tolist() == [[7, 1, 7], [7, 4, 7]]


def test_numpy_does_not_read_it() -> None:
    with pytest.raises((RuntimeError, TypeError)):
        HERE.to(DEVICE).numpy()


@pytest.mark.parametrize(
    "made",
    [
        lambda: torch.zeros(2, device=DEVICE),
        lambda: torch.tensor([1, 2], device=DEVICE),
        lambda: torch.arange(2, device=DEVICE),
        lambda: torch.zeros_like(HERE.to(DEVICE)),
        lambda: HERE.to("pretend"),
        lambda: torch.nonzero(HERE.to(DEVICE)),
    ],
)
def test_tensors_made_there_lie_there(made) -> None:
    assert made().device == DEVICE


@pytest.mark.parametrize("kind", ["linear", "lstm", "attention"])
def test_a_training_step_is_that_of_the_cpu(kind: str) -> None:
    """The same weights after one fused AdamW step, for parameters that keep their identity and their ties."""
    results = []
    for device in ("cpu", DEVICE):
        torch.manual_seed(3)
        module = {
            "linear": lambda: nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 8)),
            "lstm": lambda: nn.LSTM(8, 8, num_layers=2),
            "attention": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0),
        }[kind]()
        if kind == "linear":
            module[3].weight = module[0].weight
        before = list(module.parameters())
        module.to(device)
        assert all(one is other for one, other in zip(before, module.parameters(), strict=True))
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, eps=1e-2, fused=True)
        output = module(torch.randn(4, 3, 8).to(device))
        (output[0] if kind == "lstm" else output).pow(3).sum().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        results.append([parameter.detach().cpu() for parameter in module.parameters()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
