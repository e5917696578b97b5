"""Which tensors the two networks share, how large they are, and what export makes of it."""

from typing import Any

import pytest
import torch

from electrain.models.backbones import EncoderConfig, encoder_configuration, generator_encoder
from electrain.models.discriminator import Discriminator, DiscriminatorConfig
from electrain.models.embedding_sharing import build_generator, count_parameters
from electrain.models.heads import language_model
from electrain.pretraining.objectives.corruption import ProposalSettings
from electrain.pretraining.objectives.game import GameConfig
from electrain.pretraining.objectives.replaced_token_detection import ReplacedTokenDetection
from tiny_pretraining import SPECIAL_IDS

VOCABULARY = 90


def networks(backbone: Any, sharing: str, fraction: float = 0.5) -> tuple[Discriminator, Any]:
    encoder = EncoderConfig(2, 32, 64, 2, backbone, 16 if backbone == "electra" else 0)

    def configuration(size: EncoderConfig) -> Any:
        return encoder_configuration(
            size, vocabulary_size=VOCABULARY, sequence_length=24, dropout=0.1, special_ids=SPECIAL_IDS
        )

    torch.manual_seed(0)
    discriminator = Discriminator(configuration(encoder))
    return discriminator, build_generator(configuration(generator_encoder(encoder, fraction)), discriminator, sharing)


def storages(*modules: torch.nn.Module) -> set[int]:
    return {parameter.untyped_storage().data_ptr() for module in modules for parameter in module.parameters()}


def test_electra_shares_all_embeddings_and_the_output_layer() -> None:
    discriminator, generator = networks("electra", "shared")
    ours, theirs = discriminator.body.embeddings, generator.body.embeddings
    assert theirs is ours
    table = ours.word_embeddings.weight
    assert generator.network.generator_lm_head.weight is table
    shared = storages(discriminator) & storages(generator)
    assert shared == storages(ours)
    assert len(shared) == 5  # words, positions, types, and the LayerNorm's weight and bias
    with torch.no_grad():
        table[7] += 1.0
    assert torch.equal(generator.body.embeddings.word_embeddings.weight[7], table[7])


def test_modernbert_of_equal_width_shares_the_table_and_the_output_layer() -> None:
    discriminator, generator = networks("modernbert", "shared", fraction=1.0)
    table = discriminator.word_embeddings.weight
    assert generator.network.decoder.weight is table
    assert generator.network.get_input_embeddings().weight is table
    assert storages(discriminator) & storages(generator) == {table.untyped_storage().data_ptr()}


def test_modernbert_of_another_width_projects_the_table() -> None:
    discriminator, generator = networks("modernbert", "shared")
    assert generator.table().shape == (VOCABULARY, 16)
    assert not storages(discriminator) & storages(generator)
    before = generator.table()
    with torch.no_grad():
        discriminator.word_embeddings.weight[7] += 1.0
    changed = (generator.table() != before).any(1)
    assert changed.nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_separate_shares_nothing(backbone: str) -> None:
    discriminator, generator = networks(backbone, "separate")
    assert not storages(discriminator) & storages(generator)


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_shared_parameters_are_counted_once(backbone: str) -> None:
    sizes = {}
    for sharing in ("shared", "separate"):
        discriminator, generator = networks(backbone, sharing)
        sizes[sharing] = count_parameters(discriminator, generator)
        settings = (DiscriminatorConfig(), GameConfig(), ProposalSettings(SPECIAL_IDS))
        objective = ReplacedTokenDetection(discriminator, generator, *settings)
        assert sizes[sharing] == sum(parameter.numel() for parameter in objective.parameters())
    if backbone == "electra":  # words, positions, types, LayerNorm
        assert sizes["separate"] - sizes["shared"] == 16 * (VOCABULARY + 512 + 2 + 2)
    else:  # a table of its own instead of a projection
        assert sizes["separate"] - sizes["shared"] == 16 * VOCABULARY - 32 * 16


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_gradients_of_both_losses_reach_the_shared_table(backbone: str, sharing: str) -> None:
    discriminator, generator = networks(backbone, sharing)
    ids = torch.randint(5, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
    generator(ids, torch.zeros_like(ids), None, torch.tensor([[3], [4]])).logsumexp(-1).sum().backward()
    gradient = discriminator.word_embeddings.weight.grad
    assert (gradient is not None and bool(gradient.abs().sum() > 0)) == (sharing == "shared")


@pytest.mark.parametrize(
    ("size", "fraction", "expected"),
    [
        ((12, 256, 1024, 4, "electra", 128), 1 / 4, (12, 64, 256, 1, 128)),
        ((12, 768, 3072, 12, "electra", 768), 1 / 3, (12, 256, 1024, 4, 768)),
        ((24, 1024, 4096, 16, "electra", 1024), 1 / 4, (24, 256, 1024, 4, 1024)),
        ((4, 192, 384, 3, "modernbert", 0), 1 / 3, (4, 64, 128, 1, 0)),
        ((2, 32, 64, 2, "electra", 0), 1.0, (2, 32, 64, 2, 32)),
    ],
    ids=["small", "base", "large", "tiny", "whole"],
)
def test_generator_sizes(size: Any, fraction: float, expected: tuple[int, ...]) -> None:
    """Small, base and large as the paper has them (table 6): the same depth and embeddings, the rest a fraction."""
    made = generator_encoder(EncoderConfig(*size), fraction)
    assert (made.layers, made.hidden_size, made.feed_forward_size, made.heads, made.embedding_size) == expected


@pytest.mark.parametrize(
    ("backbone", "sharing", "fraction"),
    [
        ("modernbert", "shared", 0.5),
        ("modernbert", "shared", 1.0),
        ("modernbert", "separate", 0.5),
        ("electra", "shared", 0.5),
        ("electra", "separate", 0.5),
    ],
)
def test_export_gives_exactly_equal_logits(backbone: str, sharing: str, fraction: float) -> None:
    _, generator = networks(backbone, sharing, fraction)
    generator.eval()
    exported = generator.export().eval()
    ids = torch.randint(5, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(0))
    types = {"token_type_ids": torch.zeros_like(ids)} if backbone == "electra" else {}
    with torch.no_grad():
        logits = generator(ids, torch.zeros_like(ids), None, torch.arange(12).expand(3, -1))
        assert torch.equal(exported(ids, **types).logits, logits)


def test_projection_is_fitted_to_a_loaded_table() -> None:
    """Loading what was exported gives the same generator back, as near as least squares comes."""
    _, generator = networks("modernbert", "shared")
    exported = generator.export()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.normal_()
    generator.load(lambda network: network.load_state_dict(exported.state_dict()))
    torch.testing.assert_close(generator.table(), exported.get_input_embeddings().weight, rtol=1e-3, atol=1e-5)
    again = generator.export()
    for name, value in exported.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_language_model_has_as_many_parameters_as_hugging_faces() -> None:
    _, generator = networks("electra", "separate")
    assert count_parameters(generator) == language_model(generator.body.config).num_parameters()
