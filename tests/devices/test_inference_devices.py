"""Evaluation and prediction on each device, through the real command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import command
from tiny_pretraining import INVENTED_WORDS

Trained = Callable[[str], Path]
TEXT = " ".join(INVENTED_WORDS[:12])
# What differs in how a run is evaluated: its heads, its generator, its backbone.
ASKED = (
    "replaced_token_detection_electra",
    "replaced_token_detection_modernbert",
    "bert",
    "all_tokens",
    "article",
    "replace_mlm",
    "electric",
    "disentangled",
    "span",
    "shuffle",
)


def answers(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    code, lines, err = command(capsys, *arguments)
    assert code == 0, err
    return lines


@pytest.mark.parametrize("name", ASKED)
def test_evaluate_detection(
    device: str, name: str, trained: Trained, tiny_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(name)
    [result] = answers(capsys, "evaluate", "detection", "--model", run, "--data", tiny_shards, "--rows", 40)
    assert result["rows"] == 40


@pytest.mark.parametrize("name", ["masked_language_modelling", "unigram"])
def test_evaluate_detection_with_another_generator(
    device: str, name: str, trained: Trained, tiny_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = trained("replaced_token_detection_electra") / "generator"
    [result] = answers(
        capsys, "evaluate", "detection", "--model", trained(name), "--generator", generator, "--data", tiny_shards,
        "--rows", 40,
    )  # fmt: skip
    assert result["rows"] == 40


@pytest.mark.parametrize("name", [*ASKED, "masked_language_modelling"])
def test_evaluate_blimp(
    device: str, name: str, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"UID": "set", "linguistics_term": "term", "field": "field"}
    pairs = [
        {"sentence_good": " ".join(INVENTED_WORDS[n : n + 5]), "sentence_bad": " ".join(INVENTED_WORDS[n + 1 : n + 7])}
        for n in range(6)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps({**pair, **names}) + "\n" for pair in pairs))
    [result] = answers(capsys, "evaluate", "blimp", "--model", trained(name), "--data", tmp_path / "pairs.jsonl")
    assert result["pairs"] == 6


@pytest.mark.parametrize(
    ("verb", "name", "options"),
    [
        ("detect", "replaced_token_detection_electra", ()),
        ("detect", "replaced_token_detection_modernbert", ()),
        ("detect", "bert", ()),
        ("fill", "replaced_token_detection_electra", ()),
        ("fill", "masked_language_modelling", ()),
        ("fill", "article", ("--by", "correction")),
        ("fill", "all_tokens", ("--by", "correction")),
        ("generate", "article", ()),
        ("corrupt", "article", ()),
        ("corrupt", "unigram", ()),
        ("corrupt", "span", ()),
        ("corrupt", "shuffle", ()),
        ("corrupt", "replaced_token_detection_electra", ()),
        ("embed", "replaced_token_detection_electra", ()),
        ("embed", "replaced_token_detection_modernbert", ()),
    ],
)
def test_predict(
    device: str,
    verb: str,
    name: str,
    options: tuple[str, ...],
    trained: Trained,
    tiny_shards: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two texts of different lengths, so that there is padding; the answers do not depend on the device."""
    texts = [TEXT, TEXT[:11]] if verb != "fill" else [f"{TEXT} [MASK] .", f"{TEXT[:11]} [MASK]"]
    lines = answers(capsys, "predict", verb, *texts, "--model", trained(name), *options)
    assert [line["text"] for line in lines] == texts
