"""The article's recurrent network, and the same as a Hugging Face encoder, so that it trains in the one loop."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput, TokenClassifierOutput

MODEL_TYPE = "electrain-lstm"


class ELECTRAClassifier(nn.Module):
    """Embedding, LSTM, linear layer back to the vocabulary: per-token logits.

    An LSTM reads from left to right: what it says of a token knows that token and those before it.
    Source: the founding article, section 5, with its names and its order of arguments.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, dropout: float) -> None:
        """Args: input_size: words of the vocabulary; dropout: between layers, so that one layer has none."""
        super().__init__()
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, num_layers, dropout=dropout if num_layers > 1 else 0.0)
        self.fc = nn.Linear(hidden_size, input_size)

    def forward(self, x: Tensor, *, batch_first: bool = False) -> Tensor:
        """(length, batch, input_size) float from (length, batch) int64; with `batch_first` the other way round."""
        hidden = self.read(self.embedding(x.T if batch_first else x))
        logits: Tensor = self.fc(hidden)
        return logits.transpose(0, 1) if batch_first else logits

    def read(self, embeddings: Tensor) -> Tensor:
        """(length, batch, hidden) float: the LSTM's states for (length, batch, hidden) embeddings."""
        hidden: Tensor = self.lstm(embeddings)[0]
        return hidden


class RecurrentConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes of a `RecurrentModel`, as Hugging Face saves them."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 256,
        num_hidden_layers: int = 2,
        dropout: float = 0.0,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers, self.dropout = num_hidden_layers, dropout
        self.max_position_embeddings = more.get("max_position_embeddings", 512)


class _Recurrent(PreTrainedModel):  # type: ignore[misc]
    config_class = RecurrentConfig
    base_model_prefix = "recurrent"

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation stays, which is the article's."""


class RecurrentModel(_Recurrent):
    """`ELECTRAClassifier` as an encoder: its last states, without the linear layer."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        sizes = (config.vocab_size, config.hidden_size, config.num_hidden_layers)
        self.network = ELECTRAClassifier(*sizes, config.dropout)
        # PyTorch draws embeddings fifty times wider, far too wide for a generator that shares them.
        nn.init.normal_(self.network.embedding.weight, std=0.02)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding layer."""
        return self.network.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the embedding layer."""
        self.network.embedding = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> BaseModelOutput:
        """States for (batch, length) ids or (batch, length, hidden) embeddings; padding at the end changes nothing."""
        del attention_mask
        embeddings = self.network.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        hidden = self.network.read(embeddings.transpose(0, 1)).transpose(0, 1)
        states = (embeddings, hidden) if output_hidden_states else None
        return BaseModelOutput(last_hidden_state=hidden, hidden_states=states)


class RecurrentForMaskedLM(_Recurrent):
    """The article's whole network: the linear layer says which word belongs at each position."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.recurrent = RecurrentModel(config)
        self.post_init()

    def forward(self, **given: Any) -> MaskedLMOutput:
        """Word logits for what `RecurrentModel` takes."""
        return MaskedLMOutput(logits=self.recurrent.network.fc(self.recurrent(**given).last_hidden_state))


class RecurrentForTokenClassification(_Recurrent):
    """A detection head above the states; the article has none."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.recurrent = RecurrentModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(self, **given: Any) -> TokenClassifierOutput:
        """Two logits, original and replaced, for each token."""
        hidden = self.recurrent(**given).last_hidden_state
        return TokenClassifierOutput(logits=self.classifier(self.dropout(hidden)))


def register() -> None:
    """Lets Hugging Face's auto classes read a folder of these, in a process that has imported electrain."""
    AutoConfig.register(MODEL_TYPE, RecurrentConfig, exist_ok=True)
    AutoModel.register(RecurrentConfig, RecurrentModel, exist_ok=True)
    AutoModelForMaskedLM.register(RecurrentConfig, RecurrentForMaskedLM, exist_ok=True)


register()
__all__ = ["ELECTRAClassifier", "RecurrentConfig", "RecurrentForMaskedLM", "RecurrentForTokenClassification"]
