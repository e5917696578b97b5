"""Writes a graph as an ONNX file: records it, fuses its layers, and rounds its matrices to eight bits if asked for."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedModel

from electrain.foundation.errors import CheckpointError
from electrain.foundation.hub import reason_of
from electrain.inference.export.folder import Quantization
from electrain.inference.export.graphs import Graph
from electrain.models.folders import quiet_transformers

# The newest that the exporter of TorchScript writes with LayerNormalization as one operator.
_OPSET = 17
_MOST_BYTES = 2_000_000_000  # of weights in one file: the format of ONNX, protobuf, holds two gigabytes
_MATRICES = ("MatMul", "Gemm")


def write_graph(graph: Graph, path: Path, quantize: Quantization) -> None:
    """Writes a graph into an ONNX file. Raises: CheckpointError: it cannot be exported."""
    count = sum(parameter.numel() for parameter in graph.network.parameters())
    if 4 * count > _MOST_BYTES:
        raise CheckpointError(f"{graph.name}: has {count:,} weights, more than one ONNX file holds; use PyTorch")
    recorded = path.with_name(f"recorded-{path.name}")
    _record(graph, recorded)
    _fuse(graph, recorded)
    if quantize == "int8":
        _round(graph, recorded, path)
        recorded.unlink()
    else:
        recorded.replace(path)


def _record(graph: Graph, path: Path) -> None:
    """Runs the network once and writes the operators that it used."""
    graph.network.eval()
    for module in graph.network.modules():
        if isinstance(module, PreTrainedModel) and module._supports_sdpa:
            # The plain form is what onnxruntime recognises and fuses.
            module.set_attn_implementation("eager")
    with _quiet():
        try:
            # The newer exporter takes ten times as long, and onnxruntime does not recognise attention in what it
            # writes; see docs/experiments.md, "ONNX".
            torch.onnx.export(
                graph.network,
                tuple(graph.example.values()),
                str(path),
                input_names=list(graph.example),
                output_names=list(graph.outputs),
                dynamic_axes=graph.axes,
                opset_version=_OPSET,
                dynamo=False,
            )
        except Exception as error:  # an operator without a form in ONNX raises whatever the exporter raises
            raise CheckpointError(
                f"{graph.name}: this kind of network cannot be exported ({reason_of(error)}); use PyTorch"
            ) from error


def _fuse(graph: Graph, path: Path) -> None:
    """Puts one operator of onnxruntime in the place of each attention, layer normalisation and GELU, where it can."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    heads, width = graph.attention
    if not heads:
        return
    # Options of no kind of network. Those of BERT would read of a mask only how many tokens it keeps.
    options = FusionOptions("")
    # As one operator, an addition and a normalisation take three times as long as by themselves: see
    # docs/experiments.md, "ONNX".
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = False
    with _quiet():
        # Its patterns for BERT are the default, and those of all encoders like it.
        model = optimizer.optimize_model(
            str(path), num_heads=heads, hidden_size=width, opt_level=0, optimization_options=options
        )
    model.save_model_to_file(str(path))


def _round(graph: Graph, path: Path, output: Path) -> None:
    """Rounds the matrices and the table of embeddings to eight bits; what comes after the encoder stays as it is."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    inside = f"/{graph.body}/"
    outside = [node.name for node in nodes if node.op_type in _MATRICES and not node.name.startswith(inside)]
    # The library first turns each Gemm into a MatMul of another name.
    heads = [name + ending for name in outside for ending in ("", "_MatMul")]
    with _quiet():
        quantize_dynamic(
            str(path),
            str(output),
            per_channel=True,
            # Seven bits: processors without VNNI add products of eight bits in sixteen, which overflows.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=heads,
            # The fused operators have no shapes of their own.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's and onnxruntime's remarks off stderr: what matters is checked on real text."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), quiet_transformers():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
