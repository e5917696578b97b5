"""Exported graphs compute what PyTorch computes, at any batch and length, and write what transformers writes."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    ElectraConfig,
    ElectraForCausalLM,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertForTokenClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from electrain.finetuning.tasks.network import TorchNetwork, Writing
from electrain.inference.export import graphs
from electrain.inference.export.beam_search import SpecialIds
from electrain.inference.export.files import write_graph
from electrain.inference.export.sessions import ExportedWriter
from electrain.inference.export.sessions import Graph as Session
from electrain.models.recurrent import RecurrentConfig, RecurrentForTokenClassification

SIZES: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    **{"vocab_size": 100, "max_position_embeddings": 64, "pad_token_id": 0},
}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
GPT2: dict[str, Any] = {"vocab_size": 90, "n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 2}
GPT2 |= {"bos_token_id": 2, "eos_token_id": 3, "add_cross_attention": True, "is_decoder": True}


def spread(network: Any) -> Any:
    """The network with weights that are further out, so that its outputs differ clearly."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return network.eval()


def electra_with_heads() -> graphs.Graph:
    detector = spread(ElectraForPreTraining(ElectraConfig(**SIZES, embedding_size=16)))
    words = spread(ElectraForMaskedLM(detector.config))
    return graphs.encoder_graph("one", detector.electra, detector, words)


def modernbert() -> graphs.Graph:
    ids = {"cls_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    # One layer reads the whole row, the other one a window of it.
    kinds = ["full_attention", "sliding_attention"]
    network = ModernBertForTokenClassification(ModernBertConfig(**SIZES, **ids, layer_types=kinds, local_attention=8))
    return graphs.task_graph("one", spread(network), with_token_types=False)


GRAPHS = {
    "electra with its heads": electra_with_heads,
    "questions of bert": lambda: graphs.task_graph(
        "one", spread(BertForQuestionAnswering(BertConfig(**SIZES))), with_token_types=True
    ),
    "modernbert": modernbert,
    "roberta": lambda: graphs.task_graph(
        "one",
        spread(RobertaForSequenceClassification(RobertaConfig(**SIZES | {"pad_token_id": 1}))),
        with_token_types=False,
    ),
    "words of deberta": lambda: graphs.language_model_graph(
        "one", spread(DebertaV2ForMaskedLM(DebertaV2Config(**SIZES, **DEBERTA, type_vocab_size=0, legacy=True)))
    ),
    "lstm": lambda: graphs.task_graph(
        "one", spread(RecurrentForTokenClassification(RecurrentConfig(**SIZES))), with_token_types=False
    ),
}


def outputs(graph: graphs.Graph, path: Path) -> tuple[list[Any], list[Any]]:
    """What PyTorch and the file answer for batches and lengths that the graph was not recorded with."""
    expected, got = [], []
    session = Session(path)
    for rows, length in ((1, 1), (3, 11), (2, 40)):
        mask = torch.ones(rows, length, dtype=torch.int64)
        mask[-1, length // 2 + 1 :] = 0
        given = {"input_ids": torch.randint(5, 99, (rows, length)), "attention_mask": mask}
        if "token_type_ids" in graph.example:
            given["token_type_ids"] = torch.randint(0, 2, (rows, length))
        if "selected" in graph.example:
            given["selected"] = torch.arange(0 if length == 11 else rows)  # none may be asked for
        with torch.no_grad():
            own = graph.network(*given.values())
        expected += [own] if isinstance(own, torch.Tensor) else list(own)
        got += session.run(None, {name: value.numpy() for name, value in given.items()})
    return [one.numpy() for one in expected], got


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_computes_what_pytorch_computes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # is not needed
    graph = GRAPHS[name]()
    write_graph(graph, tmp_path / "one.onnx", "none")
    for one, other in zip(*outputs(graph, tmp_path / "one.onnx"), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(other, one, atol=1e-5 * max(1, np.abs(one).max(initial=0)))


def test_a_mask_may_hide_any_tokens(tmp_path: Path) -> None:
    graph = electra_with_heads()
    write_graph(graph, tmp_path / "one.onnx", "none")
    ids, mask = torch.randint(5, 99, (3, 9)), torch.ones(3, 9, dtype=torch.int64)
    mask[0, :4] = mask[1, 3:5] = 0
    with torch.no_grad():
        expected = graph.network(ids, mask, torch.arange(0))[0]
    (got,) = Session(tmp_path / "one.onnx").run(
        ["mean_state"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "selected": np.zeros(0, np.int64)}
    )
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


def test_int8_rounds_the_encoder_and_no_head(tmp_path: Path) -> None:
    graph = electra_with_heads()
    write_graph(graph, tmp_path / "one.onnx", "int8")
    nodes = [node.op_type for node in onnx.load(tmp_path / "one.onnx").graph.node]
    assert nodes.count("QAttention") == 2
    assert nodes.count("MatMulInteger") == 7  # the projection of the embeddings, and three in each layer
    # Detection has two linear layers, and the head of words has two.
    assert sum(nodes.count(kind) for kind in ("MatMul", "Gemm")) == 4
    for one, other in zip(*outputs(graph, tmp_path / "one.onnx"), strict=True):
        np.testing.assert_allclose(other, one, atol=0.15 * max(1, np.abs(one).max(initial=0)))
        assert one.size == 0 or np.abs(one - other).max() > 0


def test_no_residual_is_joined_with_its_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept(onnxruntime.SessionOptions):
        def __init__(self) -> None:
            super().__init__()
            self.optimized_model_filepath = str(tmp_path / "opened.onnx")

    monkeypatch.setattr(onnxruntime, "SessionOptions", Kept)
    write_graph(electra_with_heads(), tmp_path / "one.onnx", "none")
    assert Session(tmp_path / "one.onnx").session.get_inputs()
    for name in ("one", "opened"):
        nodes = [node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node]
        assert nodes.count("Attention") == 2
        # Two in each layer; those of the embeddings and of the head of words are others.
        assert nodes.count("SkipLayerNormalization") == 0
        assert nodes.count("LayerNormalization") >= 4


def joined(kind: str) -> Any:
    torch.manual_seed(2)
    decoder = {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
        "electra": lambda: ElectraForCausalLM(
            ElectraConfig(**SIZES, embedding_size=16, is_decoder=True, add_cross_attention=True)
        ),
    }[kind]()
    encoder = ElectraModel(ElectraConfig(**SIZES, embedding_size=16))
    both = EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
    network = spread(EncoderDecoderModel(config=both, encoder=encoder, decoder=decoder))
    for settings in (network.config, network.generation_config, network.decoder.config):
        settings.bos_token_id, settings.eos_token_id, settings.pad_token_id = 2, 3, 0
        settings.decoder_start_token_id = 2
    return network


def exported_writer(network: Any, folder: Path, end: int) -> ExportedWriter:
    for graph in graphs.writing_graphs(network, with_token_types=True):
        write_graph(graph, folder / f"{graph.name}.onnx", "none")
    ids, longest = SpecialIds(2, end, 0), 64
    tokenizer: Any = None  # is not asked
    sessions = (Session(folder / "writer.onnx"), Session(folder / "reader.onnx"))
    return ExportedWriter(sessions[0], ids, longest, tokenizer, "", longest, sessions[1])


@pytest.mark.parametrize("kind", ["gpt2", "electra"])
def test_a_decoder_writes_token_for_token_what_transformers_writes(kind: str, tmp_path: Path) -> None:
    network = joined(kind)
    torch.manual_seed(5)
    ids = torch.randint(5, 99, (5, 9)).numpy()
    mask = np.ones_like(ids)
    mask[1, 4:] = mask[3, 7:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    reference = TorchNetwork(network)
    # Random weights hardly ever write the end. So it is a token that they do write.
    end = network.generation_config.eos_token_id = reference.write(inputs, Writing(1, 1.0, 2, 20))[1][6]
    writer = exported_writer(network, tmp_path, end)
    lengths = set()
    for writing in (
        Writing(1, 1.0, 0, 20),
        Writing(1, 1.0, 2, 20),
        Writing(2, 1.0, 0, 20),
        Writing(4, 1.0, 2, 30),
        Writing(4, 0.2, 0, 30),
        Writing(4, 2.5, 3, 12),
        Writing(3, -1.0, 0, 12),
    ):
        expected = [without_padding(row, end) for row in reference.write(inputs, writing)]
        assert [without_padding(row, end) for row in writer.write(inputs, writing)] == expected, writing
        lengths |= {len(row) for row in expected}
    assert len(lengths) > 3  # some end by themselves, others where writing stops


def without_padding(row: Any, end: int) -> list[int]:
    return list(row[: list(row).index(end, 1) + 1]) if end in row[1:] else list(row)
