"""Which spellings are one label, what stands for a missing one, and several labels in one row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import command, refuse
from electrain.data.labelled.columns import Columns
from electrain.data.labelled.label_spelling import label_text, spelling_key
from electrain.data.labelled.labels import in_spelling_of
from electrain.finetuning.configuration import ExamplesConfig
from electrain.finetuning.examples import read_all
from electrain.foundation.errors import DataError
from labelled_files import jsonl, read, written

ODD = ["very good", " very  good", 0, "0", 0.0, "0.0", True, "true", "True", "\u00e9", "e\u0301", "None"]


def labels_of(path: Path, values: list[Any], **options: Any) -> list[tuple[str, ...]]:
    rows = [{"text": f"t{number}", "label": value} for number, value in enumerate(values)]
    return [example.labels for example in read(written(path, jsonl(rows)), **options)]


def test_spellings_of_one_label_are_joined_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = labels_of(tmp_path / "a.jsonl", ODD)
    expected = [*["very good"] * 2, *["0"] * 4, *["true"] * 3, "\u00e9", "\u00e9", "None"]
    assert [label for (label,) in found] == expected
    none, joined = capsys.readouterr().err.splitlines()
    assert 'different spellings are one label: "very good" = " very  good"; 0 = "0" = 0.0 = "0.0"; ' in joined
    assert '; true = "true" = "True"; "\u00e9" = "e\\u0301"' in joined
    assert '"None" (1 row) in "label" is read as a label' in none


def test_labels_of_one_spelling_are_left_alone_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for values in (["True", "False"], ["1.0", "2.0"], ["e\u0301", "a"], [1.0, 2.0], ["a", "A"], ["1", "01"]):
        found = labels_of(tmp_path / "a.jsonl", values)
        assert len(set(found)) == 2
        assert [label for (label,) in found] == list(map(label_text, values))
    assert capsys.readouterr().err == ""


def test_labels_that_look_alike_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for values, shown in (
        (["pos", "Pos", "pos", "neg"], '"pos" (2), "Pos" (1)'),
        (["1", "2", "\uff11"], '"1" (1), "\uff11" (1)'),
        (["\u2764", "\u2764\ufe0f"], '"\u2764" (1), "\\u2764\\ufe0f" (1)'),
        ([*["a"] * 40, *["A"] * 4, "b"], '"a" (40), "A" (4)'),
        ([*["it"] * 400, *["IT"] * 4, "b"], '"it" (400), "IT" (4)'),
        ([*["it"] * 40, *["IT"] * 20, "b"], ""),  # the pronoun and the trade
        ([*["a"] * 40, *["A"] * 5, "b"], ""),
    ):
        assert len({label for (label,) in labels_of(tmp_path / "a.jsonl", values)}) == len(set(values))
        err = capsys.readouterr().err
        assert err.count("\n") == bool(shown)
        assert (f"labels that look alike stay different: {shown}\n" if shown else "") in err


@pytest.mark.parametrize("value", [None, "", " \u00a0", float("nan")])
def test_a_missing_label_is_told_with_its_line(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match=r'a.jsonl:3: no label in "label"; fix or remove this row'):
        labels_of(tmp_path / "a.jsonl", ["x", value, "y"])
    assert labels_of(tmp_path / "a.jsonl", ["x", value, "y"], skip_broken=True) == [("x",), ("y",)]


@pytest.mark.parametrize("text", ["None", "nan", "NaN", "<NA>", "null"])
@pytest.mark.parametrize("others", [["1", "0"], ["1.0", "-2.5"], ["True", "False"]])
def test_what_pandas_writes_for_a_missing_number_is_missing(tmp_path: Path, text: str, others: list[str]) -> None:
    with pytest.raises(DataError, match=rf'a.jsonl:5: no label in "label" \("{text}" stands for none\)'):
        labels_of(tmp_path / "a.jsonl", [*others, text])
    assert len(labels_of(tmp_path / "a.jsonl", [*others, text], skip_broken=True)) == 2


@pytest.mark.parametrize("values", [["NA", 0, 1], ["N/A", "0", "1"], ["#N/A", "true", "false"]])
def test_what_r_and_spreadsheets_write_is_missing_among_numbers(tmp_path: Path, values: list[Any]) -> None:
    with pytest.raises(DataError, match=r'a.jsonl:1: no label in "label" \(".*" stands for none\)'):
        labels_of(tmp_path / "a.jsonl", values)


@pytest.mark.parametrize(
    "values",
    [
        [[0, 1, 0], [1, 0, 0]],
        [[0.0, 1.0], [1.0, 1.0]],
        ["[0 1 0]", "[1 0 0]"],
        ["[0. 1.]", "[1. 1.]"],
        ["[1, 0]", "[1, 1]"],
    ],
)
def test_lists_with_a_place_for_each_label_are_no_lists_of_labels(tmp_path: Path, values: list[Any]) -> None:
    with pytest.raises(DataError, match=r'a.jsonl:1: the lists in "label" hold 0 or 1 for each of [23] labels'):
        labels_of(tmp_path / "a.jsonl", values)


def test_lists_of_numbers_that_name_labels_are_read(tmp_path: Path) -> None:
    assert labels_of(tmp_path / "a.jsonl", [[0], [1]]) == [("0",), ("1",)]
    assert labels_of(tmp_path / "a.jsonl", [[0, 1], [1], []]) == [("0", "1"), ("1",), ()]
    assert labels_of(tmp_path / "a.jsonl", [[0, 2], [1, 0]]) == [("0", "2"), ("1", "0")]


def test_json_in_a_field_is_no_label(tmp_path: Path) -> None:
    values = ['{"choices":["a","b"]}', "a", "b"]  # Label Studio's .csv
    with pytest.raises(DataError, match=r'a.jsonl:1: "label" holds JSON \({"choices":\["a","b"\]}\), not a label'):
        labels_of(tmp_path / "a.jsonl", values)
    assert labels_of(tmp_path / "a.jsonl", values, skip_broken=True) == [("a",), ("b",)]


def test_characters_that_cannot_be_seen_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels_of(tmp_path / "a.jsonl", ["very good", "very\u00a0good", "bad"])
    assert '"very good" = "very\\u00a0good"' in capsys.readouterr().err


def test_spaces_around_a_separator_are_no_other_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = labels_of(tmp_path / "a.jsonl", ["a / b", "b / a", "b"], columns=Columns(label_separator="/"))
    assert found == [("a", "b"), ("b", "a"), ("b",)]
    assert capsys.readouterr().err == ""


def test_none_among_texts_is_a_label_and_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert labels_of(tmp_path / "a.jsonl", ["mild", "None", "nan"]) == [("mild",), ("None",), ("nan",)]
    err = capsys.readouterr().err
    assert '"None" (1 row), "nan" (1 row) in "label" is read as a label; leave the cell empty' in err
    assert labels_of(tmp_path / "a.jsonl", ["mild", "none", "NA"]) == [("mild",), ("none",), ("NA",)]
    assert capsys.readouterr().err == ""


def test_a_set_without_labels_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'a.jsonl:1: no label in "label": no row has a label; give data with labels'):
        labels_of(tmp_path / "a.jsonl", [None, None])


def test_labels_take_the_spelling_that_the_model_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = read(written(tmp_path / "a.csv", "text,label\nt,1\n"))
    assert in_spelling_of([example], ["1", "0.0"], "validation") == [example]
    assert capsys.readouterr().err == ""
    assert in_spelling_of([example], ["1.0", "0.0"], "validation")[0].labels == ("1.0",)
    assert 'of the validation data are read in the spelling of training: "1" as "1.0"' in capsys.readouterr().err
    assert spelling_key("-0.0") == spelling_key("0")


@pytest.mark.parametrize("separator", [";", "|", ","])
def test_joined_labels_are_found_out(tmp_path: Path, separator: str) -> None:
    with pytest.raises(DataError, match="look joined by"):
        labels_of(tmp_path / "a.jsonl", [f"food{separator}price", "food", "price"])
    values = [f"food{separator}service", "food", f"service {separator} price", ""]
    with pytest.raises(DataError) as caught:
        labels_of(tmp_path / "a.jsonl", values)
    shown = f'look joined by "{separator}" (as in "food{separator}service"); give --data.label-separator "{separator}"'
    assert shown in str(caught.value)
    assert "\n" not in str(caught.value)
    found = labels_of(tmp_path / "a.jsonl", values, columns=Columns(label_separator=separator))
    assert found == [("food", "service"), ("food",), ("service", "price"), ()]
    found = labels_of(tmp_path / "a.jsonl", values[:3], columns=Columns(label_separator="none"))
    assert [len(one) for one in found] == [1, 1, 1]


@pytest.mark.parametrize(
    "values",
    [
        ["Science, Technology", "Arts, Culture", "Sports"],
        ["Sport|Football", "Sport|Tennis", "Politics|EU", "Politics|US"],
        ["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Member(e1,e2)", "Member(e2,e1)", "Other"],
        ["a;b", "a"],
        ["a;b", "c", "d"],
    ],
)
def test_names_with_separators_are_one_label(
    tmp_path: Path, values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert labels_of(tmp_path / "a.jsonl", values) == [(value,) for value in values]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", ["['a', 'b']", '["a", "b"]', "['a' 'b']", "['a', 'b',]"])
def test_lists_as_texts_are_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    assert labels_of(tmp_path / "a.jsonl", [form, "[]", "['b']"]) == [("a", "b"), (), ("b",)]
    assert 'the lists in "label" are written as text' in capsys.readouterr().err
    hostile = "[" + "1" * 5000 + "'" * 5001
    assert labels_of(tmp_path / "b.jsonl", [hostile, "x"]) == [(hostile,), ("x",)]
    assert labels_of(tmp_path / "b.jsonl", ["[1, 2]", "[2]"]) == [("1", "2"), ("2",)]
    assert labels_of(tmp_path / "b.jsonl", [form, "x"]) == [(form,), ("x",)]
    assert labels_of(tmp_path / "b.jsonl", [["a", "b"], [], ["b"]]) == [("a", "b"), (), ("b",)]


COLUMNS = ",id,text,toxic,insult,threat\n0,7,t,1,0,0\n1,8,u,0,0,0\n2,9,v,1,1,0\n3,9,w,0,0,1\n"


@pytest.mark.parametrize("one", ["1", "1.0", "True"])
def test_columns_of_0_and_1_are_labels_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], one: str) -> None:
    zero = {"1": "0", "1.0": "0.0", "True": "False"}[one]
    lines = [line.split(",") for line in COLUMNS.splitlines()]
    rows = [[*line[:3], *({"1": one, "0": zero}.get(cell, cell) for cell in line[3:])] for line in lines]
    path = written(tmp_path / "a.csv", "\n".join(map(",".join, rows)) + "\n")
    found = read(path)
    assert [example.labels for example in found] == [("toxic",), (), ("toxic", "insult"), ("threat",)]
    assert "the labels are the columns of 0 and 1: toxic, insult, threat" in capsys.readouterr().err
    found = read(path, columns=Columns(label="threat, toxic"))
    assert [example.labels for example in found] == [("toxic",), (), ("toxic",), ("threat",)]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("cell", "message"), [("2", '"threat" holds "2"; a column for each label holds 0 or 1'), ("", "holds nothing")]
)
def test_a_cell_that_is_neither_0_nor_1_is_told(tmp_path: Path, cell: str, message: str) -> None:
    path = written(tmp_path / "a.csv", COLUMNS + f"4,5,x,0,1,{cell}\n")
    with pytest.raises(DataError, match="cannot guess which column holds the label"):
        read(path)
    with pytest.raises(DataError, match=f"a.csv:6: .*{message}"):
        read(path, columns=Columns(label="toxic,insult,threat"))
    with pytest.raises(DataError, match=r'no column "insolt" .*; did you mean "insult"\?'):
        read(path, columns=Columns(label="toxic,insolt"))


WORDS = {"cats": ["the cat", "cats see a cat"], "dogs": ["a dog", "dogs saw the dog"], "": ["who is happy", "the sad"]}


def test_several_labels_from_training_to_prediction(
    tiny_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(text, label == "cats", label == "dogs") for label, texts in WORDS.items() for text in texts]
    table = "".join(f"{text},{int(cats)},{int(dogs)}\n" for text, cats, dogs in [*rows, ("the cat sees a dog", 1, 1)])
    joined = "".join(
        f"{text}\t{'|'.join(name for name, has in (('cats', cats), ('dogs', dogs)) if has)}\n"
        for text, cats, dogs in [*rows, ("the cat sees a dog", 1, 1)]
    )
    files = {
        "a.csv": ("text,cats,dogs\n" + table, []),
        "a.tsv": ("text\tlabel\n" + joined, ["--data.label-separator", "|"]),
    }
    for name, (content, options) in files.items():
        path, output = written(tmp_path / name, content), tmp_path / f"out-{name}"
        data = ["--train", path, "--validation", path, "--output", output]
        more = [*options, "--training.epochs", 30, "--training.precision", "float32"]
        code, (result,), err = command(capsys, "finetune", "classification", "--model", tiny_run(), *data, *more)
        assert code == 0, err
        assert set(result["scores"]) >= {"exact_match", "f1_micro", "f1_macro"}
        settings = json.loads((output / "model" / "task.json").read_text())
        assert (settings["labels"], settings["has_many"]) == (["cats", "dogs"], True)
        code, (scored,), err = command(capsys, "evaluate", "classification", "--model", output, "--data", path)
        assert code == 0, err
        assert scored["scores"] == pytest.approx(result["scores"], abs=1e-3)
        code, answers, _ = command(capsys, "predict", "classify", "--model", output, "--input", path)
        assert code == 0
        for answer in answers:
            chances = answer["probabilities"]
            assert answer["labels"] == [label for label in ("cats", "dogs") if chances[label] >= 0.5]
    line = "finetune regression --model x --train y --validation y --output z --data.label-separator ;"
    message = refuse(line.split(), capsys)
    assert "regression does not read it, only classification" in message


def test_a_separator_means_several_labels_though_each_training_text_has_one(tmp_path: Path) -> None:
    train = written(tmp_path / "a.tsv", "text\tlabel\nt\ta\nu\tb\n")
    validation = written(tmp_path / "b.tsv", "text\tlabel\nt\ta;b\nu\t\n")
    config = ExamplesConfig(label_separator=";")
    examples = read_all("classification", config, [str(train)], [str(validation)], 0)
    assert (examples.has_many, examples.labels) == (True, ("a", "b"))
    assert [example.labels for example in examples.validation] == [("a", "b"), ()]
    with pytest.raises(DataError, match="label"):
        read_all("classification", ExamplesConfig(), [str(train)], [str(validation)], 0)


def test_columns_mean_several_labels_though_each_training_text_has_one(tmp_path: Path) -> None:
    train = written(tmp_path / "a.csv", "text,toxic,insult\nt,1,0\nu,0,1\n")
    validation = written(tmp_path / "b.csv", "text,toxic,insult\nt,1,1\nu,0,0\n")
    for named in ("toxic, insult", ""):  # "": found out
        config = ExamplesConfig(label_column=named)
        examples = read_all("classification", config, [str(train)], [str(validation)], 0)
        assert examples.has_many
        assert [example.labels for example in examples.validation] == [("toxic", "insult"), ()]
