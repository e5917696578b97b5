"""The networks of an exported folder, as `predict`, `load` and `serve` ask them. Nothing here needs torch."""

import dataclasses
from functools import cached_property
from pathlib import Path

from electrain.data.tokenizer.light_tokenizer import LightTokenizer, load_light
from electrain.finetuning.tasks.settings import TASK_FILE_NAME, FineTuned, build_task, read_task_settings
from electrain.foundation.errors import CheckpointError
from electrain.foundation.sums import verify_sums
from electrain.inference.export.beam_search import SpecialIds
from electrain.inference.export.folder import ExportedNetwork, read_export
from electrain.inference.export.sessions import ExportedModel, ExportedWriter, Graph, onnxruntime
from electrain.inference.predict.asking import OpenNetworks

TARGET_TOKENIZER = "target_tokenizer"
# The networks that may fill gaps, in the order in which they are taken.
FILLERS = ("generator", "correction", "model")


class ExportedNetworks(OpenNetworks):
    """The networks of a folder that `electrain export` wrote, run by onnxruntime on the CPU."""

    def __init__(self, source: Path | str, batch_tokens: int | None = None) -> None:
        """Looks what the folder holds, but opens no network.

        Raises: CheckpointError: a file is missing or damaged. ConfigurationError: onnxruntime is not installed.
        """
        super().__init__(str(source), batch_tokens)
        self._folder = Path(source)
        onnxruntime()
        verify_sums(self._folder, lambda name: True)
        self._export = read_export(self._folder)
        self.tasks: tuple[str, ...] = self._export.tasks
        self._graphs: dict[str, Graph] = {}

    @cached_property
    def reads_pairs(self) -> bool | None:
        """Whether a fine-tuned model reads two texts; None where its folder does not say."""
        if not (self._folder / TASK_FILE_NAME).is_file():
            return None
        return read_task_settings(self._folder / TASK_FILE_NAME).reads_pairs

    @property
    def longest_row(self) -> int:
        """The longest row that all networks take."""
        return min(one.longest_row for one in self._export.networks.values())

    @property
    def detector(self) -> ExportedModel:
        """The discriminator."""
        return self._model("detect")

    @cached_property
    def writer(self) -> ExportedWriter:
        """The causal generator."""
        return self._writing("generate")

    @property
    def encoder(self) -> ExportedModel:
        """The encoder of any model."""
        return self._model("embed")

    def filler(self, by: str | None) -> ExportedModel:
        """The network of this name that fills gaps, or the first one that there is."""
        self._require("fill")
        found = [name for name in FILLERS if name in self._export.networks]
        if by is not None and by not in found:
            raise CheckpointError(f"{self.source}: holds no {by} that fills gaps, only the {' and '.join(found)}")
        return self._model(by or found[0])

    def fine_tuned(self, task: str) -> FineTuned:
        """The model of the folder's own task."""
        self._require(task)
        return self._tuned

    @cached_property
    def _tuned(self) -> FineTuned:
        settings, place = read_task_settings(self._folder / TASK_FILE_NAME), self._export.networks["task"]
        writes = self._export.decoder is not None
        model = self._writing("task") if writes else self._model("task")
        target = load_light(self._folder / TARGET_TOKENIZER) if (self._folder / TARGET_TOKENIZER).is_dir() else None
        # A `LightTokenizer` has what tasks read of a tokenizer of transformers.
        task = build_task(
            settings,
            self.tokenizer,
            target,
            with_token_types=self._export.with_token_types,  # type: ignore[arg-type]
        )
        batched = dataclasses.replace(task, batch_tokens=self.batch_tokens)
        return FineTuned(model, batched, settings, self.tokenizer, str(self._folder / place.file))  # type: ignore[arg-type]

    def _require(self, task: str) -> None:
        if task not in self.tasks:
            raise CheckpointError(f"{self.source}: cannot {task}; it can {', '.join(self.tasks)}")

    @cached_property
    def tokenizer(self) -> LightTokenizer:
        """The tokenizer of the texts to read."""
        return load_light(self._folder)

    def _model(self, name: str) -> ExportedModel:
        place = self._place(name)
        return ExportedModel(
            self.graph(place.file),
            self.tokenizer,
            str(self._folder / place.file),
            place.longest_row,
            self._export.vocabulary_size,
            self._export.with_token_types,
        )

    def _writing(self, name: str) -> ExportedWriter:
        place, decoder = self._place(name), self._export.decoder
        if decoder is None:
            raise CheckpointError(f"{self.source}: names no decoder; export the model again")
        ids = SpecialIds(decoder.start, decoder.end, decoder.pad)
        reader = None if place.file == decoder.file else self.graph(place.file)
        graph = self.graph(decoder.file)
        source, longest = str(self._folder / place.file), place.longest_row
        return ExportedWriter(graph, ids, decoder.positions, self.tokenizer, source, longest, reader)

    def _place(self, name: str) -> ExportedNetwork:
        if name not in self._export.networks:
            self._require(name)
            raise CheckpointError(f"{self.source}: names no network for {name}; export the model again")
        return self._export.networks[name]

    def graph(self, file: str) -> Graph:
        """One of the files, by its name."""
        if file not in self._graphs:
            self._graphs[file] = Graph(self._folder / file)
        return self._graphs[file]
