"""Compilation by regions: equal layers once, the same losses and gradients, and the same names of parameters."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from regenerate import OBJECTIVES

from electrain.models.backbones import choose_attention
from electrain.training import compilation
from electrain.training.arithmetic import Arithmetic
from electrain.training.compilation import compile_or_say_why_not, keep_compiled_code
from electrain.training.loop import TrainingRun, forward_and_backward, run_micro_batch
from electrain.training.runtime import Runtime
from tiny_pretraining import batches_of, objective_of, tiny_configuration

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Traces and splits the graphs as always, but generates no code."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    monkeypatch.setenv(compilation.CACHE_VARIABLE, str(tmp_path / "code"))


def run_of(shards: Path, precision: str = "float32", **sections: dict[str, Any]) -> TrainingRun[Any]:
    config = tiny_configuration(**sections)
    torch.manual_seed(0)
    objective = objective_of(config, shards, spread=0.05)
    choose_attention(objective, torch.device("cpu"), config.data.sequence_length)
    runtime = Runtime(torch.device("cpu"), 0, 1, Arithmetic(precision))
    return TrainingRun(objective, [], batches_of(config, shards), config.training, runtime)


def losses_and_gradients(run: TrainingRun[Any]) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    batch = run.batches(run.state.step)[0]
    run.objective.begin_step(run.state.step)
    counts = dict.fromkeys(batch.counts, torch.ones(()))
    outcome = run_micro_batch(run, forward_and_backward(run, run.objective), batch, counts, 0)
    gradients = {name: x.grad.clone() for name, x in run.objective.named_parameters() if x.grad is not None}
    run.objective.zero_grad()
    return {name: float(term.total) for name, term in outcome.terms.items()}, gradients


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "padded rows": {"parity": {"reference_packing": True}},
    "modernbert": {"encoder": {"backbone": "modernbert"}},
    "bert": {"encoder": {"backbone": "bert"}},
    "lstm": {"encoder": {"backbone": "lstm"}},
    "causal generator": {"generator": {"kind": "causal"}},
    "unigram generator": {"generator": {"kind": "unigram"}},
    "policy gradient": {"generator": {"training": "policy-gradient"}},
    "gumbel": {"generator": {"training": "gumbel"}},
    "mixture": {"generator": {"training": "mixture", "layers": 3}},
    "further heads": {"discriminator": {"heads": ["detection", "correction"]}},
    "electric": {"discriminator": {"heads": ["electric"]}},
    "checkpointed layers": {"training": {"gradient_checkpointing": True}},
    "masked language modelling": {"training": {"objective": "masked-language-modelling"}},
    "sampled softmax": OBJECTIVES["sampled_softmax"],
    "sampled softmax, masked language modelling": OBJECTIVES["sampled_softmax_masked_language_modelling"],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_regions_compute_what_plain_code_does(tiny_shards: Path, name: str) -> None:
    run = run_of(tiny_shards, **VARIANTS[name])
    names, plain = list(run.objective.state_dict()), losses_and_gradients(run)
    assert compile_or_say_why_not(run)
    assert all(parameter.grad is None for parameter in run.objective.parameters())
    compiled = losses_and_gradients(run)
    assert compiled[0] == pytest.approx(plain[0], rel=1e-5)
    assert compiled[1].keys() == plain[1].keys()
    for key, gradient in plain[1].items():
        torch.testing.assert_close(compiled[1][key], gradient, rtol=1e-3, atol=1e-5)
    assert list(run.objective.state_dict()) == names
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_equal_layers_are_compiled_once(tiny_shards: Path, backbone: str) -> None:
    counted = []
    for layers in (2, 5):
        torch.compiler.reset()
        run = run_of(tiny_shards, "bfloat16", encoder={"backbone": backbone, "layers": layers})
        before = graphs()
        assert compile_or_say_why_not(run)
        counted.append(graphs() - before)
        assert counted[-1] == len(set(map(compilation._kind, run.objective.regions())))
        before = graphs()
        losses_and_gradients(run)
        assert graphs() == before  # later steps compile nothing
    # The layers of each network, and what follows them; ELECTRA's networks have equal embeddings, and ModernBERT's have
    # two kinds of them and a first layer without a norm.
    assert counted == ([4, 4] if backbone == "electra" else [6, 6])


def test_the_second_stage_is_compiled_where_it_begins(
    tiny_shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tiny_shards, generator={"kind": "frozen", "own_stage_steps": 2})
    assert compile_or_say_why_not(run)
    run.state.step = 1
    before = graphs()
    compilation.compile_for_stage(run)
    assert graphs() == before  # no stage begins here
    run.state.step = 2
    compilation.compile_for_stage(run)
    assert graphs() > before
    before = graphs()
    losses_and_gradients(run)
    assert graphs() == before
    capsys.readouterr()

    def broken(*_: Any) -> Any:
        raise RuntimeError("no space left")

    monkeypatch.setattr(compilation, "run_micro_batch", broken)
    compilation.compile_for_stage(run)  # is said, and ends no run
    assert "torch.compile does not work here (RuntimeError: no space left)" in capsys.readouterr().err
    assert not any(map(compilation._is_compiled, run.objective.regions()))


def test_compiled_code_is_kept_below_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compiled_code()
    assert os.environ[compilation.CACHE_VARIABLE] == str(tmp_path / "code")  # the user's own choice stays
    monkeypatch.delenv(compilation.CACHE_VARIABLE)
    keep_compiled_code()
    assert os.environ[compilation.CACHE_VARIABLE] == str(tmp_path / "electrain" / "inductor")
    monkeypatch.delenv(compilation.CACHE_VARIABLE)
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))  # can hold no folder, as a read-only home cannot
    keep_compiled_code()
    assert compilation.CACHE_VARIABLE not in os.environ
