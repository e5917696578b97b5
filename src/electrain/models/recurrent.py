"""The recurrent network of the founding article, alone and as an encoder of Hugging Face."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput, TokenClassifierOutput

MODEL_TYPE = "electrain-lstm"


class ELECTRAClassifier(nn.Module):
    """An embedding, an LSTM and a linear layer that gives each token logits over the vocabulary.

    The LSTM reads from left to right, so the logits of a token depend on that token and the tokens before it.
    Source: the founding article, section 5, with its names and its order of arguments.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, dropout: float) -> None:
        """Args: input_size: size of the vocabulary; dropout: between layers, so that a single layer has none."""
        super().__init__()
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, num_layers, dropout=dropout if num_layers > 1 else 0.0)
        self.fc = nn.Linear(hidden_size, input_size)

    def forward(self, x: Tensor, *, batch_first: bool = False) -> Tensor:
        """(length, batch, input_size) float from (length, batch) int64; with `batch_first`, the batch comes first."""
        hidden = self.read(self.embedding(x.T if batch_first else x))
        logits: Tensor = self.fc(hidden)
        return logits.transpose(0, 1) if batch_first else logits

    def read(self, embeddings: Tensor) -> Tensor:
        """(length, batch, hidden) float: the states of the LSTM for (length, batch, hidden) embeddings."""
        hidden: Tensor = self.lstm(embeddings)[0]
        return hidden


class RecurrentConfig(PretrainedConfig):  # type: ignore[misc]
    """The sizes of a `RecurrentModel` in Hugging Face's form."""

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
        """Keeps the initialisation of PyTorch, which the article uses."""


class RecurrentModel(_Recurrent):
    """`ELECTRAClassifier` as an encoder: it returns the states of the LSTM, without the linear layer."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.network = ELECTRAClassifier(
            config.vocab_size, config.hidden_size, config.num_hidden_layers, config.dropout
        )
        # PyTorch draws embeddings with deviation 1, far too wide for a generator that shares them.
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
        """The states for (batch, length) ids or (batch, length, hidden) embeddings."""
        del attention_mask  # padding stands at the end, which a network that reads from left to right has not seen yet
        embeddings = self.network.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        hidden = self.network.read(embeddings.transpose(0, 1)).transpose(0, 1)
        states = (embeddings, hidden) if output_hidden_states else None
        return BaseModelOutput(last_hidden_state=hidden, hidden_states=states)


class RecurrentForMaskedLM(_Recurrent):
    """The whole network of the article: the linear layer predicts the word at each position."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.recurrent = RecurrentModel(config)
        self.post_init()

    def forward(self, **given: Any) -> MaskedLMOutput:
        """Word logits; takes the arguments of `RecurrentModel`."""
        return MaskedLMOutput(logits=self.recurrent.network.fc(self.recurrent(**given).last_hidden_state))


class RecurrentForTokenClassification(_Recurrent):
    """`RecurrentModel` with a detection head, which the article does not have."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.recurrent = RecurrentModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(self, **given: Any) -> TokenClassifierOutput:
        """Two logits, original and replaced, for each token; takes the arguments of `RecurrentModel`."""
        hidden = self.recurrent(**given).last_hidden_state
        return TokenClassifierOutput(logits=self.classifier(self.dropout(hidden)))


# The auto classes of Hugging Face read a folder of these networks in any process that has imported electrain.
AutoConfig.register(MODEL_TYPE, RecurrentConfig, exist_ok=True)
AutoModel.register(RecurrentConfig, RecurrentModel, exist_ok=True)
AutoModelForMaskedLM.register(RecurrentConfig, RecurrentForMaskedLM, exist_ok=True)
