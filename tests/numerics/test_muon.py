"""Muon against PyTorch's, which orthogonalises one matrix after another, and against the iteration by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from electrain.training import muon
from electrain.training.muon import Muon
from electrain.training.optimizer import optimizer_tensors, restore_optimizers, update_weights

SHAPES = ((8, 8), (24, 8), (8, 16), (8, 8), (4, 8), (8, 4))
RATE, DECAY = 3e-3, 0.1
FINITE = torch.tensor(True)


class Matrices(nn.Module):
    """Matrices of several shapes, lying and standing."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.all = nn.ParameterList(torch.randn(shape, generator=generator) * 0.02 for shape in SHAPES)


def give_gradients(model: Matrices, step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in model.all:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def stepped(model: Matrices, optimizer: Any, steps: int = 4) -> list[Tensor]:
    for step in range(steps):
        give_gradients(model, step)
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.all]


@pytest.fixture(params=["as on a CPU", "as on a GPU"])
def stacks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of stacking matrices and of refusing a step."""
    if request.param == "as on a GPU":
        monkeypatch.setattr(muon, "works_apart", lambda device: True)


@pytest.mark.usefixtures("stacks")
def test_in_bfloat16_it_equals_pytorchs() -> None:
    ours, theirs = Matrices(), Matrices()
    got = stepped(ours, Muon(ours.parameters(), RATE, DECAY, torch.bfloat16))
    reference = torch.optim.Muon(theirs.parameters(), RATE, DECAY, adjust_lr_fn="match_rms_adamw")
    for mine, expected in zip(got, stepped(theirs, reference), strict=True):
        # Sums of bfloat16 products may be taken in another order. A step has a size of about 0.2 x RATE.
        torch.testing.assert_close(mine, expected, rtol=0, atol=0.02 * RATE)


@pytest.mark.usefixtures("stacks")
def test_in_float32_it_equals_pytorchs_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = Matrices(), Matrices()
    got = stepped(ours, Muon(ours.parameters(), RATE, DECAY, torch.float32))
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.clone)  # PyTorch's rounds its input by this method
    reference = torch.optim.Muon(theirs.parameters(), RATE, DECAY, adjust_lr_fn="match_rms_adamw")
    for mine, expected in zip(got, stepped(theirs, reference), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-7)


def test_singular_values_become_nearly_equal() -> None:
    matrices = (
        torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    )
    values = torch.linalg.svdvals(muon.orthogonalised(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.25
    assert not muon.orthogonalised(torch.zeros(1, 4, 8)).any()


@pytest.mark.parametrize("smallest", [1.0, 1e-4, 1e-8, 0.0])
def test_iterating_on_the_product_equals_iterating_on_the_matrix(smallest: float) -> None:
    """In float64 the matrix itself is iterated on. Singular values fall to `smallest`, as those of gradients do."""
    source = torch.Generator().manual_seed(0)
    drawn = (torch.randn(2, rows, 16, generator=source, dtype=torch.float64) for rows in (16, 48))
    left, right = (torch.linalg.qr(one)[0] for one in drawn)
    values = torch.linspace(0, 1, 16, dtype=torch.float64)
    values = smallest**values  # 1 and zeros for `smallest` 0
    matrices = left * values @ right.mT
    expected = muon.orthogonalised(matrices)
    got = muon.orthogonalised(matrices.float()).double()
    assert torch.linalg.vector_norm(got - expected) < 1e-3 * torch.linalg.vector_norm(expected)


@pytest.mark.usefixtures("stacks")
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_refused_step_changes_nothing(value: float) -> None:
    """Neither weights nor momentum: afterwards everything is as if the step had never been."""
    ours, undisturbed = Matrices(), Matrices()
    optimizers = [Muon(model.parameters(), RATE, DECAY, torch.float32) for model in (ours, undisturbed)]
    for step in range(3):
        for model, optimizer in zip((ours, undisturbed), optimizers, strict=True):
            give_gradients(model, step)
            update_weights([optimizer], RATE, FINITE)
        ours.all[0].grad = torch.full(SHAPES[0], value)
        update_weights([optimizers[0]], RATE, ~FINITE)
    for one, other in zip(ours.all, undisturbed.all, strict=True):
        assert torch.equal(one, other)
    states = [
        optimizer_tensors([optimizer], model) for optimizer, model in zip(optimizers, (ours, undisturbed), strict=True)
    ]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.usefixtures("stacks")
def test_its_state_is_named_and_shaped_as_pytorchs_and_resumes_exactly() -> None:
    straight, first, second, theirs = Matrices(), Matrices(), Matrices(), Matrices()
    expected = stepped(straight, Muon(straight.parameters(), RATE, DECAY, torch.float32), 4)
    begun = Muon(first.parameters(), RATE, DECAY, torch.float32)
    stepped(first, begun, 2)
    saved = {key: value.clone() for key, value in optimizer_tensors([begun], first).items()}
    reference = torch.optim.Muon(theirs.parameters(), RATE)
    stepped(theirs, reference, 1)
    named = optimizer_tensors([reference], theirs)
    assert {key: value.shape for key, value in saved.items()} == {key: value.shape for key, value in named.items()}
    second.load_state_dict(first.state_dict())
    resumed = Muon(second.parameters(), RATE, DECAY, torch.float32)
    stepped(Matrices(), Muon(Matrices().parameters(), RATE, DECAY, torch.float32), 1)
    restore_optimizers([resumed], second, saved)
    for step in (2, 3):
        give_gradients(second, step)
        resumed.step()
    assert all(torch.equal(one, other) for one, other in zip(second.all, expected, strict=True))


def test_a_matrix_without_gradient_stays_and_keeps_its_momentum() -> None:
    model = Matrices()
    optimizer = Muon(model.parameters(), RATE, DECAY, torch.float32)
    stepped(model, optimizer, 2)
    weight, momentum = model.all[1].detach().clone(), optimizer.state[model.all[1]]["momentum_buffer"].clone()
    give_gradients(model, 2)
    model.all[1].grad = None
    optimizer.step()
    assert torch.equal(model.all[1], weight)
    assert torch.equal(optimizer.state[model.all[1]]["momentum_buffer"], momentum)
