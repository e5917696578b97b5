"""Networks that onnxruntime runs; they answer as those of PyTorch do. Nothing here needs torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from electrain.data.tokenizer.light_tokenizer import LightTokenizer
from electrain.finetuning.tasks.network import Arrays, Writing
from electrain.finetuning.tasks.probabilities import softmax
from electrain.foundation.errors import CheckpointError, ConfigurationError
from electrain.foundation.hub import reason_of
from electrain.foundation.limits import available_cores
from electrain.inference.export.beam_search import SpecialIds, write
from electrain.inference.network import Chances, Ids

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_ERRORS_ONLY = 3  # onnxruntime's level of remarks
# Adding a residual and normalising it in one operator is three times as slow as in two, because that operator adds
# number by number (docs/experiments.md, "ONNX"). onnxruntime would join them when it opens a file.
_SLOWER = ["SkipLayerNormFusion"]


class Graph:
    """An ONNX file, opened when it is first run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def session(self) -> "InferenceSession":
        """The session that runs it. Raises: CheckpointError: the file is missing or damaged."""
        runtime = onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        if not self.path.is_file():
            raise CheckpointError(f"{self.path}: missing; copy the folder again")
        try:
            return runtime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
            )
        except Exception as error:  # classes of onnxruntime's own, which are no part of its interface
            raise CheckpointError(f"{self.path}: cannot be run ({reason_of(error)}); export the model again") from error

    @cached_property
    def inputs(self) -> dict[str, list[Any]]:
        """The shape of each input; names stand for sizes that may differ."""
        return {one.name: one.shape for one in self.session.get_inputs()}

    def run(self, names: Sequence[str] | None, given: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The outputs of these names, or all."""
        found: list[NDArray[np.float32]] = self.session.run(names, given)
        return found

    def of_rows(self, name: str | None, inputs: Arrays) -> list[NDArray[np.float32]]:
        """One output, or all, for padded rows.

        Args: inputs: see `Arrays`; inputs that the network does not read may be among them.
        """
        ids = inputs["input_ids"]
        usual = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        given = {**usual, "selected": np.zeros(0, np.int64), **inputs}
        return self.run(None if name is None else [name], {key: given[key] for key in self.inputs})


@dataclass(frozen=True)
class ExportedModel:
    """A network of an exported folder: it detects, fills gaps, makes vectors, or does a fine-tuned task."""

    graph: Graph
    tokenizer: LightTokenizer
    source: str
    longest_row: int
    vocabulary_size: int = 0
    with_token_types: bool = False

    def replaced(self, ids: Ids, is_real: NDArray[np.bool_] | None) -> Chances:
        """See `Detector`."""
        return self.graph.of_rows("replaced_logits", _rows(ids, is_real))[0]

    def words(self, ids: Ids, is_real: NDArray[np.bool_] | None, is_selected: NDArray[np.bool_]) -> Chances:
        """See `Filler`."""
        inputs = _rows(ids, is_real) | {"selected": np.flatnonzero(is_selected)}
        return self.graph.of_rows("word_logits", inputs)[0][:, : self.vocabulary_size]

    def means(self, inputs: Arrays) -> Chances:
        """See `TextEncoder`."""
        return self.graph.of_rows("mean_state", inputs)[0]

    def logits(self, inputs: Arrays) -> NDArray[np.float32]:
        """See `Network`."""
        return self.graph.of_rows("logits", inputs)[0]

    def write(self, inputs: Arrays, writing: Writing) -> list[list[int]]:
        """See `Network`."""
        raise NotImplementedError("only an encoder-decoder writes")


@dataclass(frozen=True)
class ExportedWriter:
    """A decoder of an exported folder, with the encoder that reads for it, or a causal generator without one."""

    decoder: Graph
    ids: SpecialIds
    positions: int
    tokenizer: LightTokenizer
    source: str
    longest_row: int
    reader: Graph | None = None

    def logits(self, inputs: Arrays) -> NDArray[np.float32]:
        """See `Network`."""
        raise NotImplementedError("an encoder-decoder only writes")

    def write(self, inputs: Arrays, writing: Writing) -> list[list[int]]:
        """See `Network`."""
        if self.reader is None:
            raise NotImplementedError("a generator has no source")
        texts, beams = len(inputs["input_ids"]), writing.beams
        cross = self.reader.of_rows(None, inputs)
        names = [name for name in self.decoder.inputs if name.startswith("cross_")]
        mask = inputs.get("attention_mask", np.ones_like(inputs["input_ids"]))
        source = dict(zip(names, cross, strict=True)) | {"source_mask": mask}
        # The beams of a text read the same source.
        source = {name: value.repeat(beams, 0) for name, value in source.items()}
        writing = replace(writing, longest_tokens=min(writing.longest_tokens, self.positions - 1))
        return write(Steps(self.decoder, texts * beams, source), texts, self.ids, writing)

    def continuation(
        self, ids: Sequence[int], uniforms: Chances, temperature: float, top_p: float, never: Sequence[int]
    ) -> list[int]:
        """See `Writer`."""
        steps, written, read = Steps(self.decoder, 1, {}), list[int](), np.array([ids], np.int64)
        for uniform in uniforms.tolist():
            logits = steps.after(read)[0]
            logits[list(never)] = -np.inf
            written.append(draw(logits / np.float32(temperature), top_p, uniform))
            read = np.array([written[-1:]], np.int64)
        return written


class Steps:
    """The rows that a decoder writes, with the keys and values of what it has read."""

    def __init__(self, graph: Graph, rows: int, source: dict[str, NDArray[Any]]) -> None:
        self._graph, self._source = graph, source
        past = {name: shape for name, shape in graph.inputs.items() if name.startswith("past_")}
        self._past = {name: np.zeros((rows, shape[1], 0, shape[3]), np.float32) for name, shape in past.items()}

    def after(self, tokens: Ids) -> NDArray[np.float32]:
        """(rows, vocabulary) float32 logits of the next token after (rows, new) int64 further ones."""
        logits, *kept = self._graph.run(None, {"input_ids": tokens, **self._past, **self._source})
        self._past = dict(zip(self._past, kept, strict=True))
        return logits

    def next_logits(self, tokens: Ids) -> NDArray[np.float32]:
        """See `Decoder`."""
        return self.after(tokens[:, None])

    def reorder(self, rows: Ids) -> None:
        """See `Decoder`. The beams of a text share its source, so that only what they wrote moves."""
        self._past = {name: value[rows] for name, value in self._past.items()}


def draw(logits: NDArray[np.float32], top_p: float, uniform: float) -> int:
    """The word that a number in [0, 1) draws from the likeliest ones, as `write_passages` draws it.

    Args: logits: (vocabulary,) float32, divided by the temperature; minus infinity where no word may be drawn.
    """
    if top_p < 1:
        order = np.argsort(-logits, kind="stable")
        ordered = softmax(logits)[order]
        logits = logits.copy()
        logits[order[np.cumsum(ordered) - ordered >= top_p]] = -np.inf
    weights = np.exp(logits - logits.max()).astype(np.float64)
    cumulated = np.cumsum(weights)
    place = int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))
    return min(place, int(np.flatnonzero(weights)[-1]))


def _rows(ids: Ids, is_real: NDArray[np.bool_] | None) -> Arrays:
    return {"input_ids": ids} if is_real is None else {"input_ids": ids, "attention_mask": is_real.astype(np.int64)}


def threads() -> int:
    """Number of threads of a session: OMP_NUM_THREADS as for PyTorch, or else the cores that this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else available_cores()


def onnxruntime() -> Any:
    """The library. Raises: ConfigurationError: it is not installed."""
    try:
        import onnxruntime as library
    except ImportError as error:
        raise ConfigurationError('an exported folder needs onnxruntime; run pip install "electrain[export]"') from error
    return library
