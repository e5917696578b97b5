"""Each method of a fine-tuned predictor gives what `electrain predict` prints, and refuses what it does not read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest

import electrain
from command_line import command
from electrain.foundation.errors import ElectrainError
from electrain.inference.answers import answer_of

SENTENCES = ["the cat sees a dog .", "a dog saw the cats .", "who are the happy dogs ?", "the sad cat is quick ."]
ROWS: dict[str, list[dict[str, Any]]] = {
    "classification": [{"text": text, "label": str(number % 2)} for number, text in enumerate(SENTENCES)],
    "pairs": [{"first": text, "second": "a dog", "label": str(n % 2)} for n, text in enumerate(SENTENCES)],
    "many": [{"text": text, "label": ["a", "b"][: number % 3]} for number, text in enumerate(SENTENCES)],
    "regression": [{"text": text, "label": float(number)} for number, text in enumerate(SENTENCES)],
    "tagging": [
        {"words": text.split(), "tags": ["B-X", "I-X", *["O"] * (len(text.split()) - 2)]} for text in SENTENCES
    ],
    "question-answering": [
        {"id": str(n), "question": "who", "context": text, "answers": {"text": ["the"], "answer_start": [0]}}
        for n, text in enumerate(["the cat", "the dog saw a cat"])
    ],
    "unanswerable": [
        {"id": "0", "question": "who", "context": "the cat", "answers": {"text": ["cat"], "answer_start": [4]}},
        {"id": "1", "question": "who", "context": "a dog", "answers": {"text": [], "answer_start": []}},
    ],
    "summarization": [{"text": text, "summary": text.split()[1]} for text in SENTENCES],
}
PAIRS, QUESTIONS = ["the cat\ta dog", "the cat\tx"], ["who\tthe cat", "is\tthe cat"]
TASKS = {"pairs": "classification", "many": "classification", "unanswerable": "question-answering"}
MORE: dict[str, dict[str, Any]] = {
    "pairs": {"data": {"text_column": "first", "pair_column": "second"}},
    "question-answering": {"data": {"longest_tokens": 24, "window_overlap_tokens": 4}},
    "unanswerable": {"data": {"longest_tokens": 24, "window_overlap_tokens": 4}},
    "summarization": {"generation": {"longest_output_tokens": 4}},
}


@pytest.fixture(scope="module")
def tuned(tiny_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tuned(name)`: a model fine-tuned on the rows of that name."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("electrain.finetuning.report.write_report", lambda folder: folder / "report.html")
                made[name] = electrain.finetune(
                    TASKS.get(name, name),  # type: ignore[arg-type]
                    model=tiny_run(),
                    train=ROWS[name],
                    validation=ROWS[name],
                    output=tmp_path_factory.mktemp("tuned") / "run",
                    overrides={"training": {"epochs": 1, "precision": "float32"}, **MORE.get(name, {})},
                ).output
        return made[name]

    return make


@pytest.mark.parametrize(
    ("name", "verb", "ask", "lines"),
    [
        ("classification", "classify", lambda one: one.classify(["the cat", "", "a dog"]), ["the cat", "", "a dog"]),
        ("pairs", "classify", lambda one: one.classify(["the cat"] * 2, ["a dog", "x"]), PAIRS),
        ("many", "classify", lambda one: one.classify(["the cat", "a dog"]), ["the cat", "a dog"]),
        ("regression", "regress", lambda one: one.regress(("the cat", "")), ["the cat", ""]),
        ("tagging", "tag", lambda one: one.tag(["the cat saw", ["a", "dog"], ""]), ["the cat saw", "a dog", ""]),
        ("question-answering", "answer", lambda one: one.answer(["who", "is"], "the cat"), QUESTIONS),
        ("unanswerable", "answer", lambda one: one.answer(["who"], ["the cat"]), ["who\tthe cat"]),
        ("summarization", "summarize", lambda one: one.summarize(["the cat", "", "a"]), ["the cat", "", "a"]),
    ],
)  # fmt: skip
def test_answers_are_those_that_predict_prints(
    tuned: Callable[[str], Path],
    name: str,
    verb: str,
    ask: Callable[[electrain.Predictor], list[electrain.Answer]],
    lines: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    folder = tuned(name)
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    _, printed, err = command(capsys, "predict", verb, "--model", folder, "--input", tmp_path / "lines.txt")
    assert len(printed) == len(lines), err
    predictor = electrain.load(folder)
    assert verb == predictor.tasks[0]
    assert ("embed" in predictor.tasks) == (name != "summarization")
    answers = ask(predictor)
    assert [answer.to_dict() for answer in answers] == printed
    assert [answer_of(verb, record) for record in printed] == answers
    assert [answer.is_blank for answer in answers] == [not line.strip() for line in lines]
    assert all(str(answer) and repr(answer) for answer in answers if not answer.is_blank and verb != "summarize")


def test_one_text_gives_one_answer(tuned: Callable[[str], Path]) -> None:
    assert electrain.load(tuned("classification")).classify("the cat").label in ("0", "1")
    assert electrain.load(tuned("pairs")).classify("the cat", "a dog").pair == "a dog"
    assert isinstance(electrain.load(tuned("regression")).regress("the cat").value, float)
    assert electrain.load(tuned("tagging")).tag("the cat").words == ("the", "cat")
    assert electrain.load(tuned("question-answering")).answer("who", "the cat").answer is not None
    assert electrain.load(tuned("summarization")).summarize("the cat").text == "the cat"


@pytest.mark.parametrize(
    ("name", "call", "message"),
    [
        ("classification", lambda one: one.classify("a", "b"), "input 1: the model reads one text; give"),
        ("classification", lambda one: one.classify(["a"], ["b", "c"]), "pairs: 2 for 1 text; give one for each"),
        ("classification", lambda one: one.classify(["a"], "b"), "pairs: give one pair with one text, or a list"),
        ("classification", lambda one: one.detect("a"), "cannot detect; it can classify, embed"),
        ("pairs", lambda one: one.classify("a"), "the model reads pairs of texts, but one text is given"),
        ("pairs", lambda one: one.classify("a\tb"), "the model reads pairs of texts, but one text is given"),
        ("pairs", lambda one: one.ask("classify", [{"first": "a", "second": "b"}]), 'there is no key "first"'),
        ("pairs", lambda one: one.ask("classify", [{"text": "a"}]), 'has no "pair"'),
        ("tagging", lambda one: one.tag([["a", 3]]), '"words" holds .* no list of words'),
        ("tagging", lambda one: one.ask("tag", [{"words": "a b"}]), '"words" holds .* no list of words'),
        ("question-answering", lambda one: one.answer("who", ["the cat"]), "contexts: give one context with one"),
        ("question-answering", lambda one: one.ask("answer", ["who"]), "the model reads a question and its context"),
        ("question-answering", lambda one: one.answer(3, "the cat"), "questions: 3 is no text"),
        (
            "question-answering",
            lambda one: one.answer({"question": "who"}, "the cat"),
            "questions: a dict is one input",
        ),
        ("pairs", lambda one: one.classify({"text": "a"}, ["b"]), "texts: a dict is one input"),
        ("pairs", lambda one: one.classify(["a"], {"pair": "b"}), "pairs: a dict is one input"),
    ],
)
def test_what_the_model_does_not_read_is_refused(
    tuned: Callable[[str], Path], name: str, call: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(ElectrainError, match=message) as raised:
        call(electrain.load(tuned(name)))
    assert "\n" not in str(raised.value)


def test_a_mapping_is_one_input_and_a_table_none(tuned: Callable[[str], Path]) -> None:
    tagger = electrain.load(tuned("tagging"))
    assert tagger.tag({"words": ["bam", "fiv"]}) == tagger.tag([["bam", "fiv"]])[0]
    with pytest.raises(ElectrainError, match="a table is no list of texts"):
        tagger.tag(pandas.DataFrame({"text": ["bam fiv", "gok"]}))
    for text in (b"bam", numpy.array("bam")):
        with pytest.raises(ElectrainError, match="is no text"):
            tagger.tag(text)  # type: ignore[call-overload]
