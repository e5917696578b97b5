"""What a pretraining run leaves to be used: each network as a Hugging Face folder with its tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers.utils import logging

from electrain.data.tokenizer.tokenizer import save_tokenizer
from electrain.foundation.output_folder import replaced_directory
from electrain.models.unigram_generator import UnigramGenerator
from electrain.pretrain.build import PretrainObjective
from electrain.pretrain.objectives.masked_language_modelling import MaskedLanguageModelling


def export_models(objective: PretrainObjective, tokenizer: Any, output: Path) -> None:
    """Writes `model/`, a folder for each further head, and `generator/` where there is one.

    Each is a Hugging Face folder with its tokenizer.
    """
    logging.disable_progress_bar()
    networks: dict[str, Callable[[], Any]]
    if isinstance(objective, MaskedLanguageModelling):
        networks = {"model": objective.model.export}
    else:
        networks = objective.discriminator.exports()
        if not isinstance(objective.generator, UnigramGenerator):
            networks["generator"] = objective.generator.export
    for name, network in networks.items():
        with replaced_directory(output / name) as temporary:
            exported = network()
            exported.save_pretrained(temporary)
            has_types = exported.config.model_type in ("electra", "bert")
            save_tokenizer(tokenizer, temporary, with_token_types=has_types)
