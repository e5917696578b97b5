"""How the networks of a folder are asked, however they are run. Nothing here needs torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from electrain.data.labelled.columns import Columns
from electrain.finetuning.tasks.settings import FineTuned
from electrain.finetuning.tasks.task import BATCH_TOKENS
from electrain.inference.answers import Answer
from electrain.inference.asked import TASK_OF_VERB, Input
from electrain.inference.network import Detector, Filler, TextEncoder, Writer
from electrain.inference.predict.generator import predict_generate
from electrain.inference.predict.pretrained import predict_detect, predict_fill
from electrain.inference.predict.tasks import NO_COLUMNS, predict_embed, predict_examples, predict_task


class OpenNetworks(ABC):
    """The networks of a folder, each opened when it is first asked.

    Not for several threads at once: tokenizers hold state while they read.
    """

    def __init__(self, source: str, batch_tokens: int | None) -> None:
        self.source = source
        self.batch_tokens = batch_tokens or BATCH_TOKENS

    @property
    @abstractmethod
    def detector(self) -> Detector:
        """The network that tells original tokens from replaced ones."""

    @property
    @abstractmethod
    def writer(self) -> Writer:
        """The causal generator."""

    @property
    @abstractmethod
    def encoder(self) -> TextEncoder:
        """The network that turns texts into vectors."""

    @abstractmethod
    def filler(self, by: str | None) -> Filler:
        """The network that fills gaps, of this name or the first one there is."""

    @abstractmethod
    def fine_tuned(self, task: str) -> FineTuned:
        """The model that was fine-tuned for a task of `predict`, which makes batches of `batch_tokens`."""

    def ask(
        self,
        task: str,
        inputs: Iterable[Input],
        columns: Columns = NO_COLUMNS,
        options: Mapping[str, Any] | None = None,
    ) -> Iterator[Answer]:
        """The answer to each input, in order.

        Args:
            columns: of inputs that are JSON objects; see `predict_task`.
            options: of the task; see `electrain.inference.asked.OPTIONS`.
        Raises: CheckpointError: no network can do the task. DataError: an input lacks what it reads.
        """
        if task in TASK_OF_VERB:
            return predict_task(self.fine_tuned(task), inputs, columns)
        texts, more = (str(one.given) for one in inputs), dict(options or {})
        if task == "detect":
            return predict_detect(self.detector, texts, self.batch_tokens)
        if task == "fill":
            return predict_fill(self.filler(more.pop("by", None)), texts, batch_tokens=self.batch_tokens, **more)
        if task == "embed":
            return predict_embed(self.encoder, texts, self.batch_tokens)
        return predict_generate(self.writer, texts, **more)

    def ask_examples(self, task: str, sources: Sequence[str], columns: Columns = NO_COLUMNS) -> Iterator[Answer]:
        """The answer to each example of labelled files; see `predict_examples`."""
        return predict_examples(self.fine_tuned(task), sources, columns)
