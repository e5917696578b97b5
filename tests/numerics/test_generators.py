"""Causal, unigram and frozen generators, and passages that are written."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ElectraConfig, ElectraForCausalLM, XLMConfig, XLMWithLMHeadModel, XLNetConfig, XLNetLMHeadModel

from electrain.data.shards.shards import open_shards
from electrain.data.tokenizer.tokenizer import load_tokenizer
from electrain.foundation.errors import CheckpointError
from electrain.models.frozen_generator import load_frozen_generator
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretraining.export import export_models
from electrain.pretraining.objectives.rows import Rows
from electrain.pretraining.objectives.writing import Sampling, nucleus, write_passages
from electrain.pretraining.plan import plan
from tiny_pretraining import batches_of, objective_of, tiny_configuration

SHARINGS = ["shared", "gradient-disentangled", "separate"]


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_causal_generator_is_gpt2(tiny_shards: Path, backbone: str, sharing: str) -> None:
    """Logits at the selected positions are those of the exported `GPT2LMHeadModel` one place before."""
    config = tiny_configuration(
        encoder={"backbone": backbone}, generator={"kind": "causal", "embedding_sharing": sharing}
    )
    objective = objective_of(config, tiny_shards).eval()
    rows = batches_of(config, tiny_shards)(0)[0].rows
    ids, positions = rows.token_ids, rows.positions
    network = objective.generator.export().eval()
    assert type(network).__name__ == "GPT2LMHeadModel"
    with torch.no_grad():
        ours = objective.generator(ids, None, None, positions)
        theirs = network(ids).logits
    before = (positions - 1).clamp(min=0)
    expected = theirs.gather(1, before.unsqueeze(-1).expand(-1, -1, theirs.shape[-1]))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_causal_generator_sees_only_what_comes_before(tiny_shards: Path) -> None:
    config = tiny_configuration(generator={"kind": "causal"})
    generator = objective_of(config, tiny_shards).eval().generator
    ids = batches_of(config, tiny_shards)(0)[0].rows.token_ids
    other = ids.clone()
    other[:, 10:] = (other[:, 10:] + 1) % 106
    positions = torch.arange(1, 15).expand(len(ids), -1)
    with torch.no_grad():
        one, two = generator(ids, None, None, positions), generator(other, None, None, positions)
    assert torch.equal(one[:, :10], two[:, :10])
    assert not torch.allclose(one[:, 10:], two[:, 10:])


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_written_passages_follow_the_network_word_by_word(tiny_shards: Path, backbone: str) -> None:
    """With kept keys and values the words are those that the whole row gives when it is read anew for each word."""
    config = tiny_configuration(encoder={"backbone": backbone}, generator={"kind": "causal"})
    generator = objective_of(config, tiny_shards, spread=0.4).eval().generator
    ids = batches_of(config, tiny_shards)(0)[0].rows.token_ids
    can_write = torch.zeros_like(ids, dtype=torch.bool)
    can_write[:, 6:20] = True
    can_write[2, :] = False
    can_write[3, 9] = False
    uniforms = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0))
    table = None if generator.table is None else generator.table()
    sampling = Sampling(temperature=0.8, top_p=0.9)
    written = write_passages(generator.network, ids, can_write, uniforms, sampling, table=table)
    assert torch.equal(written[~can_write], ids[~can_write])
    assert not torch.equal(written[can_write], ids[can_write])
    network = generator.export().eval()
    with torch.no_grad():
        logits = network(written).logits[:, :-1]
    chances = (nucleus(logits, 0.9, 0.8) / 0.8).softmax(-1).double()
    below = chances.cumsum(-1).gather(-1, written[:, 1:, None]).squeeze(-1)
    own = chances.gather(-1, written[:, 1:, None]).squeeze(-1)
    chosen = can_write[:, 1:]
    assert bool((uniforms[:, 1:][chosen] <= below[chosen] + 1e-4).all())
    assert bool((uniforms[:, 1:][chosen] >= (below - own)[chosen] - 1e-4).all())


def test_special_tokens_are_not_written(tiny_shards: Path) -> None:
    config = tiny_configuration(generator={"kind": "causal"})
    objective = objective_of(config, tiny_shards)
    shards = open_shards(tiny_shards)
    special = set(shards.special_ids.all)
    assert set(objective.proposals.special_ids.all) == special
    network = objective.eval().generator.network
    ids = torch.full((64, 24), shards.special_ids.cls)
    can_write = torch.arange(24).expand(64, -1) > 0
    uniforms = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0))
    table = None if objective.generator.table is None else objective.generator.table()
    freely, barred = (
        write_passages(network, ids, can_write, uniforms, Sampling(never=sorted(never)), table=table)
        for never in ((), special)
    )
    assert special & set(freely[can_write].tolist())
    assert not special & set(barred[can_write].tolist())


def test_nucleus_by_hand() -> None:
    logits = torch.log(torch.tensor([0.1, 0.5, 0.15, 0.25]))
    kept = torch.isfinite(nucleus(logits, 0.7))
    assert kept.tolist() == [False, True, False, True]
    assert torch.isfinite(nucleus(logits, 0.5)).tolist() == [False, True, False, False]
    assert torch.equal(nucleus(logits, 1.0), logits)


def test_a_generator_is_not_trained_on_what_it_wrote(tiny_shards: Path) -> None:
    config = tiny_configuration(
        generator={"kind": "causal"},
        corruption={"source": "generated", "missing_fraction": 1.0},
        discriminator={"heads": ["detection", "correction"], "correction_at": "missing"},
        training={"batch_rows": 32},
    )
    objective = objective_of(config, tiny_shards)
    batch = batches_of(config, tiny_shards)(0)[0]
    rows = objective.prepare(batch.rows, torch.device("cpu"))
    is_written = rows.is_written
    assert 0.2 < float(is_written.any(1).float().mean()) < 0.8
    assert bool((rows.token_ids == batch.rows.token_ids)[~is_written].all())
    changed = (rows.token_ids != batch.rows.token_ids)[is_written]
    assert float(changed.float().mean()) > 0.8
    outcome = objective(rows)
    on_written = (is_written.gather(1, rows.positions) & rows.is_selected).sum()
    assert on_written > 0
    assert batch.counts["generator"] == int(rows.is_selected.sum() - on_written)
    assert bool(outcome.observations["is_replaced"][is_written].all())
    assert outcome.terms.keys() == batch.counts.keys()


def test_unigram_draws_follow_the_counts() -> None:
    counts = np.array([50, 0, 30, 15, 4, 1], np.int64)
    draw = UnigramGenerator(counts, 1, 1.0, [0])
    uniforms = torch.rand(40_000, generator=torch.Generator().manual_seed(0))
    words = draw.draw(torch.zeros(40_000, dtype=torch.long) + 2, uniforms)
    seen = torch.bincount(words, minlength=6) / 40_000
    torch.testing.assert_close(seen, torch.tensor([0, 0, 30, 15, 4, 1]) / 50, rtol=0, atol=0.01)
    chances = draw.log_chance(torch.full((6,), 2), torch.arange(6)).exp()
    torch.testing.assert_close(chances, torch.tensor([0, 0, 30, 15, 4, 1]) / 50)


def test_clusters_keep_words_among_their_like() -> None:
    counts = np.array([0, 100, 90, 10, 9, 8, 7, 6, 5, 4], np.int64)
    clusters = UnigramGenerator(counts, 4, 1.0, [0])
    uniforms = torch.rand(2000, generator=torch.Generator().manual_seed(0))
    common = clusters.draw(torch.full((2000,), 1), uniforms).unique().tolist()
    rare = clusters.draw(torch.full((2000,), 8), uniforms).unique().tolist()
    assert not set(common) & set(rare)
    assert 1 in common
    assert 8 in rare
    for original in (1, 3, 8):
        chances = clusters.log_chance(torch.full((10,), original), torch.arange(10)).exp()
        assert float(chances.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_a_frozen_generator_is_the_network_it_was(tiny_shards: Path, tmp_path: Path, kind: str) -> None:
    """An exported generator, read again as a frozen one, proposes with the same logits and never changes."""
    config = tiny_configuration(generator={"kind": kind, "embedding_sharing": "separate"})
    objective = objective_of(config, tiny_shards).eval()
    export_models(objective, load_tokenizer(tiny_shards / "tokenizer"), tmp_path, 24)
    frozen = load_frozen_generator(str(tmp_path / "generator"), 106, 24)
    rows = batches_of(config, tiny_shards)(0)[0].rows
    around = (rows.token_type_ids, rows.attention_mask)
    ids = rows.masked_ids if kind == "masked" else rows.token_ids
    with torch.no_grad():
        (logits,) = frozen.predict(frozen.read(ids, *around), rows.positions)[1]
        torch.testing.assert_close(logits, objective.generator(ids, *around, rows.positions), rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not frozen.train().training
    with pytest.raises(CheckpointError, match="knows 106 words, the shards have 200"):
        load_frozen_generator(str(tmp_path / "generator"), 200, 24)
    with pytest.raises(CheckpointError, match="no masked or causal language model"):
        load_frozen_generator(str(tmp_path / "model"), 106, 24)
    frozen_config = tiny_configuration(generator={"kind": "frozen", "source": str(tmp_path / "generator")})
    planned = plan(frozen_config, vocabulary_size=106).flops.per_row
    assert planned < plan(config, vocabulary_size=106).flops.per_row


def test_a_causal_generator_must_not_see_both_sides(tmp_path: Path) -> None:
    sizes = {"vocab_size": 106, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    for is_decoder in (False, True):
        path = tmp_path / str(is_decoder)
        ElectraForCausalLM(ElectraConfig(**sizes, embedding_size=16, is_decoder=is_decoder)).save_pretrained(path)
    with pytest.raises(CheckpointError, match="attention sees both sides"):
        load_frozen_generator(str(tmp_path / "False"), 106, 24)
    assert not load_frozen_generator(str(tmp_path / "True"), 106, 24).reads_masked_ids
    xlnet = XLNetConfig(vocab_size=106, d_model=16, n_layer=1, n_head=2, d_inner=16)
    XLNetLMHeadModel(xlnet).save_pretrained(tmp_path / "xlnet")  # written as a causal model, and sees all words
    xlm = XLMConfig(vocab_size=106, emb_dim=16, n_layers=1, n_heads=2)  # its pad_index is among the first ids
    XLMWithLMHeadModel(xlm).save_pretrained(tmp_path / "xlm", safe_serialization=True)
    for name in ("xlnet", "xlm"):
        with pytest.raises(CheckpointError, match="attention sees both sides"):
            load_frozen_generator(str(tmp_path / name), 106, 24)


def test_two_stages(tiny_shards: Path) -> None:
    """Alone first; then frozen, and the discriminator starts from its weights where the shapes are the same."""
    config = tiny_configuration(generator={"kind": "frozen", "own_stage_steps": 4, "size_fraction": 1.0})
    objective = objective_of(config, tiny_shards)
    batches = batches_of(config, tiny_shards)
    objective.begin_step(3)
    first = objective(batches(3)[0].rows)
    assert set(first.terms) == set(batches(3)[0].counts) == {"generator"}
    objective.begin_step(4)
    second = objective(batches(4)[0].rows)
    assert set(second.terms) == set(batches(4)[0].counts) == {"discriminator"}
    ours, theirs = objective.discriminator.body.state_dict(), objective.generator.body.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert not any(parameter.requires_grad for parameter in objective.generator.parameters())


def test_temperature_falls_along_the_line(tiny_shards: Path) -> None:
    config = tiny_configuration(generator={"temperature": 2.0, "last_temperature": 0.5}, training={"steps": 11})
    batches = batches_of(config, tiny_shards)
    seen = [float(batches(step)[0].rows.temperature) for step in (0, 5, 10)]
    assert seen == pytest.approx([2.0, 1.25, 0.5])


def test_masked_fraction_falls_along_the_line(tiny_shards: Path) -> None:
    config = tiny_configuration(
        corruption={"masked_fraction": 0.4, "last_masked_fraction": 0.1}, training={"steps": 11, "batch_rows": 32}
    )
    batches = batches_of(config, tiny_shards)
    seen = [batches(step)[0].rows.is_selected for step in (0, 5, 10)]
    assert {chosen.shape for chosen in seen} == {(32, 10)}
    assert [int(chosen.sum()) / 32 for chosen in seen] == pytest.approx([10, 6, 2])


def gradient_of_table(objective: Any, name: str, rows: Rows) -> set[str]:
    """Which parameters of an embedding table a loss reaches."""
    named = [(key, p) for key, p in objective.named_parameters() if p.shape[:1] == (106,) and p.ndim == 2]
    loss = objective(rows).terms[name].total
    gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    return {key for (key, _), gradient in zip(named, gradients, strict=True) if gradient is not None and gradient.any()}


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_disentangled_tables_get_their_own_gradients(tiny_shards: Path, backbone: str, kind: str) -> None:
    config = tiny_configuration(
        encoder={"backbone": backbone}, generator={"kind": kind, "embedding_sharing": "gradient-disentangled"}
    )
    objective = objective_of(config, tiny_shards)
    rows = batches_of(config, tiny_shards)(0)[0].rows
    by_judge, by_generator = (gradient_of_table(objective, name, rows) for name in ("discriminator", "generator"))
    assert len(by_judge) == len(by_generator) == 1
    assert by_judge.pop().endswith("difference")
    assert by_generator.pop().startswith("generator")
    fresh = objective_of(config, tiny_shards, spread=0.0)
    table = fresh.discriminator.word_embeddings
    assert torch.equal(table.weight, table.shared[0].weight)


def test_sizes_by_numbers(tiny_shards: Path) -> None:
    numbers = {"layers": 3, "hidden_size": 20, "feed_forward_size": 28, "heads": 2}
    for kind in ("masked", "causal"):
        config = tiny_configuration(generator={"kind": kind, **numbers})
        network = objective_of(config, tiny_shards).generator.export().config
        seen = [network.num_hidden_layers, network.hidden_size, network.num_attention_heads]
        assert seen == [3, 20, 2]
    assert dataclasses.asdict(config.generator)["layers"] == 3
