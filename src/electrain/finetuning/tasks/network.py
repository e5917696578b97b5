"""What answers the rows of a task: a network of PyTorch, or one that was exported. Nothing here imports torch first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The inputs of a network by name, each (rows, length) int64: `input_ids`; `attention_mask`, 1 at real tokens, which is
# left out where no row is padded; `token_type_ids`, for networks that take them.
Arrays = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Writing:
    """How an encoder-decoder writes; see `GenerationConfig`."""

    beams: int
    length_penalty: float
    no_repeat_ngram_tokens: int
    longest_tokens: int  # the largest number of tokens to write, the end counted


@runtime_checkable
class Network(Protocol):
    """A network as the tasks ask it, however it is run."""

    def logits(self, inputs: Arrays) -> NDArray[np.float32]:
        """What its head says of the rows; of question answering (rows, length, 2) for start and end."""

    def write(self, inputs: Arrays, writing: Writing) -> Sequence[Sequence[int]]:
        """The tokens that it writes for each row, which may begin and end with special ones."""


# A network of PyTorch is wrapped where it is asked, so that training can hand over what it trains.
AskedModel: TypeAlias = "PreTrainedModel | Network"


class TorchNetwork:
    """A network of PyTorch, in evaluation mode, on its own device."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model = model

    def logits(self, inputs: Arrays) -> NDArray[np.float32]:
        """See `Network`."""
        import torch

        with torch.inference_mode():
            output = self.model(**self._tensors(inputs))
            is_span = getattr(output, "start_logits", None) is not None
            logits = torch.stack([output.start_logits, output.end_logits], -1) if is_span else output.logits
            found: NDArray[np.float32] = logits.float().cpu().numpy()
        return found

    def write(self, inputs: Arrays, writing: Writing) -> list[list[int]]:
        """See `Network`."""
        # Without a mask `generate` guesses one from the decoder's padding id, which means another token to the encoder.
        inputs = {"attention_mask": np.ones_like(inputs["input_ids"]), **inputs}
        positions = self.model.config.decoder.max_position_embeddings
        written = self.model.generate(
            **self._tensors(inputs),
            do_sample=False,
            num_beams=writing.beams,
            length_penalty=writing.length_penalty,
            no_repeat_ngram_size=writing.no_repeat_ngram_tokens,
            max_length=None,
            max_new_tokens=min(writing.longest_tokens, positions - 1),
            use_cache=True,
        )
        ids: list[list[int]] = written.tolist()
        return ids

    def _tensors(self, inputs: Arrays) -> dict[str, Any]:
        import torch

        return {name: torch.from_numpy(array).to(self.model.device) for name, array in inputs.items()}


def network_of(model: AskedModel) -> Network:
    """A model as the tasks ask it."""
    return model if isinstance(model, Network) else TorchNetwork(model)
