"""Exports a model as ONNX files, and compares what they answer with what PyTorch answers."""

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from electrain.data.tokenizer.light_tokenizer import save_light
from electrain.data.tokenizer.tokenizer import special_ids_of
from electrain.finetuning.tasks.sequence_to_sequence import SequenceToSequence
from electrain.finetuning.tasks.settings import save_task_settings
from electrain.foundation.errors import CheckpointError, ConfigurationError
from electrain.foundation.output_folder import one_line_when_full, replaced_directory, require_empty
from electrain.foundation.sums import write_sums
from electrain.inference.asked import TASK_OF_VERB
from electrain.inference.export import graphs
from electrain.inference.export.agreement import compare
from electrain.inference.export.card import write_export_card
from electrain.inference.export.files import write_graph
from electrain.inference.export.folder import (
    Export,
    ExportedDecoder,
    ExportedNetwork,
    Quantization,
    is_exported,
    write_export,
)
from electrain.inference.export.graphs import Graph
from electrain.inference.export.networks import TARGET_TOKENIZER, ExportedNetworks
from electrain.inference.model import LoadedModel
from electrain.inference.predict.networks import Networks
from electrain.models.backbones import backbone_of
from electrain.pretraining.run_folder import RunFolder, open_run_folder

_LIBRARIES = ("onnx", "onnxruntime")


@dataclass
class Parts:
    """What is exported of a model.

    Attributes:
        graphs: the files to write, by their names without .onnx.
        networks: see `Export`.
        tokenizer: of the texts to read.
    """

    tokenizer: Any
    graphs: dict[str, Graph] = field(default_factory=dict)
    networks: dict[str, ExportedNetwork] = field(default_factory=dict)
    decoder: ExportedDecoder | None = None
    with_token_types: bool = False

    def add(self, graph: Graph, longest_rows: dict[str, int]) -> None:
        """Adds a graph, and what it is asked for."""
        self.graphs[graph.name] = graph
        file = f"{graph.name}.onnx"
        self.networks |= {name: ExportedNetwork(file, longest) for name, longest in longest_rows.items()}


def export_model(model: str, output: Path, quantize: Quantization, data: Path | None = None) -> dict[str, Any]:
    """Writes the folder `output` with the networks of a model, and returns what is to be printed.

    Args:
        model: a run folder, a model folder or a hub id.
        data: texts to compare the answers on. None: sentences of the documentation that comes with Python.
    Raises: CheckpointError: the model cannot be exported, or does not answer as PyTorch does; nothing is left then.
        ConfigurationError: a library is missing. RunDirectoryError: `output` is not empty.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(f'{" and ".join(missing)}: not installed; run pip install "electrain[export]"')
    if is_exported(model):
        raise CheckpointError(f"{model}: is exported already; give the run or the model that it was made from")
    if output.exists():
        require_empty(output)
    networks = Networks(model, "cpu")
    tasks, parts = networks.tasks, parts_of(networks)
    with one_line_when_full(output), replaced_directory(output) as folder:
        for graph in parts.graphs.values():
            write_graph(graph, folder / f"{graph.name}.onnx", quantize)
        export = Export(
            tasks,
            parts.networks,
            quantize,
            parts.decoder,
            1 + max(parts.tokenizer.get_vocab().values()),
            parts.with_token_types,
        )
        _write_small_files(networks, parts, folder)
        write_export(export, folder)
        found = compare(parts.graphs, networks, ExportedNetworks(folder), data, is_exact=quantize == "none")
        write_export(replace(export, agreement=found), folder)
        write_export_card(folder, open_run_folder(model).model, export, found)
        write_sums(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*.onnx"))
    return {"output": str(output), "tasks": list(tasks), "quantize": quantize, "bytes": size, "agreement": found}


def _write_small_files(networks: Networks, parts: Parts, folder: Path) -> None:
    tokenizer = parts.tokenizer
    save_light(tokenizer, folder, model_max_length=tokenizer.model_max_length, with_token_types=parts.with_token_types)
    if "task" not in parts.networks:
        return
    tuned = networks.fine_tuned(networks.tasks[0])
    save_task_settings(tuned.settings, folder)
    if isinstance(tuned.task, SequenceToSequence) and tuned.task.target_tokenizer is not tuned.tokenizer:
        target = tuned.task.target_tokenizer
        save_light(target, folder / TARGET_TOKENIZER, model_max_length=target.model_max_length, with_token_types=False)


def parts_of(networks: Networks) -> Parts:
    """The graphs of a model's networks. Raises: CheckpointError: one of them cannot be exported."""
    if networks.tasks[0] in TASK_OF_VERB:
        return _fine_tuned(networks)
    run = open_run_folder(networks.source)
    body, parts = None, None
    detector = networks.detector if "detect" in networks.tasks else None
    fillers = _fillers(networks, run) if "fill" in networks.tasks else {}
    if "embed" in networks.tasks:
        encoder = networks.encoder
        body, parts = encoder.network, Parts(encoder.tokenizer)
        rows = {"embed": encoder.longest_row}
        own = detector if detector and _is_body_of(body, detector.model) else None
        sharing = {name: one for name, one in fillers.items() if _is_body_of(body, one.model)}
        name, words = next(iter(sharing.items()), ("", None))
        if own is not None:
            rows["detect"] = own.longest_row
        if words is not None:
            rows[name] = words.longest_row
        heads = [one.model if one else None for one in (own, words)]
        parts.add(graphs.encoder_graph("encoder", body, *heads), rows)
    return _further(parts, networks, detector, fillers)


def _further(
    parts: Parts | None, networks: Networks, detector: LoadedModel | None, fillers: dict[str, LoadedModel]
) -> Parts:
    """The networks that share no encoder with the one that makes vectors."""
    named = {**({"detect": detector} if detector else {}), **fillers}
    for name, one in named.items():
        parts = parts or Parts(one.tokenizer)
        if name in parts.networks:
            continue
        if name == "detect":
            graph = graphs.encoder_graph("detector", one.model.base_model, one.model)
        elif backbone_of(one.model.config):
            graph = graphs.encoder_graph(name, one.model.base_model, None, one.model)
        else:
            graph = graphs.language_model_graph(name, one.model)
        parts.add(graph, {name: one.longest_row})
    if "generate" in networks.tasks:
        writer = networks.writer
        parts = parts or Parts(writer.tokenizer)
        parts.add(graphs.writer_graph(writer.model), {"generate": writer.longest_row})
        ids = special_ids_of(writer.tokenizer)
        parts.decoder = ExportedDecoder("writer.onnx", ids.cls, ids.sep, ids.pad, writer.longest_row)
    if parts is None:
        raise CheckpointError(f"{networks.source}: holds no network that can be exported; use PyTorch")
    return parts


def _fillers(networks: Networks, run: RunFolder) -> dict[str, LoadedModel]:
    """The networks that fill gaps, by what `predict fill --by` calls them; "model" where it needs no name."""
    if run.config is None or run.is_baseline:
        return {"model": networks.filler(None)}
    found = {}
    first = networks.filler(None)
    if "correction" in run.heads:
        found["correction"] = networks.filler("correction")
    if "correction" not in found or first.source != found["correction"].source:
        found = {"generator": first, **found}
    return found


def _fine_tuned(networks: Networks) -> Parts:
    tuned = networks.fine_tuned(networks.tasks[0])
    model, parts = tuned.model, Parts(tuned.tokenizer)
    assert isinstance(model, PreTrainedModel)
    parts.with_token_types = tuned.task.with_token_types
    if not isinstance(tuned.task, SequenceToSequence):
        rows = {"task": tuned.settings.longest_tokens}
        if "embed" in networks.tasks:
            rows["embed"] = networks.encoder.longest_row
        parts.add(graphs.task_graph("model", model, with_token_types=parts.with_token_types), rows)
        return parts
    reader, writer = graphs.writing_graphs(model, with_token_types=parts.with_token_types)
    parts.add(reader, {"task": tuned.settings.longest_tokens})
    parts.add(writer, {})
    settings = model.generation_config
    ids = (settings.decoder_start_token_id, settings.eos_token_id, settings.pad_token_id)
    if not all(isinstance(one, int) for one in ids):
        raise CheckpointError(f"{networks.source}: its decoder has several end tokens; use PyTorch")
    parts.decoder = ExportedDecoder("writer.onnx", *ids, model.config.decoder.max_position_embeddings)
    return parts


@torch.no_grad()
def _is_body_of(body: PreTrainedModel, network: PreTrainedModel) -> bool:
    """True if the network's encoder has the weights of `body`; a pooler does not count, since nothing reads it."""
    if not backbone_of(network.config) or type(network.base_model) is not type(body):
        return False
    one, other = (
        {name: value for name, value in module.state_dict().items() if not name.startswith("pooler.")}
        for module in (body, network.base_model)
    )
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
