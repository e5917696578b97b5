"""How the outputs and the answers of an exported folder differ from those of PyTorch, on real text."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from electrain.data.labelled.columns import Columns
from electrain.data.text.documentation import read_documentation
from electrain.data.tokenizer.plain_text import cleaner_for, encode_plain
from electrain.data.tokenizer.windows import chunks_of
from electrain.finetuning.tasks.network import Arrays
from electrain.finetuning.tasks.task import Row, encoder_arrays
from electrain.foundation.errors import CheckpointError, DataError
from electrain.foundation.progress import said_once
from electrain.inference.asked import COLUMNS, Input
from electrain.inference.export.graphs import LOGITS, REPLACED, Graph
from electrain.inference.export.networks import ExportedNetworks
from electrain.inference.predict.inputs import texts_of
from electrain.inference.predict.networks import Networks

# The largest difference that is put down to the order of additions, as a fraction of the largest output. Seen: 1e-6
# with two layers, 1e-5 with twelve. A wrong mask or position makes 0.1 and more, int8 0.01 to 0.1.
TOLERANCE = 1e-3
_TEXTS, _WRITTEN_TEXTS, _ROWS = 64, 8, 8
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_CHARACTERS = range(20, 400)  # of a sentence: shorter ones are headings, longer ones lists
_SAME_DIRECTION = 0.99  # cosine from which two vectors count as equal


def compare(
    graphs: dict[str, Graph], networks: Networks, exported: ExportedNetworks, data: Path | None, *, is_exact: bool
) -> dict[str, Any]:
    """The differences, ready for JSON.

    Args:
        graphs: what was exported, by name.
        data: file of texts; None: sentences of the built-in documentation.
        is_exact: the export is in float32, so that more than `TOLERANCE` is an error.
    Returns: {"texts", "source", "outputs": {file: {output: {"largest_difference", "mean_difference",
        "largest_value"}}}, "equal_answers": {task: share}}.
    Raises: CheckpointError: a float32 export differs by more. DataError: `data` holds no text.
    """
    texts = _texts(data)
    rows = _rows(networks, exported, texts)
    outputs = {name: _differences(graphs, name, exported, rows) for name in graphs}
    if is_exact:
        for name, found in outputs.items():
            for output, one in found.items():
                if not one["largest_difference"] <= TOLERANCE * max(1.0, one["largest_value"]):
                    raise CheckpointError(
                        f"{networks.source}: {name}.onnx differs from PyTorch by {one['largest_difference']:.3g} in "
                        f"{output}, which reaches {one['largest_value']:.3g}; it cannot be exported, use PyTorch"
                    )
    with said_once():  # both sides, and several tasks, cut the same texts
        answers = {task: _equal_answers(task, networks, exported, texts) for task in exported.tasks}
    source = "documentation" if data is None else data.name
    return {"texts": len(texts), "source": source, "outputs": outputs, "equal_answers": answers}


def _texts(data: Path | None) -> list[str]:
    if data is None:
        return list(islice(_sentences(), _TEXTS))
    found = list(islice(filter(str.strip, texts_of((), data, Columns())), _TEXTS))
    if not found:
        raise DataError(f"{data}: holds no text; give one with some lines")
    return found


def _sentences() -> Iterator[str]:
    """Sentences of the documentation that comes with Python, at most two of a document."""
    for document in read_documentation():
        sentences = (" ".join(one.split()) for one in _SENTENCE.split(document.text))
        yield from islice((one for one in sentences if len(one) in _CHARACTERS), 2)


def _rows(networks: Networks, exported: ExportedNetworks, texts: Sequence[str]) -> list[Arrays]:
    """The texts as batches of padded rows; the second half of each row is the second text of a pair."""
    tokenizer = exported.tokenizer
    longest = min(exported.longest_row, 512)
    clean = cleaner_for(tokenizer)
    encoded = encode_plain(tokenizer, list(map(clean, texts)), truncation=True, max_length=longest)
    rows = [
        Row(number, ids, [0] * (len(ids) // 2) + [1] * (len(ids) - len(ids) // 2))
        for number, ids in enumerate(encoded["input_ids"])
    ]
    batches = []
    for part in chunks_of(rows, _ROWS):
        inputs = encoder_arrays(part, tokenizer.pad_token_id, with_token_types=True)
        mask = inputs.setdefault("attention_mask", np.ones_like(inputs["input_ids"]))
        # Every seventh place, so that words are asked for in all rows.
        batches.append(inputs | {"selected": np.flatnonzero(mask)[::7]})
    return batches


def _differences(
    graphs: dict[str, Graph], name: str, exported: ExportedNetworks, batches: Sequence[Arrays]
) -> dict[str, dict[str, float]]:
    """How far the outputs of one file are from those of the network that it was made of."""
    found: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    for inputs in batches[: None if name != "writer" else 1]:
        ours, theirs = (
            _written(graphs, exported, inputs) if name == "writer" else _outputs(graphs[name], exported, name, inputs)
        )
        for output, one in ours.items():
            found.setdefault(output, []).append((one, theirs[output]))
    return {
        output: {
            "largest_difference": max(float(np.abs(one - other).max(initial=0)) for one, other in pairs),
            "mean_difference": float(np.mean(np.concatenate([np.abs(one - other).ravel() for one, other in pairs]))),
            "largest_value": max(float(np.abs(other).max(initial=0)) for _, other in pairs),
        }
        for output, pairs in found.items()
    }


def _outputs(
    graph: Graph, exported: ExportedNetworks, name: str, inputs: Arrays
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    session = exported.graph(f"{name}.onnx")
    with torch.inference_mode():
        expected = graph.network(*(torch.from_numpy(inputs[key]) for key in graph.example))
    expected = (expected,) if isinstance(expected, torch.Tensor) else expected
    got = session.of_rows(None, inputs)
    is_real = inputs["attention_mask"].astype(bool)
    sides = tuple(dict(zip(graph.outputs, side, strict=True)) for side in (got, [one.numpy() for one in expected]))
    for side in sides:
        for output, value in side.items():
            if (
                output in (REPLACED, LOGITS)
                and value.shape[:2] == is_real.shape
                and value.ndim > 1 + (output == LOGITS)
            ):
                side[output] = value[is_real]  # what a network says of padding is never read
            elif output.startswith("cross_"):
                side[output] = value.swapaxes(1, 2)[is_real]
    return sides[0], sides[1]


def _written(
    graphs: dict[str, Graph], exported: ExportedNetworks, inputs: Arrays
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The logits of a decoder after the first half of each row, and after its second half."""
    writer, session = graphs["writer"], exported.graph("writer.onnx")
    source: list[NDArray[Any]] = []
    theirs: list[torch.Tensor] = []
    if "reader" in graphs:
        source = [inputs["attention_mask"], *exported.graph("reader.onnx").of_rows(None, inputs)]
        with torch.inference_mode():
            theirs = list(
                graphs["reader"].network(*(torch.from_numpy(inputs[key]) for key in graphs["reader"].example))
            )
    ids = inputs["input_ids"][:, :12] % graphs["writer"].vocabulary
    half = ids.shape[1] // 2
    past = {
        name: np.zeros((len(ids), value.shape[1], 0, value.shape[3]), np.float32)
        for name, value in writer.example.items()
        if name.startswith("past_")
    }
    ours_by_part, theirs_by_part = [], []
    names = [name for name in writer.example if name.startswith(("source_mask", "cross_"))]
    past_torch = [torch.from_numpy(one) for one in past.values()]
    masked = [torch.from_numpy(inputs["attention_mask"]), *theirs] if theirs else []
    for part in (ids[:, :half], ids[:, half:]):
        logits, *kept = session.run(None, {"input_ids": part, **past, **dict(zip(names, source, strict=True))})
        past = dict(zip(past, kept, strict=True))
        with torch.inference_mode():
            expected, *kept_torch = writer.network(torch.from_numpy(part), *past_torch, *masked)
        past_torch = list(kept_torch)
        ours_by_part.append(logits)
        theirs_by_part.append(expected.numpy())
    return {LOGITS: np.concatenate(ours_by_part)}, {LOGITS: np.concatenate(theirs_by_part)}


def _equal_answers(task: str, networks: Networks, exported: ExportedNetworks, texts: Sequence[str]) -> float:
    """The share of decisions that come out the same: of labels, words, gaps, tokens or texts."""
    if task in ("summarize", "translate", "generate"):
        texts = texts[:_WRITTEN_TEXTS]
    places = range(len(texts))
    inputs = [Input(_given(task, texts, place, networks), place + 1, f"text {place + 1}") for place in places]
    columns = COLUMNS.get(task, Columns())
    ours = [one.to_dict() for one in exported.ask(task, inputs, columns)]
    theirs = [one.to_dict() for one in networks.ask(task, inputs, columns)]
    if task == "embed":
        return float(np.mean([_cosine(one, other) >= _SAME_DIRECTION for one, other in zip(ours, theirs, strict=True)]))
    same = [
        first == second
        for one, other in zip(ours, theirs, strict=True)
        for first, second in zip(_decisions(task, one), _decisions(task, other), strict=True)
    ]
    return float(np.mean(same)) if same else 1.0


def _given(task: str, texts: Sequence[str], number: int, networks: Networks) -> Any:
    text, other = texts[number], texts[(number + 1) % len(texts)]
    if task == "fill":
        words = text.split()
        mask = networks.filler(None).tokenizer.mask_token
        return " ".join([*words[: len(words) // 2], str(mask), *words[len(words) // 2 + 1 :]])
    if task == "answer":
        return {"question": text, "context": f"{other} {text}"}
    if task in ("classify", "regress") and networks.reads_pairs:
        return {"text": text, "pair": other}
    return text


def _decisions(task: str, answer: dict[str, Any]) -> list[Any]:
    if task == "detect":
        return [token["probability_replaced"] >= 0.5 for token in answer.get("tokens", [])]
    if task == "fill":
        return [mask["candidates"][0]["token"] for mask in answer.get("masks", [])]
    if task == "tag":
        return list(answer.get("tags", []))
    if task == "regress":
        return [f"{answer['value']:.2g}"] if "value" in answer else []
    keys = ("label", "labels", "answer", "output", "written")
    return [answer[key] for key in keys if key in answer]


def _cosine(one: dict[str, Any], other: dict[str, Any]) -> float:
    first, second = (np.array(side.get("embedding", [1.0])) for side in (one, other))
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
