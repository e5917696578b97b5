"""A generator that was trained before: any masked or causal language model of Hugging Face, never updated here."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from electrain.errors import CheckpointError
from electrain.models.generators import places_before, take_positions, word_logits
from electrain.models.starting_weights import configuration_of, load_network

# The prediction head of these can be run at the selected positions alone; of others the whole network is run.
KNOWN_HEADS = ("electra", "modernbert", "bert", "gpt2")


class FrozenGenerator(nn.Module):
    """A pretrained language model as a generator; without gradient, dropout or updates.

    Attributes:
        reads_masked_ids: True for a masked language model, which sees the row with [MASK] in it; False for a causal
            one, which sees the words before each position.
    """

    def __init__(self, source: str, vocabulary_size: int, sequence_length: int) -> None:
        """Args: source: folder or hub id.

        Raises: CheckpointError: nothing there, no language model, another vocabulary, or too few positions.
        """
        super().__init__()
        configuration = configuration_of(source)
        self.reads_masked_ids = is_masked_language_model(configuration)
        if not configuration.vocab_size >= vocabulary_size:
            raise CheckpointError(
                f"{source}: knows {configuration.vocab_size} words, the shards have {vocabulary_size}; "
                "give a generator that was trained with the shards' tokenizer"
            )
        positions = getattr(configuration, "max_position_embeddings", sequence_length)
        if positions < sequence_length:
            raise CheckpointError(f"{source}: takes rows of at most {positions} tokens; lower data.sequence_length")
        kind = AutoModelForMaskedLM if self.reads_masked_ids else AutoModelForCausalLM
        self.network: Any = load_network(kind, source)
        self.vocabulary_size = vocabulary_size
        self.requires_grad_(False)
        accepted = inspect.signature(self.network.base_model.forward).parameters
        self.has_token_types = "token_type_ids" in accepted and getattr(configuration, "type_vocab_size", 0) > 1
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenGenerator":
        """Stays in evaluation mode, whatever the objective around it does."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def propose(
        self,
        token_ids: Tensor,
        token_type_ids: Tensor | None,
        attention_mask: Tensor | None,
        positions: Tensor,
        depths: tuple[int, ...] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """As `MaskedGenerator.propose`, at the last depth."""
        del depths
        given: dict[str, Any] = {"input_ids": token_ids}
        if attention_mask is not None:
            given["attention_mask"] = attention_mask.to(torch.int64)
        if self.has_token_types:
            given["token_type_ids"] = token_type_ids
        places = positions if self.reads_masked_ids else places_before(positions)
        if self.network.config.model_type in KNOWN_HEADS:
            hidden = take_positions(self.network.base_model(**given)[0], places)
            logits = word_logits(self.network, hidden)
        else:
            output = self.network(**given, output_hidden_states=True)
            hidden, logits = (take_positions(x, places) for x in (output.hidden_states[-1], output.logits))
        return hidden, [logits[..., : self.vocabulary_size]]

    def forward(
        self, token_ids: Tensor, token_type_ids: Tensor | None, attention_mask: Tensor | None, positions: Tensor
    ) -> Tensor:
        """(batch, selected, vocabulary) float: logits of the word at each selected position."""
        return self.propose(token_ids, token_type_ids, attention_mask, positions)[1][0]

    def export(self) -> Any:
        """The network as Hugging Face saves and loads it."""
        return self.network


def is_masked_language_model(configuration: Any) -> bool:
    """True for a network that sees words on both sides of a gap; False for one that sees only those before.

    Raises: CheckpointError: neither.
    """
    names = configuration.architectures or [""]
    if names[0].endswith("ForMaskedLM"):
        return True
    if names[0].endswith(("ForCausalLM", "LMHeadModel")):
        sees_both_sides = configuration.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        if sees_both_sides and not getattr(configuration, "is_decoder", False):
            raise CheckpointError(
                f"{configuration.name_or_path}: is a {names[0]} whose attention sees both sides (is_decoder is not "
                "set), so it would see the words it is to propose; give a GPT-2, or a masked language model"
            )
        return False
    if names == [""] and configuration.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return True
    raise CheckpointError(
        f"{configuration.name_or_path}: is a {names[0] or configuration.model_type}, no masked or causal language "
        "model; give one, such as the generator/ of a run"
    )
