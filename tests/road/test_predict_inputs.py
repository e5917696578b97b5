"""What `predict` reads from tables, JSON lines and columns of words: the right column, each empty cell, or one line."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import electrain
from command_line import command, refuse
from labelled_files import written

Runs = Callable[..., Path]
TITLES = "title\ttext\tlabel\n" + "the cat\ta dog sees\tyes\na dog\tthe cats see\tno\n" * 4
PAIRS = "premise\thypothesis\tlabel\n" + "the cat\ta dog sees\tyes\na dog\tthe cats see\tno\n" * 4
CONLL = "the O\ncat B-X\n\na O\ndog B-X\n"
QUESTION = {
    "id": "1",
    "question": "who sees?",
    "context": "the cat sees",
    "answers": [{"text": "cat", "answer_start": 4}],
}


@pytest.fixture(scope="module")
def tuned(tiny_run: Runs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models: "title" reads one text of two, "pair" reads pairs, "tag" tags words, "answer" answers."""
    from electrain.cli.app import main

    folder = tmp_path_factory.mktemp("tuned")
    made = {}
    for name, task, file, content, column in (
        ("title", "classification", "title.tsv", TITLES, "title"),
        ("semicolon", "classification", "semicolon.csv", TITLES.replace("\t", ";"), "title"),
        ("pair", "classification", "pair.tsv", PAIRS, ""),
        ("tag", "tagging", "tag.conll", CONLL * 4, ""),
        ("answer", "question-answering", "answer.jsonl", json.dumps(QUESTION), ""),
    ):
        examples, made[name] = str(written(folder / file, content)), folder / name
        with pytest.raises(SystemExit) as ended:
            main(
                ["finetune", task, "--model", str(tiny_run()), "--train", examples, "--validation", examples]
                + ["--output", str(made[name]), "--training.epochs", "1", "--training.precision", "float32"]
                + (["--data.text-column", column] if column else [])
                + (["--data.separator", ";", "--data.quoting", "csv"] if name == "semicolon" else [])
            )
        assert not ended.value.code
    return made


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[list[dict[str, Any]], str]]:
    """`ask(verb, model, name, content)`: the answers to a file of that name, and stderr."""

    def run(verb: str, model: Path, name: str, content: str | bytes, *more: str) -> tuple[list[dict[str, Any]], str]:
        path = written(tmp_path / name, content)
        capsys.readouterr()
        code, answers, err = command(capsys, "predict", verb, "--model", model, "--input", path, *more)
        assert code == 0, err
        return answers, err

    return run


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`refused(verb, model, name, content)`: the one line with which a file of that name is refused."""

    def run(verb: str, model: Path, name: str, content: str | bytes, *more: str) -> str:
        path = written(tmp_path / name, content)
        capsys.readouterr()
        return refuse(["predict", verb, "--model", str(model), "--input", str(path), *more], capsys)

    return run


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def test_an_empty_cell_is_an_empty_text_not_another_column(tuned: dict[str, Path], ask: Callable[..., Any]) -> None:
    answers, err = ask("classify", tuned["title"], "a.tsv", "title\ttext\nthe cat\tBODY 1\n\tBODY 2\na dog\tBODY 3\n")
    assert [answer["text"] for answer in answers] == ["the cat", "", "a dog"]
    assert answers[1] == {"text": ""}
    assert err == ""
    answers, _ = ask("classify", tuned["title"], "a.parquet", parquet([{"title": None, "text": "b"}, {"title": "a"}]))
    assert [answer["text"] for answer in answers] == ["", "a"]
    answers, _ = ask("classify", tuned["title"], "a.jsonl", '{"title": "", "text": "b"}\n{"title": null}\n')
    assert answers == [{"text": ""}, {"text": ""}]
    answers, _ = ask("classify", tuned["pair"], "a.csv", "premise,hypothesis\na cat,\na cat,a dog\n")
    assert [answer["text"] for answer in answers] == ["", "a cat"]
    answers, _ = ask("tag", tuned["tag"], "a.jsonl", '{"words": []}\n{"words": ["cat"]}\n')
    assert answers[0] == {"text": ""}


def test_other_columns_are_read_only_where_the_own_ones_are_not_there(
    tuned: dict[str, Path], ask: Callable[..., Any], refused: Callable[..., str]
) -> None:
    answers, err = ask("classify", tuned["title"], "a.csv", "sentence,n\nthe cat,1\n")
    assert [answer["text"] for answer in answers] == ["the cat"]
    assert "there is no title, which the model was trained on; sentence is read instead" in err
    assert err.count("\n") == 1
    answers, err = ask("classify", tuned["title"], "a.csv", "title,text\na,the cat\n", "--text-column", "text")
    assert [answer["text"] for answer in answers] == ["the cat"]
    assert err == ""
    message = refused("classify", tuned["title"], "a.csv", "sentence\nthe cat\n", "--text-column", "sentense")
    assert 'no column "sentense" for --text-column; did you mean "sentence"?' in message
    # A row that cannot be read is no reason to read another column.
    message = refused("classify", tuned["title"], "a.csv", "title,text\na cat,b\nc,d,e\n")
    assert "a.csv:3: 3 fields" in message
    assert "skip_broken" not in message


def test_a_second_text_that_the_model_does_not_read_is_said(
    tuned: dict[str, Path], ask: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = 'the text is read from "title" alone, not from pair\n'
    answers, err = ask("classify", tuned["title"], "a.tsv", "title\tpair\nthe cat\ta dog\n")
    assert [one["text"] for one in answers] == ["the cat"]
    assert err.endswith(f"a.tsv: {told}")
    answers, err = ask("classify", tuned["title"], "a.jsonl", json.dumps({"title": "the cat", "pair": "a dog"}) + "\n")
    assert [one["text"] for one in answers] == ["the cat"]
    assert err.endswith(f"a.jsonl:1: {told}")
    data = written(tmp_path / "b.tsv", "title\tpair\tlabel\nthe cat\ta dog\tyes\n")
    code, _, err = command(capsys, "evaluate", "classification", "--model", tuned["title"], "--data", data)
    assert code == 0, err
    assert f"b.tsv: {told}" in err
    _, err = ask("classify", tuned["pair"], "a.tsv", "premise\thypothesis\nthe cat\ta dog\n")
    assert "alone" not in err


def test_texts_without_a_known_word_are_said(
    tuned: dict[str, Path], tiny_run: Runs, ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def told(count: int, of: int) -> str:
        return f"warning: {count} of {of} texts hold no word of the model's vocabulary, only [UNK]; their answers say "

    lines = "\u03c9\u03c8 \u03be\n\n\u03c9\u03c8 the cat\n\u03be\nthe cat\n"
    for verb, model in (("classify", tuned["title"]), ("embed", tiny_run())):
        answers, err = ask(verb, model, "a.txt", lines)
        assert len(answers) == 5
        (line,) = [one for one in err.splitlines() if "[UNK]" in one]
        assert line.startswith(told(2, 4))
    answers, err = ask("classify", tuned["pair"], "a.txt", "\u03c9\u03c8\tthe cat\n\u03be\t\u03c9\n")
    assert told(1, 2) in err
    # Many texts are one call, and its one line comes at the end.
    answers, err = ask("embed", tiny_run(), "a.txt", "\u03c9\u03c8\n" * 3000)
    assert (len(answers), err.count("[UNK]"), told(3000, 3000).replace("3000", "3,000") in err) == (3000, 1, True)
    electrain.load(tiny_run()).embed(["\u03c9\u03c8", "the cat"])
    assert told(1, 2) in capsys.readouterr().err
    assert "[UNK]" not in ask("embed", tiny_run(), "a.txt", "the cat\n")[1]


def test_a_model_of_pairs_says_so(
    tuned: dict[str, Path], ask: Callable[..., Any], refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused("classify", tuned["pair"], "a.csv", "text\nthe cat\n")
    assert "the model reads pairs (premise and hypothesis), and only the texts in text are given" in message
    assert "name both with --text-column and --pair-column" in message
    message = refused("classify", tuned["pair"], "a.csv", "one,two\na,b\n", "--pair-column", "two")
    assert 'no column "premise", which training reads as the text' in message
    assert "name it with --text-column" in message
    message = refused("classify", tuned["pair"], "a.jsonl", '{"text": "the cat"}\n')
    assert 'the model reads pairs, but there is no field "pair"' in message
    message = refuse(["predict", "classify", "the cat", "--model", str(tuned["pair"])], capsys)
    assert "the model reads pairs (premise and hypothesis); write a tab between them" in message
    message = refused("classify", tuned["title"], "a.csv", "premise,hypothesis\nthe cat,a dog\n")
    assert "the model reads one text; choose premise or hypothesis with --text-column" in message
    named = ("--text-column", "one", "--pair-column", "two")
    for name, content in (("a.csv", "one,two\na cat,a dog\n"), ("a.ndjson", '{"one": "a cat", "two": "a dog"}\n')):
        answers, _ = ask("classify", tuned["pair"], name, content, *named)
        assert [(answer["text"], answer["pair"]) for answer in answers] == [("a cat", "a dog")]


TABLES = {
    "a.csv": 'id,text\n1,"the cat, it"\n2,\n',
    "a.tsv": "id\ttext\n1\tthe cat, it\n2\t\n",
    "a.parquet": parquet([{"id": 1, "text": "the cat, it"}, {"id": 2, "text": None}]),
    "a.jsonl": '{"id": 1, "text": "the cat, it"}\n{"id": 2, "text": null}\n',
    "a.ndjson": '{"id": 1, "text": "the cat, it"}\n{"id": 2, "text": ""}\n',
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("verb", ["embed", "detect"])
def test_pretrained_models_read_the_column_of_a_table(
    tiny_run: Runs, ask: Callable[..., Any], verb: str, name: str
) -> None:
    answers, err = ask(verb, tiny_run(), name, TABLES[name])
    assert [answer["text"] for answer in answers] == ["the cat, it", ""]
    assert err == ""


def test_a_column_with_another_name_is_said_or_named(
    tiny_run: Runs, ask: Callable[..., Any], refused: Callable[..., str]
) -> None:
    answers, err = ask("fill", tiny_run(), "a.csv", "n,review\n1,the [MASK]\n")
    assert [answer["text"] for answer in answers] == ["the [MASK]"]
    assert 'the texts are read from the column "review"' in err
    for name, content in (("a.csv", "a,text\nthe cat,x\n"), ("a.jsonl", '{"a": "the cat", "text": "x"}\n')):
        answers, err = ask("embed", tiny_run(), name, content, "--text-column", "a")
        assert ([answer["text"] for answer in answers], err) == (["the cat"], "")
    message = refused("embed", tiny_run(), "a.csv", "premise,hypothesis\nthe cat,a dog\n")
    assert "premise or hypothesis could be the text; choose one with --text-column" in message
    message = refused("embed", tiny_run(), "a.csv", "x,y\nthe cat,a dog\n")
    assert "set --text-column" in message
    message = refused("embed", tiny_run(), "a.parquet", parquet([{"text": 3}]))
    assert 'row 0: "text" holds int, not text' in message
    message = refused("embed", tiny_run(), "a.txt", "the cat\n", "--text-column", "a")
    assert "name columns of a table" in message


@pytest.mark.parametrize("verb", ["embed", "detect", "classify"])
def test_files_that_are_no_texts_are_refused(
    tiny_run: Runs, tuned: dict[str, Path], refused: Callable[..., str], verb: str
) -> None:
    model = tuned["title"] if verb == "classify" else tiny_run()
    assert ".jsonl" in refused(verb, model, "a.json", json.dumps([{"text": "the cat"}], indent=1))
    assert "CoNLL" in refused(verb, model, "a.txt", CONLL)
    assert ".conll" in refused(verb, model, "b.conll", CONLL)
    assert "is a spreadsheet" in refused(verb, model, "a.xlsx", b"PK\x03\x04\x14\x00\x06\x00")
    assert "`iconv -f UTF-16LE -t UTF-8" in refused(verb, model, "a.txt", "the cat\na dog\n".encode("utf-16-le"))
    assert "`iconv -f CP1252 -t UTF-8" in refused(verb, model, "a.csv", "text\nschön\n".encode("cp1252"))


def test_a_text_file_of_words_and_tags_is_noticed(tuned: dict[str, Path], ask: Callable[..., Any]) -> None:
    for content in (CONLL, "The\tDT\nend\tNN\n.\t.\n\nIt\tPRP\nis\tVBZ\n"):
        answers, err = ask("tag", tuned["tag"], "a.txt", content)
        assert [len(answer["words"]) for answer in answers] == [
            content.index("\n\n") and content.split("\n\n")[0].count("\n") + 1,
            2,
        ]
        assert "read as words and tags in columns (CoNLL)" in err
    for content in ("the cat\na dog\n\nthe dog\n", "THE CAT\nA DOG\n\nTHE DOG\n", "I sing\nyou HEAR\n", "a O\nb O\n"):
        answers, err = ask("tag", tuned["tag"], "a.txt", content)
        assert len(answers) == len(content.splitlines())
        assert err == ""


def test_an_object_without_the_field_is_not_answered_from_another(
    tuned: dict[str, Path], ask: Callable[..., Any], refused: Callable[..., str]
) -> None:
    message = refused("classify", tuned["title"], "a.jsonl", '{"title": "a", "text": "b"}\n{"text": "BODY 2"}\n')
    assert 'a.jsonl:2: has no field "title" with a text' in message
    answers, err = ask("classify", tuned["title"], "a.jsonl", '{"text": "the cat"}\n{"text": "a dog"}\n')
    assert [answer["text"] for answer in answers] == ["the cat", "a dog"]
    assert "a.jsonl:1: there is no title, which the model was trained on; text is read instead" in err
    for name in ("title", "tag"):
        rows = '{"title": "a", "words": ["a"]}\n'
        message = refused("classify" if name == "title" else "tag", tuned[name], "a.jsonl", rows, "--text-column", "x")
        assert 'a.jsonl:1: there is no field "x" for --text-column; it has title, words' in message
    answers, err = ask("classify", tuned["pair"], "a.jsonl", '\n{"premise": "a cat", "hypothesis": "a dog"}\n')
    assert ([answer["text"] for answer in answers], err) == (["", "a cat"], "")


OBJECTS = '{"review": "good"}\n\n{"review": "bad"}\n'


@pytest.mark.parametrize("content", [OBJECTS, OBJECTS + "{half\n", '[{"text": "a"}, {"text": "b"}]\n', '\n{"a": 1}'])
@pytest.mark.parametrize("verb", ["embed", "detect", "classify", "tag"])
def test_json_lines_are_not_answered_as_texts(
    tiny_run: Runs,
    tuned: dict[str, Path],
    refused: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    content: str,
) -> None:
    if content.endswith("{half\n"):
        content = OBJECTS * 2 + content
    model = {"classify": tuned["title"], "tag": tuned["tag"]}.get(verb, tiny_run())
    assert "a.txt: holds JSON objects, not texts; rename it to .jsonl" in refused(verb, model, "a.txt", content)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    message = refuse(["predict", verb, "--model", str(model)], capsys)
    assert "standard input: holds JSON objects, not texts; give it as a .jsonl file by --input" in message


def test_a_text_with_braces_is_a_text(tuned: dict[str, Path], ask: Callable[..., Any]) -> None:
    for content in ("{the cat} sees\na dog\n", "{}\n[]\n[1]\n", '{"a": 1}\nthe cat\n', "[the]\n", "3\ntrue\nnull\n"):
        answers, err = ask("classify", tuned["title"], "a.txt", content)
        assert [answer["text"] for answer in answers] == content.splitlines()
        assert [line for line in err.splitlines() if "[UNK]" not in line] == []


def test_a_line_of_more_than_two_fields_is_no_pair(
    tuned: dict[str, Path], ask: Callable[..., Any], refused: Callable[..., str]
) -> None:
    message = refused("classify", tuned["pair"], "a.txt", "a cat\ta dog\n17\ta cat\ta dog\n")
    assert "a.txt:2: 3 fields, but the model reads pairs; write one tab, between the two texts" in message
    answers, _ = ask("classify", tuned["pair"], "a.txt", "a cat\ta dog\t\n")
    assert [(answer["text"], answer["pair"]) for answer in answers] == [("a cat", "a dog")]
    answers, _ = ask("classify", tuned["title"], "a.txt", "1\tthe cat\ta dog\n")
    assert len(answers) == 1


def test_an_identifier_is_no_question(
    tuned: dict[str, Path], ask: Callable[..., Any], refused: Callable[..., str]
) -> None:
    for identifier in ("17", "56be4db0acb8000014e0a8ac"):
        message = refused("answer", tuned["answer"], "a.txt", f"who?\tthe cat\n{identifier}\twho sees?\tthe cat\n")
        assert f"a.txt:2: '{identifier}' stands before the first tab, where the question is read" in message
    answers, _ = ask("answer", tuned["answer"], "a.txt", "who sees?\tthe cat\tsees\ta dog\n17\tthe cat\n")
    assert len(answers) == 2


@pytest.mark.parametrize("verb", ["embed", "detect", "fill", "classify"])
def test_blank_lines_and_empty_cells_have_their_answer(
    tiny_run: Runs, tuned: dict[str, Path], ask: Callable[..., Any], verb: str
) -> None:
    model = tuned["title"] if verb == "classify" else tiny_run()
    good, bad = ("good [MASK]", "bad [MASK]") if verb == "fill" else ("good", "bad")
    # As Excel writes one column with two empty cells.
    for name, head in (("a.csv", "title\r\n"), ("a.tsv", "title\r\n"), ("a.txt", "")):
        answers, _ = ask(verb, model, name, f"{head}{good}\r\n\r\n \r\n{bad}\r\n\r\n")
        assert [answer["text"] for answer in answers] == [good, "", "", bad, ""]
        assert [answer for answer in answers if not answer["text"]] == [{"text": ""}] * 3
    answers, _ = ask(verb, model, "a.txt", "\n\n")
    assert answers == [{"text": ""}] * 2
    answers, _ = ask(verb, model, "b.csv", f"title,n\n{good},1\n\n{bad},2\n")
    assert [answer["text"] for answer in answers] == [good, bad]


def test_files_may_have_another_separator_than_the_training_data(
    tuned: dict[str, Path], ask: Callable[..., Any], refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ['the "cat"; it', "a dog, two"]
    for name, content in (
        ("a.csv", 'title,text\n"the ""cat""; it",x\n"a dog, two",y\n'),
        ("a.tsv", 'title\ttext\nthe "cat"; it\tx\na dog, two\ty\n'),
        ("b.tsv", 'title\nthe "cat"; it\na dog, two\n'),
        ("b.csv", 'title;text\n"the ""cat""; it";x\na dog, two;y\n'),
        ("c.csv", 'title\n"the ""cat""; it"\na dog, two\n'),
        ("d.csv", 'sep=,\ntitle,text\n"the ""cat""; it",x\n"a dog, two",y\n'),
    ):
        answers, err = ask("classify", tuned["semicolon"], name, content)
        assert [answer["text"] for answer in answers] == texts, name
        assert err == ""
    assert "give --separator" in refused("classify", tuned["semicolon"], "a.csv", "title|text\na|b\n")


def test_evaluation_data_may_have_another_separator(
    tuned: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path / "a.csv", 'title,label\n"the cat, it",yes\na dog,no\n')
    code, _, err = command(capsys, "evaluate", "classification", "--model", tuned["semicolon"], "--data", data)
    assert code == 0, err


def test_messages_say_what_a_field_holds(
    tiny_run: Runs, tuned: dict[str, Path], ask: Callable[..., Any], refused: Callable[..., str]
) -> None:
    for value, shown in ((None, "null"), ("Ada lives", '"Ada lives"'), (7, "7")):
        message = refused("tag", tuned["tag"], "a.jsonl", json.dumps({"words": value}))
        assert f'a.jsonl:1: "words" holds {shown}, no list of words; write a list into "words"' in message
    message = refused("tag", tuned["tag"], "a.jsonl", '{"text": 3}')
    assert '"text" holds 3, no text' in message
    message = refused("tag", tuned["tag"], "a.jsonl", '{"tokens": ["a"]}')
    assert "it has tokens; name a list with --text-column" in message
    answers, _ = ask("tag", tuned["tag"], "a.jsonl", '{"tokens": ["a"]}', "--text-column", "tokens")
    assert answers[0]["words"] == ["a"]
    message = refused("classify", tuned["title"], "a.jsonl", '{"title": 5}')
    assert 'a.jsonl:1: "title" holds 5, not a text; fix or remove this line' in message
    message = refused("classify", tuned["pair"], "a.jsonl", '{"premise": "a", "hypothesis": ["b"]}')
    assert 'a.jsonl:1: "hypothesis" holds ["b"], not a text' in message
    assert '"text" holds 5, not a text' in refused("embed", tiny_run(), "a.jsonl", '{"text": 5}')


@pytest.mark.parametrize("verb", ["embed", "classify"])
def test_messages_say_what_a_file_is(
    tiny_run: Runs,
    tuned: dict[str, Path],
    refused: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    model = tuned["title"] if verb == "classify" else tiny_run()
    rows = [{"title": "a", "text": "a"}, {"title": "b", "text": "b"}]
    for content in (json.dumps(rows), json.dumps(rows, indent=1), "[]"):
        message = refused(verb, model, "a.jsonl", content)
        assert "a.jsonl:1: not a JSON object, but the beginning of a JSON array; write one object per line" in message
    message = refused(verb, model, "a.jsonl", json.dumps(rows[0], indent=1))
    assert "a.jsonl:1: not a JSON object, but the beginning of JSON that goes over several lines" in message
    old = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 1000
    for name in ("a.csv", "a.txt"):
        assert f"{name}: is compressed; add .gz to its name" in refused(verb, model, name, gzip.compress(b"text\na\n"))
        assert f"{name}: is an old spreadsheet or document (.xls, .doc)" in refused(verb, model, name, old)
    (tmp_path / "folder").mkdir()
    message = refuse(["predict", verb, "--model", str(model), "--input", str(tmp_path / "folder")], capsys)
    assert "folder: is a folder; give a file" in message


def test_lines_that_end_as_on_old_macs(tuned: dict[str, Path], ask: Callable[..., Any]) -> None:
    answers, _ = ask("classify", tuned["title"], "a.txt", "the cat\ra dog\r\rthe dog\r")
    assert [answer["text"] for answer in answers] == ["the cat", "a dog", "", "the dog"]
    answers, _ = ask("classify", tuned["title"], "a.txt", "the\rcat\na dog")
    assert len(answers) == 2


def test_columns_named_otherwise_than_in_training(
    tuned: dict[str, Path], tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = written(tmp_path / "train.csv", "text,label\nthe cat,yes\na dog,no\n")
    other = written(tmp_path / "other.csv", "sentence,label\nthe cat,yes\na dog,no\n")
    output = ["--output", str(tmp_path / "out")]
    arguments = ["--model", str(tiny_run()), "--train", str(train), "--validation", str(other), *output]
    message = refuse(["finetune", "classification", *arguments], capsys)
    assert 'other.csv: no column "text", which training reads as the text; the columns are sentence, label' in message
    assert "rename the column as in the training data" in message
    assert "--" not in message
    data = ["--model", str(tuned["title"]), "--data", str(other)]
    message = refuse(["evaluate", "classification", *data], capsys)
    assert 'no column "title", which training reads as the text' in message
    assert "rename the column, or name it with --text-column" in message
    assert "for --text-column" in refuse(["evaluate", "classification", *data, "--text-column", "x"], capsys)
    code, _, err = command(capsys, "evaluate", "classification", *data, "--text-column", "sentence")
    assert code == 0, err


def test_a_list_of_questions_is_not_squad(tuned: dict[str, Path], refused: Callable[..., str]) -> None:
    message = refused("answer", tuned["answer"], "a.json", json.dumps([QUESTION]))
    assert "not in SQuAD's form (it begins with a list)" in message
    message = refused("answer", tuned["answer"], "a.json", json.dumps({"data": [["a"]]}))
    assert "not in SQuAD's form (a part of it is no list or object" in message


def test_the_name_of_a_file_among_the_texts_is_noticed(
    tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = written(tmp_path / "two words.txt", "the cat\n"), tiny_run()
    capsys.readouterr()
    code, answers, stderr = command(capsys, "predict", "detect", path, "a dog. see", "--model", model)
    assert (code, [answer["text"] for answer in answers]) == (0, [str(path), "a dog. see"])
    assert stderr == f"{path}: read as a text; to read the file of this name, give --input '{path}'\n"
