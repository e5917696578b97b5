"""A generator that was trained before: any masked or causal language model of Hugging Face."""

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from electrain.foundation.errors import CheckpointError
from electrain.models.backbones import backbone_of, encode, positions_of
from electrain.models.folders import configuration_of, one_line, weights_of
from electrain.models.generators import Reading, places_before, take_positions
from electrain.models.heads import language_model_kind, states_and_word_logits, word_logits


class FrozenGenerator(nn.Module):
    """A pretrained language model as a generator, which is never updated and has no dropout."""

    def __init__(self, network: PreTrainedModel, vocabulary_size: int) -> None:
        """Args: vocabulary_size: number of tokens; models on the hub may have more rows in their table."""
        super().__init__()
        self.network = network
        # The input of a masked language model is the row with [MASK]; that of a causal one is the original row.
        self.reads_masked_ids = language_model_kind(network.config) == "masked-language-model"
        self.vocabulary_size = vocabulary_size
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenGenerator":
        """Does nothing: the objective around it may switch to training mode, which would switch its dropout on."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def read(
        self,
        token_ids: Tensor,
        token_type_ids: Tensor | None,
        attention_mask: Tensor | None,
        depths: tuple[int, ...] = (),
        words: Tensor | None = None,
    ) -> Reading:
        """As `MaskedGenerator.read`, but after the last layer only, and for the whole vocabulary."""
        del depths, words
        if backbone_of(self.network.config):
            return Reading([encode(self.network.base_model, token_ids, token_type_ids, attention_mask)[0]])
        given = (token_ids, token_type_ids, attention_mask)
        hidden, logits = states_and_word_logits(self.network, *given, lambda x: x)
        return Reading([hidden], logits=logits)

    @torch.no_grad()
    def predict(self, reading: Reading, positions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As `MaskedGenerator.predict`."""
        places = positions if self.reads_masked_ids else places_before(positions)
        hidden = take_positions(reading.states[-1], places)
        whole = reading.logits
        logits = word_logits(self.network, hidden) if whole is None else take_positions(whole, places)
        return hidden, [logits[..., : self.vocabulary_size]]

    def export(self) -> PreTrainedModel:
        """The network to save."""
        return self.network


def load_frozen_generator(source: str, vocabulary_size: int, sequence_length: int) -> FrozenGenerator:
    """The generator of a folder or a hub id.

    Raises: CheckpointError: it cannot be read, is no language model, or has another vocabulary or too few positions.
    """
    configuration = configuration_of(source)
    kind = language_model_kind(configuration)
    if configuration.vocab_size < vocabulary_size:
        raise CheckpointError(
            f"{source}: knows {configuration.vocab_size} words, the shards have {vocabulary_size}; "
            "give a generator that was trained with the shards' tokenizer"
        )
    positions = positions_of(configuration)
    if positions is not None and positions < sequence_length:
        raise CheckpointError(f"{source}: takes rows of at most {positions} tokens; lower data.sequence_length")
    model_class = AutoModelForMaskedLM if kind == "masked-language-model" else AutoModelForCausalLM
    network = weights_of(source, model_class, "language model")
    if kind == "causal-language-model":
        require_causal(network)
    return FrozenGenerator(network, vocabulary_size)


@torch.no_grad()
def require_causal(network: PreTrainedModel) -> None:
    """Raises CheckpointError if the network's logits for a word depend on that word.

    A network can have the class of a causal language model and still attend to both sides, as XLNet does, or an ELECTRA
    without `is_decoder`. It would copy the words that it must predict, and no setting reveals this for all models. So
    the network runs on two rows that differ in the last token only: the logits before that token must not differ.
    """
    special = {value for name, value in network.config.to_dict().items() if name.endswith(("_token_id", "pad_index"))}
    ids = [number for number in range(network.config.vocab_size) if number not in special][:5]
    rows = torch.tensor([ids[:4], [*ids[:3], ids[4]]], device=network.device)
    ones = torch.ones_like(rows)
    with one_line(network.config.name_or_path, "it cannot be tried"):
        _, (one, other) = states_and_word_logits(network, rows, 0 * ones, ones, lambda x: x[:, :3])
    # A random network that looks ahead changes its logits by about a thousandth, and any other only by rounding.
    most = 1e-5 * float(one[one.isfinite()].abs().max()) if bool(one.isfinite().any()) else 0.0
    if not bool(((one == other) | ((one - other).abs() <= most)).all()):
        raise CheckpointError(
            f"{network.config.name_or_path}: is a {type(network).__name__} whose attention sees both sides, so it sees "
            "the words that it must predict; give a GPT-2, or a masked language model"
        )
