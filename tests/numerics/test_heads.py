"""The further heads: losses by hand and against Hugging Face, and exported networks that answer alike."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from electrain.pretraining.objectives.head_losses import copied_word_losses, electric_losses
from electrain.pretraining.objectives.rows import Rows
from tiny_pretraining import batches_of, objective_of, tiny_configuration

BACKBONES = ["electra", "modernbert", "bert"]


def sections(backbone: str, **more: Any) -> dict[str, Any]:
    encoder = {"backbone": backbone} | ({"embedding_size": 0} if backbone == "bert" else {})
    return {"encoder": encoder, **more}


def inputs_of(rows: Rows, ids: torch.Tensor, backbone: str) -> dict[str, Any]:
    types = {} if backbone == "modernbert" else {"token_type_ids": rows.token_type_ids}
    return {"input_ids": ids, "attention_mask": rows.attention_mask, **types}


@pytest.mark.parametrize("sharing", ["shared", "gradient-disentangled", "separate"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_exported_heads_answer_as_the_trained_ones(tiny_shards: Path, backbone: str, sharing: str) -> None:
    heads = ["detection", "correction", "electric"]
    config = tiny_configuration(
        **sections(backbone, discriminator={"heads": heads}, generator={"embedding_sharing": sharing})
    )
    objective = objective_of(config, tiny_shards).eval()
    judge, rows = objective.discriminator, batches_of(config, tiny_shards)(0)[0].rows
    ids = rows.token_ids
    exports = {name: make().eval() for name, make in judge.exports().items()}
    detector = "encoder" if backbone == "electra" else "detection"
    assert list(exports) == list(dict.fromkeys(["encoder", detector, "correction", "electric"]))
    with torch.no_grad():
        given = inputs_of(rows, ids, backbone)
        hidden = judge.hidden(ids, rows.token_type_ids, rows.attention_mask)
        expected = {
            detector: judge.detect(hidden),
            "correction": judge.correction(hidden, judge.word_embeddings.weight),
            "electric": judge.energy(hidden),
        }
        torch.testing.assert_close(exports["encoder"].base_model(**given)[0], hidden)
        for name in expected:
            logits = exports[name](**given).logits
            if name != "correction" and backbone != "electra":
                logits = logits[..., 1] - logits[..., 0]
            torch.testing.assert_close(logits, expected[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_correction_equals_hugging_faces_loss(tiny_shards: Path, backbone: str) -> None:
    config = tiny_configuration(**sections(backbone, discriminator={"heads": ["correction"]}))
    objective = objective_of(config, tiny_shards).eval()
    batch = batches_of(config, tiny_shards)(0)[0]
    rows = batch.rows
    objective.discriminator.heads = ("detection", "correction")  # so that it shows what the discriminator saw
    outcome = objective(rows)
    network = objective.discriminator.exports()["correction"]().eval()
    labels = torch.full_like(rows.token_ids, -100)
    labels.scatter_(1, rows.positions, rows.token_ids.gather(1, rows.positions))
    labels[:, 0] = -100
    seen = outcome.observations["corrupted_ids"]
    expected = network(**inputs_of(rows, seen, backbone), labels=labels).loss
    term = outcome.terms["correction"]
    assert float(term.total.detach() / batch.counts["correction"]) == pytest.approx(expected.item(), rel=1e-5)


def test_copied_words_by_hand() -> None:
    """p = D + (1 - D) p(word) where the token stands unchanged, (1 - D) p(word) elsewhere."""
    word_logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]))
    replaced = torch.tensor([math.log(1 / 3), math.log(1 / 3)])  # D, the chance of being original, is 3/4
    losses = copied_word_losses(word_logits, replaced, torch.tensor([1, 0]), torch.tensor([1, 1]))
    assert losses.tolist() == pytest.approx([-math.log(0.75 + 0.25 * 0.2), -math.log(0.25 * 0.2)])


def test_copying_gives_detection_no_gradient(tiny_shards: Path) -> None:
    config = tiny_configuration(discriminator={"heads": ["detection", "correction"], "correction_at": "all"})
    objective = objective_of(config, tiny_shards)
    loss = objective(batches_of(config, tiny_shards)(0)[0].rows).terms["correction"].total
    head = objective.discriminator.network.discriminator_predictions
    gradients = torch.autograd.grad(loss, list(head.parameters()), allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in gradients)
    body = torch.autograd.grad(loss, list(objective.discriminator.body.encoder.parameters()))
    assert all(float(gradient.abs().sum()) > 0 for gradient in body[:4])


def test_electric_by_hand() -> None:
    """With p = exp(-E) the chance of noise is q / (p + q)."""
    energies, log_noise = torch.tensor([1.0, 1.0]), torch.log(torch.tensor([0.3, 0.3]))
    losses = electric_losses(energies, log_noise, torch.tensor([True, False]))
    noise = 0.3 / (0.3 + math.exp(-1.0))
    assert losses.tolist() == pytest.approx([-math.log(noise), -math.log(1 - noise)])


def test_the_best_energies_are_the_texts_chances() -> None:
    """Noise-contrastive estimation is at its minimum where exp(-E) is the distribution of the text itself."""
    text, noise = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    energies = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([energies], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        real = electric_losses(energies, noise.log(), torch.zeros(3, dtype=torch.bool))
        drawn = electric_losses(energies, noise.log(), torch.ones(3, dtype=torch.bool))
        total = (text * real + noise * drawn).sum()
        total.backward()
        return total

    optimizer.step(loss)
    torch.testing.assert_close(torch.exp(-energies.detach()), text, rtol=1e-3, atol=1e-4)


def test_electric_scores_as_many_words_as_it_keeps(tiny_shards: Path) -> None:
    config = tiny_configuration(
        discriminator={"heads": ["detection", "electric"]},
        training={"batch_rows": 64},
        corruption={"masked_fraction": 0.4},
    )
    rows = batches_of(config, tiny_shards)(0)[0].rows
    outcome = objective_of(config, tiny_shards)(rows)
    kept = rows.is_kept
    assert 0.4 < float(kept.sum() / rows.is_selected.sum()) < 0.6
    seen = outcome.observations["corrupted_ids"].gather(1, rows.positions)
    originals = rows.token_ids.gather(1, rows.positions)
    assert torch.equal(seen[kept], originals[kept])
    assert float((seen == originals)[~kept & rows.is_selected].float().mean()) < 0.2


def test_missing_words_are_masks_and_are_not_asked_about(tiny_shards: Path) -> None:
    config = tiny_configuration(
        discriminator={"heads": ["detection", "correction"], "correction_at": "missing"},
        corruption={"missing_fraction": 0.5},
    )
    objective = objective_of(config, tiny_shards)
    batch = batches_of(config, tiny_shards)(0)[0]
    outcome = objective(batch.rows)
    positions, is_missing = batch.rows.positions, batch.rows.is_missing
    seen = outcome.observations["corrupted_ids"].gather(1, positions)
    assert bool((seen[is_missing] == objective.proposals.special_ids.mask).all())
    shown = batch.rows.is_selected & ~is_missing
    assert (
        float((seen[shown] == objective.proposals.special_ids.mask).float().mean()) < 0.3
    )  # the generator may draw [MASK] itself
    assert batch.counts["discriminator"] == batch.rows.token_ids.numel() - int(is_missing.sum())
    assert batch.counts["correction"] == int(is_missing.sum()) > 5


def test_detection_at_selected_positions_only(tiny_shards: Path) -> None:
    config = tiny_configuration(discriminator={"detection_at": "selected"})
    objective = objective_of(config, tiny_shards)
    rows = batches_of(config, tiny_shards)(0)[0].rows
    outcome = objective(rows)
    logits, truth = (
        outcome.observations[name].gather(1, rows.positions) for name in ("replaced_logits", "is_replaced")
    )
    chosen = rows.is_selected
    expected = functional.binary_cross_entropy_with_logits(logits[chosen], truth[chosen].float(), reduction="sum")
    torch.testing.assert_close(outcome.terms["discriminator"].total.detach(), expected)
