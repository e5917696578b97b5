"""Writes the networks of a pretraining run as Hugging Face folders, each with the tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from electrain.data.tokenizer.tokenizer import save_tokenizer
from electrain.foundation.card import carry_card
from electrain.foundation.output_folder import replaced_directory
from electrain.foundation.sums import write_sums
from electrain.models.backbones import backbone_of
from electrain.models.folders import quiet_transformers
from electrain.models.sentence_vectors import write_sentence_transformer_files
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretraining.build import PretrainObjective
from electrain.pretraining.objectives.masked_language_modelling import MaskedLanguageModelling
from electrain.pretraining.run_folder import HEAD_FOLDERS


def export_models(objective: PretrainObjective, tokenizer: Any, output: Path, sequence_length: int) -> None:
    """Writes `model/`, a folder for each head that `model/` does not hold, and `generator/` if there is one.

    `model/` is for fine-tuning: it loads into any Hugging Face class, of which only the head is new.

    Args:
        sequence_length: tokens of a training row. The saved tokenizers cut there, since later positions are untrained.
    """
    for name, network in _networks(objective).items():
        _export(network, tokenizer, output / name, sequence_length, is_encoder=name == "model")


def export_encoder(objective: PretrainObjective, tokenizer: Any, folder: Path, sequence_length: int) -> None:
    """Writes what `export_models` writes into `model/`, into another folder."""
    _export(_networks(objective)["model"], tokenizer, folder, sequence_length, is_encoder=True)


def _export(
    network: Callable[[], Any], tokenizer: Any, folder: Path, sequence_length: int, *, is_encoder: bool
) -> None:
    with quiet_transformers(), replaced_directory(folder) as temporary:
        carry_card(folder, temporary)
        exported = network()
        exported.save_pretrained(temporary)
        backbone = backbone_of(exported.config)
        has_types = backbone is not None and backbone.has_token_types
        save_tokenizer(tokenizer, temporary, with_token_types=has_types, model_max_length=sequence_length)
        if is_encoder:
            write_sentence_transformer_files(temporary, exported.config.hidden_size, sequence_length)
        write_sums(temporary)


def _networks(objective: PretrainObjective) -> dict[str, Callable[[], Any]]:
    """The function that makes the network of each folder."""
    if isinstance(objective, MaskedLanguageModelling):
        return {"model": objective.model.export}
    networks = {
        "model" if part == "encoder" else HEAD_FOLDERS[part]: network
        for part, network in objective.discriminator.exports().items()
    }
    if not isinstance(objective.generator, UnigramGenerator):
        networks["generator"] = objective.generator.export
    return networks
