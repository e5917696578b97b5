"""A special token typed in a text is plain text for every verb, as it is in pretraining; `fill` alone reads [MASK].

The vocabulary holds no brackets, so "[SEP]" as plain text is three unknown words, and so is "{zzz}": whatever a verb
answers must be the same for both.
"""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2TokenizerFast

import electrain
from command_line import command
from electrain.data.tokenizer.plain_text import encode_plain, plain_ids
from electrain.data.tokenizer.tokenizer import word_piece_tokenizer, wrap
from electrain.data.tokenizer.windows import tokenize_texts
from electrain.pretraining.run import pretrain
from tiny_pretraining import INVENTED_WORDS, tiny_configuration

TYPED, PLAIN = "bak [SEP] fil [MASK][CLS] gom [PAD]", "bak {zzz} fil {zzzz}{zzz} gom {zzz}"
_BRACKETS = str.maketrans("[]", "{}")
Runs = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> Path:
    folder = tmp_path_factory.mktemp("typed") / "run"
    pretrain(tiny_configuration(generator={"kind": "causal"}), tiny_shards, folder)
    return folder


def _example(task: str, text: str, number: int) -> dict[str, Any]:
    """A labelled example of the task around a text."""
    context = f"{INVENTED_WORDS[number]} {text} {INVENTED_WORDS[number + 1]}"
    if task == "tagging":
        words = context.split()
        return {"words": words, "tags": [("B-X", "O")[(place + number) % 2] for place in range(len(words))]}
    if task == "question-answering":
        answer = {"text": INVENTED_WORDS[number + 1], "answer_start": context.rindex(INVENTED_WORDS[number + 1])}
        return {"id": str(number), "question": f"{text} ?", "context": context, "answers": [answer]}
    if task in ("summarization", "translation"):
        return {"text": context, "summary": text}
    return {"sentence1": context, "sentence2": text, "label": ["1", "2.5"][number % 2]}


def _answers(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """What the command printed, with the characters that tell the two texts apart made the same."""
    code, lines, err = command(capsys, *arguments)
    assert code == 0, err
    return _alike(lines)


def _alike(printed: Any) -> Any:
    if isinstance(printed, dict):
        return {key: _alike(value) for key, value in printed.items()}
    if isinstance(printed, list):
        return [_alike(value) for value in printed]
    return re.sub("[A-Z]", "z", printed.translate(_BRACKETS)) if isinstance(printed, str) else printed


@pytest.mark.parametrize("verb", ["detect", "embed", "generate", "corrupt"])
def test_a_pretrained_run_answers_both_alike(run: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert _answers(capsys, "predict", verb, TYPED, "--model", run) == _answers(
        capsys, "predict", verb, PLAIN, "--model", run
    )


def test_fill_reads_the_mask_token_alone(tiny_run: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    typed, plain = (
        command(capsys, "predict", "fill", f"the {text} [MASK] sees {text}", "--model", tiny_run())[1][0]
        for text in ("[SEP] [CLS]", "{zz} {zzz}")
    )
    assert [mask["candidates"] for mask in typed["masks"]] == [mask["candidates"] for mask in plain["masks"]]
    assert [(mask["start"], mask["end"]) for mask in typed["masks"]] == [(16, 22)]
    code, _, err = command(capsys, "predict", "fill", "the [SEP] dog", "--model", tiny_run())
    assert code == 2
    assert "holds no [MASK]" in err


def test_acceptability_scores_both_alike(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for text in (TYPED, PLAIN):
        names = {"UID": "u", "linguistics_term": "l", "field": "f"}
        pairs = [
            names | {"sentence_good": f"{text} bak", "sentence_bad": f"{text} {word}"} for word in INVENTED_WORDS[1:9]
        ]
        (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
        printed.append(_answers(capsys, "evaluate", "blimp", "--model", run, "--data", tmp_path / "pairs.jsonl"))
    assert printed[0] == printed[1]


@pytest.mark.parametrize(
    ("task", "verb"),
    [
        ("classification", "classify"),
        ("regression", "regress"),
        ("tagging", "tag"),
        ("question-answering", "answer"),
        ("summarization", "summarize"),
    ],
)
def test_a_fine_tuned_model_learns_scores_and_answers_both_alike(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, verb: str
) -> None:
    results = []
    for name, text in (("typed", TYPED), ("plain", PLAIN)):
        rows = [json.dumps(_example(task, text, number)) for number in range(8)]
        data, out = tmp_path / name / "data.jsonl", tmp_path / name / "out"
        data.parent.mkdir()
        data.write_text("\n".join(rows))
        target = ["--decoder", "generator"] if task == "summarization" else []
        _answers(
            capsys, "finetune", task, "--model", run, "--train", data, "--validation", data, "--output", out,
            "--training.epochs", "1", "--training.batch-rows", "4", "--training.precision", "float32",
            "--allow-unknown", *target,
        )  # fmt: skip
        losses = [json.loads(line).get("loss") for line in (out / "metrics.jsonl").read_text().splitlines()]
        scored = _answers(capsys, "evaluate", task, "--model", out, "--data", data)[0]["scores"]
        results.append((losses, scored, _answers(capsys, "predict", verb, "--model", out, "--input", data)))
    assert any(results[0][0])
    assert results[0] == results[1]


def test_no_other_place_calls_a_tokenizer() -> None:
    for path in Path(electrain.__file__).parent.rglob("*.py"):
        calls = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
        found = [ast.unparse(call) for call in calls if ast.unparse(call.func).endswith("tokenizer") and call.args]
        direct = [call for call in found if call.split("(")[0].split(".")[-1].removeprefix("target_") == "tokenizer"]
        assert not direct or path.name == "plain_text.py", f"{path}: {direct}; use electrain.data.tokenizer.plain_text"


def test_pairs_and_words_of_any_tokenizer() -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "[", "]", "sep", "mask"]
    tokenizer = wrap(word_piece_tokenizer({token: number for number, token in enumerate(tokens)}, cased=False))
    (pair,) = encode_plain(tokenizer, ["a [SEP]"], ["[MASK] a"]).encodings or []
    assert pair.tokens == ["[CLS]", "a", "[", "sep", "]", "[SEP]", "[", "mask", "]", "a", "[SEP]"]
    words = encode_plain(tokenizer, [["a", "[SEP]"]], is_split_into_words=True, add_special_tokens=False)
    assert words.word_ids(0) == [0, 1, 1, 1]
    (masked,) = tokenize_texts(tokenizer, ["a [SEP] [MASK]"], reads_masks=True)
    assert tokenizer.convert_ids_to_tokens(masked.token_ids) == ["a", "[", "sep", "]", "[MASK]"]
    (plain,) = tokenize_texts(tokenizer, ["a [MASK]"])
    assert tokenizer.mask_token_id not in plain.token_ids
    assert tokenizer("[MASK]", add_special_tokens=False)["input_ids"] == [tokenizer.mask_token_id]


def test_a_decoders_end_of_text_is_plain_in_a_target() -> None:
    letters = {letter: number for number, letter in enumerate(sorted(set("<|endoftext|>")))}
    tokenizer = GPT2TokenizerFast(vocab={**letters, "<|endoftext|>": len(letters)}, merges=[])
    (ids,) = plain_ids(tokenizer, ["<|endoftext|>"])
    assert tokenizer.eos_token_id not in ids
    assert len(ids) == len("<|endoftext|>")


@pytest.mark.parametrize("verb", ["detect", "embed", "generate", "corrupt"])
def test_a_text_is_cleaned_as_in_pretraining(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """Half of a surrogate pair, which JSON can hold and no tokenizer takes, is dropped as pretraining drops it."""
    answers = []
    for text in (r"bak fil\ud800\u200b   gom", "bak fil gom"):
        (tmp_path / "texts.jsonl").write_text('{"text": "' + text + '"}\n')
        (answer,) = _answers(capsys, "predict", verb, "--input", tmp_path / "texts.jsonl", "--model", run)
        for token in answer.get("tokens", []) if verb == "detect" else []:
            del token["start"], token["end"]  # they count the characters of the text as given
        answers.append({name: value for name, value in answer.items() if name != "text"})
    assert answers[0] == answers[1]
