"""Tables that are written otherwise than their name says are found out, and read with one option."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command_line import command, refuse
from electrain.data.labelled.columns import Columns
from electrain.data.text.corpus import CorpusCounts, CorpusFormat, read_documents
from electrain.data.text.delimited import DialectError
from electrain.foundation.errors import DataError
from labelled_files import read, written

QUOTED = {
    "doubled quotes": 'sentence\tlabel\nplain\tneg\n"a ""quoted"" word"\tpos\n',
    "only quotes": 'sentence\tlabel\n""""\tneg\nplain\tpos\n',
    "a line break": 'sentence\tlabel\n"two\nlines"\tpos\nplain\tneg\n',
    "a tab": 'sentence\tlabel\n"a\ttab"\tpos\nplain\tneg\n',
    "everything": '"sentence"\t"label"\n"plain"\t"pos"\n"other"\t"neg"\n',
}
RAW = {
    "lone quotes": 'sentence\tlabel\n"not closed\tneg\nshe said "no"\tneg\n"\tneg\nalso "fine\tpos\n',
    "speech over rows": 'sentence\tlabel\n"I am here.\tpos\nYou are."\tneg\n',
    "whole quotes": 'sentence\tlabel\n"To be or not to be"\tpos\nplain\tneg\n',
    "quotes at both ends": 'sentence\tlabel\n"Hello," she said. "Bye."\tpos\nplain\tneg\n',
}


@pytest.mark.parametrize("case", QUOTED)
def test_a_quoted_tsv_is_found_out(tmp_path: Path, case: str) -> None:
    path = written(tmp_path / "a.tsv", QUOTED[case])
    with pytest.raises(DialectError, match=r"this TSV is quoted as CSV is; give --data\.quoting csv") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    rows = list(csv.DictReader(io.StringIO(QUOTED[case]), delimiter="\t"))
    found = read(path, columns=Columns(quoting="csv"))
    expected = [" ".join(row["sentence"].split()) for row in rows]
    assert [example.first for example in found] == expected
    assert [example.labels for example in found] == [(row["label"],) for row in rows]
    with pytest.raises(DataError, match="this TSV is quoted as CSV is; write it as"):
        list(read_documents([str(path)], CorpusFormat("sentence"), counts=CorpusCounts()))


@pytest.mark.parametrize("case", RAW)
def test_quotes_of_a_text_are_kept_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    path = written(tmp_path / "a.tsv", RAW[case])
    expected = [line.split("\t")[0] for line in RAW[case].splitlines()[1:]]
    assert [example.first for example in read(path)] == expected
    assert capsys.readouterr().err == ""
    assert [example.first for example in read(path, columns=Columns(quoting="none"))] == expected
    documents = read_documents([str(path)], CorpusFormat("sentence"), counts=CorpusCounts())
    assert [document.text for document in documents] == expected


def test_doubtful_quotes_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.tsv", 'text\tlabel\n"a ""b"""\tx\nc "d" e\ty\nf "g" h\tx\n')
    assert [example.first for example in read(path)] == ['"a ""b"""', 'c "d" e', 'f "g" h']
    assert "a.tsv:2: 1 field looks quoted as in CSV, and 2 do not" in capsys.readouterr().err
    path = written(tmp_path / "b.tsv", 'text\tlabel\n"a"\tx\n"b"\ty\n"c"\tx\n')
    assert [example.first for example in read(path)] == ['"a"', '"b"', '"c"']
    assert 'every field of "text" is in quotes' in capsys.readouterr().err


def test_what_takes_kept_quotes_off_is_an_option_of_the_verb(
    tiny_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = "the quick dogs saw the sad cat . the cats see a dog"
    path = written(tmp_path / "a.tsv", "text\tlabel\n" + f'"{known} . {known}"\tyes\n"{known}"\tno\n' * 4)
    output, kept = tmp_path / "out", f'{path}: every field of "text" is in quotes: the quotes are kept as they stand; '
    settings = ("--validation", path, "--output", output, "--training.epochs", 1, "--training.precision", "float32")
    for arguments, way_out in (
        (("finetune", "classification", "--model", tiny_run(), "--train", path, *settings), "--data.quoting csv"),
        (("evaluate", "classification", "--model", output, "--data", path), "--quoting csv"),
        (("predict", "classify", "--model", output, "--input", path), "--quoting csv"),
        (("predict", "embed", "--model", output / "model", "--input", path), "--quoting csv"),
    ):
        code, _, err = command(capsys, *arguments)
        assert code == 0, err
        assert f"{kept}{way_out} takes them off\n" in err
    list(read_documents([str(path)], CorpusFormat("text"), counts=CorpusCounts()))
    assert capsys.readouterr().err == f"{kept}to take them off, write it as .csv with commas, or as .jsonl\n"


TEXTS = st.text(st.sampled_from('ab"\n '), max_size=8).filter(str.strip)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_what_a_csv_library_writes_is_never_read_wrong_in_silence(tmp_path: Path, texts: list[str]) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter="\t").writerows([("sentence", "label"), *((one, "x") for one in texts)])
    path = written(tmp_path / "a.tsv", text.getvalue())
    expected = [" ".join(one.split()) for one in texts]
    assert [example.first for example in read(path, columns=Columns(quoting="csv"))] == expected
    try:
        found = [example.first for example in read(path)]
    except DialectError:
        found = expected
    assert found == expected


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("a.csv", "\ufeffText;Label\r\nschön, ruhig;gut\r\nnie wieder;schlecht\r\n", '";"'),
        ("a.csv", "Text\tLabel\nschön, ruhig\tgut\nnie wieder\tschlecht\n", "tab"),
        ("a.csv", 'Text|Label\n"schön, ruhig"|gut\nnie wieder|schlecht\n', '"|"'),
        ("a.tsv", "Text,Label\n schön ruhig,gut\nnie wieder,schlecht\n", '","'),
    ],
)
def test_another_separator_is_named(tmp_path: Path, name: str, content: str, shown: str) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(DialectError, match="one column named") as caught:
        read(path)
    message = str(caught.value)
    assert f"the separator seems to be {shown}; give --data.separator {shown}" in message
    assert "\ufeff" not in message
    found = read(path, columns=Columns(separator=shown.strip('"')))
    assert [example.first.replace(",", "") for example in found] == ["schön ruhig", "nie wieder"]
    assert [example.labels for example in found] == [("gut",), ("schlecht",)]


def test_one_column_may_hold_separators(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'text\na; b\nc\n""\n')
    assert [example.first for example in read(path, with_targets=False)] == ["a; b", "c", ""]


def test_the_separator_line_of_excel_is_no_header(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "sep=;\r\ntext;label\r\na, b;x\r\nc;y\r\n")
    assert [(example.first, example.source[-2:]) for example in read(path)] == [("a, b", ":3"), ("c", ":4")]


def test_a_decimal_comma_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text;score\na;3,5\n")
    with pytest.raises(DataError, match=r'a.csv:2: "score" holds "3,5" with a comma for a point, not a number'):
        read(path, "regression", Columns(separator=";"))


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff", "\ufeff\ufeff"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_line_ends_and_byte_order_marks_are_no_text(tmp_path: Path, name: str, mark: str, ending: str) -> None:
    separator = "," if name == "a.csv" else "\t"
    lines = [separator.join(row) for row in (("text", "label"), ("a", "x"), ("b", "y"))]
    found = read(written(tmp_path / name, mark + ending.join([*lines, ""])), columns=Columns("text"))
    assert [(example.first, *example.labels) for example in found] == [("a", "x"), ("b", "y")]


def test_what_training_was_told_evaluate_and_predict_know(
    tiny_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = "the quick dogs saw the sad cat . the cats see a dog"
    table = written(tmp_path / "a.tsv", "text;label\n" + f'the cat sees;yes\n"a ""dog"" sees; {known}";no\n' * 4)
    output = tmp_path / "out"
    arguments = ["--model", str(tiny_run()), "--train", str(table), "--validation", str(table), "--output", str(output)]
    capsys.readouterr()  # what making the run said
    message = refuse(["finetune", "classification", *arguments], capsys)
    assert 'give --data.separator ";"' in message
    options = ("--data.separator", ";", "--data.quoting", "csv", "--training.epochs", 1, "--training.precision")
    code, _, err = command(capsys, "finetune", "classification", *arguments, *options, "float32")
    assert code == 0, err
    code, (result,), err = command(capsys, "evaluate", "classification", "--model", output, "--data", table)
    assert code == 0, err
    assert result["examples"] == 8
    code, answers, err = command(capsys, "predict", "classify", "--model", output, "--input", table)
    assert code == 0, err
    assert answers[1]["text"] == f'a "dog" sees; {known}'
    other = written(tmp_path / "b.csv", "text\tlabel\nthe cat\tyes\n")
    message = refuse(["predict", "classify", "--model", str(output), "--input", str(other)], capsys)
    assert "the separator seems to be tab; give --separator tab" in message
    options = ("--separator", "tab", "--quoting", "none")
    code, answers, err = command(capsys, "predict", "classify", "--model", output, "--input", other, *options)
    assert (code, len(answers)) == (0, 1), err
    message = refuse(["finetune", "classification", *arguments, "--data.separator", "::"], capsys)
    assert "must be one character" in message


@pytest.mark.parametrize(
    ("content", "place"),
    [('text, label\na b, "x"\n', 2), ('text,label\nc,y\n"a, b",  "x, y"\n', 3), ('"text", "label"\n"a", "x"\n', 1)],
)
def test_a_space_before_a_quote_is_found_out(tmp_path: Path, content: str, place: int) -> None:
    with pytest.raises(DataError, match=rf'a.csv:{place}: a space stands before the quote of "') as caught:
        read(written(tmp_path / "a.csv", content))
    assert "remove the spaces behind the separators" in str(caught.value)


def test_spaces_and_quotes_of_a_text_are_read(tmp_path: Path) -> None:
    content = 'label,text\nx," ""Yes"", he said"\ny, "No" she said\nz, it is\nx," ""Yes"""\n'
    found = [example.first for example in read(written(tmp_path / "a.csv", content))]
    assert found == ['"Yes", he said', '"No" she said', "it is", '"Yes"']
