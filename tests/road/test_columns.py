"""Columns of labelled data are guessed where their names say enough, and asked for where they do not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from electrain.data.labelled.examples import PairedExample, TextExample
from electrain.data.labelled.reading import Columns, read_examples
from electrain.finetuning.configuration import ExamplesConfig
from electrain.finetuning.examples import read_all
from electrain.foundation.errors import DataError
from labelled_files import jsonl, read, written

QUESTION = {"id": "q", "question": "t", "context": "t", "answers": {"text": ["t"], "answer_start": [0]}}
GUESSES: dict[str, tuple[str, dict[str, Any], Columns]] = {
    "sst2": ("classification", {"idx": "1", "sentence": "t", "label": "0"}, Columns("sentence", "", "label")),
    "capitals": ("classification", {"Review Text": "t", "Review": "t", "Class": "a"}, Columns("Review", "", "Class")),
    "title": ("classification", {"label": "1", "title": "t", "content": "t"}, Columns("content", "", "label")),
    "only text": ("classification", {"id": "x", "frase": "t", "n": "12", "label": "0"}, Columns("frase", "", "label")),
    "pair": (
        "classification",
        {"premise": "t", "hypothesis": "t", "gold_label": "e"},
        Columns("premise", "hypothesis", "gold_label"),
    ),
    "qnli": (
        "classification",
        {"question": "t", "sentence": "t", "label": "e"},
        Columns("question", "sentence", "label"),
    ),
    "boolq": (
        "classification",
        {"question": "t", "answer": "y", "passage": "t"},
        Columns("question", "passage", "answer"),
    ),
    "wikiqa": (
        "classification",
        {"question": "t", "answer": "t", "label": "1"},
        Columns("question", "answer", "label"),
    ),
    "boolq with a context": (
        "classification",
        {"question": "t", "answer": "y", "context": "t"},
        Columns("question", "context", "answer"),
    ),
    "own pair": ("classification", {"text": "t", "pair": "t", "label": "e"}, Columns("text", "pair", "label")),
    "hub pair": ("regression", {"text": "t", "text_pair": "t", "score": 1}, Columns("text", "text_pair", "score")),
    "number beside": ("classification", {"text": "t", "evidence": 3, "label": "e"}, Columns("text", "", "label")),
    "intent": ("classification", {"utterance": "t", "intent": "i"}, Columns("utterance", "", "intent")),
    "stsb": (
        "regression",
        {"sentence1": "t", "sentence2": "t", "score": "1"},
        Columns("sentence1", "sentence2", "score"),
    ),
    "stars": ("regression", {"text": "t", "stars": 3, "label": 1, "score": 2}, Columns("text", "", "score")),
    "conll": ("tagging", {"words": ["t"], "tags": ["O"]}, Columns("words", "", "tags")),
    "hub ner": ("tagging", {"id": 1, "tokens": ["t"], "ner_tags": ["O"]}, Columns("tokens", "", "ner_tags")),
    "qa": ("question-answering", {"title": "t", **QUESTION}, Columns("question", "context", "answers")),
    "aeslc": (
        "summarization",
        {"email": "t", "subject": "t", "reference_subjects": ["r"]},
        Columns("email", "", "subject", "reference_subjects"),
    ),
    "cnn": ("summarization", {"id": "x", "highlights": "t", "article": "t"}, Columns("article", "", "highlights")),
    "dialogue": ("summarization", {"dialogue": "t", "summary": "t", "topic": "t"}, Columns("dialogue", "", "summary")),
    "languages": ("translation", {"id": "x", "de": "t", "en": "t"}, Columns("de", "", "en")),
    "hub translation": ("translation", {"translation": {"en": "t", "de": "t"}}, Columns("en", "", "de")),
    "classical": ("translation", {"classical": "t", "modern": "t", "n": "7"}, Columns("classical", "", "modern")),
}


@pytest.mark.parametrize("case", GUESSES)
def test_columns_are_guessed_and_can_be_given_again(tmp_path: Path, case: str) -> None:
    task, row, expected = GUESSES[case]
    path = written(tmp_path / "a.jsonl", jsonl([row]))
    found = read_examples(task, [str(path)], Columns())  # type: ignore[arg-type]
    assert found.columns == expected
    assert read_examples(task, [str(path)], found.columns) == replace(found, rivals=())  # type: ignore[arg-type]
    alone = read_examples(task, [str(path)], Columns(), with_targets=False)  # type: ignore[arg-type]
    if case != "wikiqa":  # without its label, the answer looks like one
        assert (alone.columns.text, alone.columns.pair) == (expected.text, expected.pair)
    assert (alone.columns.label, alone.columns.references) == ("", "")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Columns(text="en"), ("en", "de")),
        (Columns(text="de"), ("de", "en")),
        (Columns(label="en"), ("de", "en")),
        (Columns(text="fr", label="de"), ("fr", "de")),
    ],
)
def test_asked_columns_decide(tmp_path: Path, asked: Columns, expected: tuple[str, str]) -> None:
    row = {"en": "english", "de": "deutsch"} | ({"fr": "français"} if asked.text == "fr" else {})
    path = written(tmp_path / "a.jsonl", jsonl([row]))
    found = read_examples("translation", [str(path)], asked)
    assert (found.columns.text, found.columns.label) == expected
    assert found.examples == [PairedExample(row[expected[0]], row[expected[1]], source=f"{path}:1")]
    if asked.text:
        assert read(path, "translation", asked, with_targets=False)[0].text == row[expected[0]]


def test_asked_columns_decide_against_usual_names(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", jsonl([{"article": "long", "highlights": "short"}]))
    assert read(path, "summarization", Columns(text="highlights")) == [
        PairedExample("short", "long", source=f"{path}:1")
    ]
    path = written(tmp_path / "b.tsv", "text\tlabel\tverdict\na\tx\ty\n")
    assert read(path, columns=Columns(label="verdict")) == [TextExample("a", labels=("y",), source=f"{path}:2")]


def test_a_given_text_stands_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", "sentence1\tsentence2\tlabel\na\tb\tx\n")
    assert read(path, columns=Columns(text="sentence2")) == [TextExample("b", None, ("x",), None, f"{path}:2")]


@pytest.mark.parametrize("seconds", [["1", "2"], ["", ""], [None, None]], ids=["numbers", "blank", "none"])
def test_a_usual_second_text_without_text_is_left_out(tmp_path: Path, seconds: list[str | None]) -> None:
    rows = [{"text": "bak", "pair": seconds[0], "label": "x"}, {"text": "bal", "pair": seconds[1], "label": "y"}]
    path = written(tmp_path / "a.jsonl", jsonl(rows))
    assert [(one.first, one.second) for one in read(path)] == [("bak", None), ("bal", None)]
    if seconds[0]:
        assert read(path, columns=Columns(text="text", pair="pair"))[0].second == "1"


def test_a_third_text_beside_a_usual_pair_is_said_to_be_unread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "a.jsonl", jsonl([{"query": "q", "context": "c", "response": "r", "label": "x"}]))
    assert read(path)[0].second == "c"
    told = f'{path}: the text is read from "query" and "context" alone, not from response\n'
    assert capsys.readouterr().err == told


def test_columns_that_may_hold_more_of_the_text_are_said_to_be_unread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"content": "t", "title": "t", "context": "t", "author": "t", "label": "x"}
    path = written(tmp_path / "a.jsonl", jsonl([row]))
    read(path, columns=Columns(text="content"))
    assert capsys.readouterr().err == f'{path}: the text is read from "content" alone, not from context\n'
    path = written(tmp_path / "b.jsonl", jsonl([{**row, "context": None}]))
    read(path)
    assert capsys.readouterr().err == f'{path}: the text is read from "content" alone, not from title\n'
    read(path, with_targets=False)
    read(path, columns=Columns(text="content", pair="title"))
    assert capsys.readouterr().err == ""


IMPOSSIBLE: dict[str, tuple[str, dict[str, Any], Columns, str]] = {
    "no label": (
        "classification",
        {"text": "t", "verdict": "x"},
        Columns(),
        r"holds the label; the columns are text, verdict; set --data.label-column",
    ),
    "second text": (
        "classification",
        {"review": "t", "Sentence 2": "t", "label": "x"},
        Columns(),
        r"Sentence 2 could be a second text beside review; the columns are review, Sentence 2, label; "
        r"set --data.pair-column 'Sentence 2' to read both, or --data.text-column review to read that alone",
    ),
    "no text": (
        "classification",
        {"label": "x", "p": "t", "q": "t"},
        Columns(),
        r"holds the text; the columns are label, p, q; set --data.text-column",
    ),
    "two texts": (
        "classification",
        {"text": "t", "review": "t", "label": "x"},
        Columns(),
        r"text or review could be the text; .* set --data.text-column",
    ),
    "two pairs": (
        "classification",
        {"premise": "t", "hypothesis": "t", "sentence1": "t", "sentence2": "t", "label": "x"},
        Columns(),
        r"sentence1 with sentence2 or premise with hypothesis .*--data.text-column and --data.pair-column",
    ),
    "two tags": (
        "tagging",
        {"tokens": ["t"], "pos_tags": ["N"], "ner_tags": ["O"]},
        Columns(),
        r"pos_tags or ner_tags could be the tags; .* set --data.label-column",
    ),
    "three languages": (
        "translation",
        {"en": "t", "de": "t", "fr": "t"},
        Columns(),
        r"the columns are en, de, fr; set --data.text-column and --data.label-column",
    ),
    "one language": (
        "translation",
        {"en": "t", "de": "t", "fr": "t"},
        Columns("en"),
        r"holds the other text; .*; set --data.label-column",
    ),
    "two references": (
        "summarization",
        {"text": "t", "summary": "t", "reference_a": ["r"], "references": ["r"]},
        Columns(),
        r"set --data.references-column",
    ),
    "no context": (
        "question-answering",
        {"question": "t", "answers": []},
        Columns(),
        r"holds the context; .* set --data.pair-column",
    ),
    "misspelt": (
        "classification",
        {"sentence": "t", "label": "x"},
        Columns("sentense"),
        r'no column "sentense" for --data.text-column; did you mean "sentence"\? the columns are sentence, label',
    ),
    "misspelt references": (
        "summarization",
        {"text": "t", "summary": "t"},
        Columns(references="others"),
        r'no column "others" for --data.references-column',
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_columns_that_cannot_be_guessed_are_asked_for(tmp_path: Path, case: str) -> None:
    task, row, columns, message = IMPOSSIBLE[case]
    with pytest.raises(DataError, match=message) as caught:
        read(written(tmp_path / "a.jsonl", jsonl([row])), task, columns)
    assert "\n" not in str(caught.value)


def test_a_second_label_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fine-tuning says it once, of the training file."""
    path = written(tmp_path / "a.csv", "text,category,label,n\nt,a,x,1\nu,b,y,2\n")
    for data, said in (({}, True), ({"label_column": "category"}, False)):
        read_all("classification", ExamplesConfig(**data), [str(path)], [str(path)], 0)
        line = f'{path}: the label is read from "label", not from category; --data.label-column names another\n'
        assert capsys.readouterr().err == (line if said else "")
    path = written(tmp_path / "b.csv", "text,label,score\nt,1,0.5\nu,0,0.1\n")
    read_all("regression", ExamplesConfig(), [str(path)], [str(path)], 0)
    assert 'from "score", not from label;' in capsys.readouterr().err
    path = written(tmp_path / "c.csv", "question,answer,label\nt,u,x\nv,w,y\n")
    read_all("classification", ExamplesConfig(), [str(path)], [str(path)], 0)
    assert capsys.readouterr().err == ""  # the answer is the second text


def test_both_flags_of_two_texts_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "context,response,label\nt,u,x\nv,w,y\n")
    way_out = r"set --data\.text-column, and --data\.pair-column to read a second text$"
    with pytest.raises(DataError, match=way_out):
        read_examples("classification", [str(path)], Columns())
    named = read_examples("classification", [str(path)], Columns("context", "response"))
    assert (named.examples[0].first, named.examples[0].second) == ("t", "u")
