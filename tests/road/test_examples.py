"""What is broken in labelled data is told with its line, left out if asked, and what is sound is cleaned."""

import gzip
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from electrain.data.labelled.checks import (
    TagForm,
    in_scheme,
    require_known_labels,
    require_several_labels,
    require_whole_chunks,
    scheme_of_examples,
    tag_form_of_further,
)
from electrain.data.labelled.columns import Columns
from electrain.data.labelled.examples import PairedExample, QuestionExample, TaggedExample, TextExample
from electrain.data.labelled.reading import read_examples
from electrain.data.text.cleaning import clean_text
from electrain.foundation.errors import DataError
from labelled_files import jsonl, read, written

CONTEXT = "Ada 住在 London.\nShe  writes."
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

BROKEN: dict[str, tuple[str, str, bytes | str, str]] = {
    "ragged tsv": ("classification", "a.tsv", "text\tlabel\na\tx\n\nb\n", r"a.tsv:4: 1 field, but the header has 2"),
    "ragged csv after a long row": ("classification", "a.csv", 'text,label\n"a\nb",x\nc,x,y\n', r"a.csv:4: 3 fields"),
    "open quote": ("classification", "a.csv", 'text,label\na,x\n"b,x\n', r"a.csv:\d: .*fix this row"),
    "header twice": (
        "classification",
        "a.tsv",
        "text\tlabel\ttext\na\tx\tb\n",
        r'a.tsv:1: the column "text" is there twice',
    ),
    "no header": ("classification", "a.tsv", "fine film\t1\nbad\t0\n", r"columns are fine film, 1 \(the first line"),
    "empty file": ("classification", "a.tsv", "", "is empty"),
    "header alone": ("classification", "a.tsv", "text\tlabel\n", "no example in it"),
    "not utf-8": (
        "classification",
        "a.tsv",
        b"text\tlabel\nfine\tx\ncaf\xe9\tx\n",
        r"a.tsv:3: bytes that are not UTF-8",
    ),
    "not utf-8 json": ("classification", "a.jsonl", b'{"text": "caf\xe9"}\n', r"a.jsonl:1: bytes that are not UTF-8"),
    "broken json": ("classification", "a.jsonl", '{"text": "a", "label": 1}\n{"text"\n', r"a.jsonl:2: not valid JSON"),
    "not an object": ("classification", "a.jsonl", "[1]\n", r"a.jsonl:1: not a JSON object"),
    "unknown format": ("classification", "a.conll", "a O\n", "unknown format; convert it to one of .tsv"),
    "unknown format of tags": ("tagging", "a.csv", "a,O\n", "unknown format; convert it to one of .conll"),
    "no label": ("classification", "a.tsv", "text\tlabel\na\tx\nb\t \n", r'a.tsv:3: no label in "label"'),
    "null label": ("classification", "a.jsonl", '{"text": "a", "label": NaN}', r'a.jsonl:1: no label in "label"'),
    "no text": ("classification", "a.tsv", "text\tlabel\n\tx\n", r'a.tsv:2: no text in "text"'),
    "text is a number": (
        "classification",
        "a.jsonl",
        '{"text": 5, "label": 1}',
        r'a.jsonl:1: "text" holds int, not text',
    ),
    "no second text": (
        "classification",
        "a.jsonl",
        '{"text1": "a", "text2": "b", "label": 1}\n{"text1": "a", "label": 1}',
        r'a.jsonl:2: no text in "text2"; .*--data.pair-column',
    ),
    "no number": (
        "regression",
        "a.tsv",
        "text\tscore\na\t1.5\nb\tgood\n",
        r'a.tsv:3: "score" holds "good", not a number',
    ),
    "infinite": ("regression", "a.tsv", "text\tscore\na\tinf\n", r'a.tsv:2: "score" holds "inf", not a number'),
    "true is no number": ("regression", "a.jsonl", '{"text": "a", "score": true}', r"a.jsonl:1: .* not a number"),
    "missing number": ("regression", "a.tsv", "text\tscore\na\t\n", r'a.tsv:2: "score" holds nothing'),
    "one column": ("tagging", "a.conll", "a O\nb\n", r"a.conll:2: 1 column, but the file's first row has 2"),
    "more columns": ("tagging", "a.conll.gz", gzip.compress(b"a O\n\nb O\nc N O\n"), r"a.conll.gz:4: 3 columns"),
    "no word": ("tagging", "a.conll", "a O\n O\n", r"a.conll:2: begins with white space"),
    "blank word": ("tagging", "a.conll", "a\tO\n \tO\n", r"a.conll:2: an empty word"),
    "no tags": ("tagging", "a.conll", "a\nb\n", r"cannot guess which column holds the tags"),
    "not utf-8 word": ("tagging", "a.conll", b"a O\ncaf\xe9 O\n", r"a.conll:2: bytes that are not UTF-8"),
    "fewer tags": ("tagging", "a.jsonl", '{"words": ["a", "b"], "tags": ["O"]}', r"a.jsonl:1: 2 words, but 1 tag"),
    "empty tag": (
        "tagging",
        "a.jsonl",
        '{"words": ["a", "b"], "tags": ["O", ""]}',
        r'a.jsonl:1: word 2 \("b"\): an empty tag',
    ),
    "words as text": ("tagging", "a.jsonl", '{"words": "a b", "tags": ["O"]}', r'a.jsonl:1: no list in "words"'),
    "empty target": (
        "translation",
        "a.jsonl",
        '{"en": "a", "de": "b"}\n{"en": "a", "de": " "}',
        r'a.jsonl:2: no text in "de"',
    ),
    "empty source": ("summarization", "a.jsonl", '{"text": "", "summary": "b"}', r'a.jsonl:1: no text in "text"'),
    "references": (
        "summarization",
        "a.jsonl",
        '{"text": "a", "summary": "b", "references": [1]}',
        r'a.jsonl:1: "references" must hold',
    ),
    "broken squad": ("question-answering", "a.json", '{"data":\n [}', r"a.json:2: not valid JSON"),
    "not squad": (
        "question-answering",
        "a.json",
        '{"data": [{"context": "a"}]}',
        r"a.json: not in SQuAD's form \(there is no 'paragraphs'\)",
    ),
    "squad not utf-8": (
        "question-answering",
        "a.json",
        b'{"data":\n "caf\xe9 and more"}',
        r"a.json:2: bytes that are not UTF-8",
    ),
    "no parquet": ("classification", "a.parquet", b"PAR1 nothing PAR1", "truncated or damaged"),
    "no gzip": ("tagging", "a.conll.gz", b"a O", "truncated or damaged"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_told_with_its_line(tmp_path: Path, case: str) -> None:
    task, name, content, message = BROKEN[case]
    with pytest.raises(DataError, match=message) as caught:
        read(written(tmp_path / name, content), task)
    assert "\n" not in str(caught.value)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for source, message in (("no.tsv", "no such file"), ("folder", "no .tsv .csv .* file in this folder")):
        with pytest.raises(DataError, match=message):
            read(tmp_path / source)


def test_labels_become_text_and_lists_several(tmp_path: Path) -> None:
    labels = [1, 1.0, 0.5, True, " very \t good ", ["b", 2, "b"], -1]
    path = written(tmp_path / "a.jsonl", jsonl([{"text": "t", "label": label} for label in labels]))
    expected = [("1",), ("1",), ("0.5",), ("true",), ("very good",), ("b", "2"), ("-1",)]
    assert [example.labels for example in read(path)] == expected


def test_text_is_cleaned_but_not_words_and_contexts(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.jsonl", jsonl([{"text": " a\u200b \n b\t", "summary": "c\x00 d", "references": ["e  f", " "]}])
    )
    assert read(path, "summarization") == [PairedExample("a b", "c d", ("e f",), f"{path}:1")]
    path = written(tmp_path / "b.jsonl", jsonl([{"words": [" a\u200bb ", "c d"], "tags": ["O", "O"]}]))
    assert read(path, "tagging")[0].words == ("a\u200bb", "c d")
    row = {
        "question": " who\n?",
        "context": "  a\u200b\nb \ud83d c",
        "answers": [{"text": "\ud83d c", "answer_start": 7}],
    }
    path = written(tmp_path / "c.jsonl", json.dumps(row))
    assert read(path, "question-answering") == [
        QuestionExample(f"{path}:1", "who ?", "  a\u200b\nb \ufffd c", (("\ufffd c", 7),), f"{path}:1")
    ]


def test_prediction_does_not_look_at_targets(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", "text\tlabel\na\t\n")
    assert read(path, columns=Columns(label="gone"), with_targets=False) == [TextExample("a", source=f"{path}:2")]
    path = written(tmp_path / "b.jsonl", jsonl([{"text": "a"}]))
    assert read(path, "summarization", with_targets=False) == [PairedExample("a", source=f"{path}:1")]
    assert read(path, "regression", with_targets=False) == [TextExample("a", source=f"{path}:1")]


def squad(*answers: Any, **more: Any) -> str:
    qas = [{"id": f"q{number}", "question": "?", "answers": answer} for number, answer in enumerate(answers)]
    return json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": [qa | more for qa in qas]}]}]})


@pytest.mark.parametrize(
    ("text", "start", "message"),
    [
        (
            "London",
            8,
            r'"London" should begin at character 8, where "ondon\." stands; it begins at 7: correct its place',
        ),
        ("Paris", 7, r'"Paris" .* where "Londo" stands; the context does not hold it'),
        ("n", 8, r"it begins at 9"),
        ("n", 11, r"it begins at 12"),
        ("London", 99, r"where nothing stands; it begins at 7"),
        ("Ada", -28, r"where nothing stands; it begins at 0"),
        (" ", 3, r"the context does not hold it"),
        ("London.\nShe", 8, r'"London. She" should begin'),
    ],
)
def test_an_answer_must_stand_where_it_says(tmp_path: Path, text: str, start: int, message: str) -> None:
    path = written(tmp_path / "a.json", squad([{"text": text, "answer_start": start}]))
    with pytest.raises(
        DataError, match=f"a.json: question q0: an answer that is not in its context.*{message}"
    ) as caught:
        read(path, "question-answering")
    assert "\n" not in str(caught.value)


def test_questions_without_an_answer_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", squad([{"text": "Ada", "answer_start": 0}], []))
    assert [example.answers for example in read(path, "question-answering")] == [(("Ada", 0),), ()]
    plausible = written(tmp_path / "b.json", squad([{"text": "Ada", "answer_start": 0}], is_impossible=True))
    assert [example.answers for example in read(plausible, "question-answering")] == [()]
    row = {"question": "who?", "context": "Ada", "answers": {"text": ["Ada"], "answer_start": [0]}}
    rows = written(tmp_path / "c.jsonl", jsonl([row, row | {"is_impossible": True}, row | {"is_impossible": False}]))
    assert [len(example.answers) for example in read(rows, "question-answering")] == [1, 0, 1]


@pytest.mark.parametrize(
    ("said", "kept"), [(True, 0), (False, 1), ("true", 0), ("false", 1), ("False", 1), (1, 0), (0, 1), (None, 1)]
)
def test_the_word_false_is_not_true(tmp_path: Path, said: object, kept: int) -> None:
    path = written(tmp_path / "a.json", squad([{"text": "Ada", "answer_start": 0}], is_impossible=said))
    assert [len(example.answers) for example in read(path, "question-answering")] == [kept]


def test_what_says_that_there_is_no_answer(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", squad([{"text": "", "answer_start": -1}], [{"text": "Ada", "answer_start": 0}]))
    assert [example.answers for example in read(path, "question-answering")] == [(), (("Ada", 0),)]
    path = written(tmp_path / "b.json", squad([{"text": "", "answer_start": 0}]))
    with pytest.raises(DataError, match="an answer that is not in its context"):
        read(path, "question-answering")
    path = written(tmp_path / "c.json", squad([], is_impossible="perhaps"))
    with pytest.raises(DataError, match='question q0: "is_impossible" holds "perhaps"; it must be'):
        read(path, "question-answering")


def test_a_question_said_to_have_an_answer_must_have_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", squad([{"text": "Ada", "answer_start": 0}], [], is_impossible=False))
    with pytest.raises(DataError, match=r'a.json: question q1: no answer, though "is_impossible" is false'):
        read(path, "question-answering")
    assert len(read(path, "question-answering", skip_broken=True)) == 1


EMOJI = "Grüße 👩\u200d🚒🔥 aus Köln: Lena und 😀 Lena"


def placed_in(text: str, *answers: tuple[str, int]) -> str:
    qas = [
        {"id": f"q{number}", "question": "?", "answers": [{"text": answer, "answer_start": start}]}
        for number, (answer, start) in enumerate(answers)
    ]
    return json.dumps({"data": [{"paragraphs": [{"context": text, "qas": qas}]}]})


def counted(encoding: str, unit_bytes: int, place: int) -> int:
    return len(EMOJI[:place].encode(encoding)) // unit_bytes


@pytest.mark.parametrize(
    ("unit", "encoding", "unit_bytes"), [("UTF-16 units", "utf-16-le", 2), ("UTF-8 bytes", "utf-8", 1)]
)
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_places_in_another_unit_are_found_out_and_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], unit: str, encoding: str, unit_bytes: int, form: str
) -> None:
    right = [("Grüße", 0), ("Köln", EMOJI.index("Köln")), ("Lena", EMOJI.rindex("Lena"))]
    own = [(text, counted(encoding, unit_bytes, place)) for text, place in right]
    path = tmp_path / f"a.{form}"
    if form == "json":
        path.write_text(placed_in(EMOJI, *own))
    else:
        rows = [
            {"question": "?", "context": EMOJI, "answers": {"text": [text], "answer_start": [start]}}
            for text, start in own
        ]
        path.write_bytes(jsonl(rows))
    whole = written(tmp_path / "b.json", placed_in("Ada met Lena", ("Lena", 8)).replace('"q0"', '"other"'))
    both = read_examples("question-answering", [str(path), str(whole)], Columns()).examples
    assert [example.answers for example in both] == [*((one,) for one in right), (("Lena", 8),)]
    [line] = capsys.readouterr().err.splitlines()  # nothing of the second file, whose places are right
    assert line == f"{path}: the places of its answers count {unit}, not characters; 2 of 3 are converted"


def test_a_place_is_wrong_where_the_file_counts_no_unit_throughout(tmp_path: Path) -> None:
    cologne = EMOJI.index("Köln")
    in_bytes = counted("utf-8", 1, cologne)
    path = written(tmp_path / "a.json", placed_in(EMOJI, ("Lena", EMOJI.index("Lena")), ("Köln", in_bytes)))
    with pytest.raises(DataError, match=f"question q1: .* it begins at {cologne}: count characters, not UTF-8 bytes"):
        read(path, "question-answering")
    path = written(tmp_path / "b.json", placed_in(EMOJI, ("Lena", EMOJI.index("Lena")), ("Köln", cologne + 1)))
    with pytest.raises(DataError, match=f"question q1: .* it begins at {cologne}: correct its place"):
        read(path, "question-answering")


def test_right_places_are_never_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even where they fit another unit too."""
    text = "😀aXaXaX"  # "aX" begins at 1 and 3 in characters, at 2 and 4 in UTF-16 units
    path = written(tmp_path / "a.json", placed_in(text, ("aX", 3), ("X", 2)))
    assert [example.answers for example in read(path, "question-answering")] == [(("aX", 3),), (("X", 2),)]
    assert not capsys.readouterr().err


def test_an_answer_that_is_nowhere_says_nothing_of_the_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"question": "q", "context": "a b", "answers": {"text": [text], "answer_start": [start]}}
        for text, start in (("b", 2), ("c", 0))
    ]
    with pytest.raises(DataError, match=r'a.jsonl:3: an answer that is not in its context: "c"'):
        read(written(tmp_path / "a.jsonl", jsonl(rows)), "question-answering")
    assert capsys.readouterr().err == ""


def test_two_questions_with_one_id(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", squad([{"text": "Ada", "answer_start": 0}]))
    with pytest.raises(DataError, match=r'two questions with the id "q0"; the other is .*question q0'):
        read_examples("question-answering", [str(path), str(path)], Columns())
    both = read_examples("question-answering", [str(path), str(path)], Columns(), skip_broken=True)
    assert len(both.examples) == 1


SKIPPED: dict[str, tuple[str, str, str, int, int]] = {
    "rows": ("classification", "a.tsv", "text\tlabel\na\tx\nb\nc\t\nd\tx\n", 2, 2),
    "lines": ("classification", "a.jsonl", '{"text": "a", "label": 1}\n{"text"\n[]\n', 1, 2),
    "sentences": ("tagging", "a.conll", "a O\n\nb O\nc\nd\n\ne O\n", 2, 1),
    "answers": (
        "question-answering",
        "a.json",
        squad(
            [{"text": "Ada", "answer_start": 0}, {"text": "b", "answer_start": 0}], [{"text": "b", "answer_start": 0}]
        ),
        1,
        1,
    ),
}


@pytest.mark.parametrize("case", SKIPPED)
def test_broken_examples_are_left_out_and_counted_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    task, name, content, kept, broken = SKIPPED[case]
    path = written(tmp_path / name, content)
    assert len(read(path, task, skip_broken=True)) == kept
    assert re.search(rf"left out as broken: {broken} \(the first: .*{name}:", capsys.readouterr().err)


def tagged(*sentences: str, file: str = "a.conll") -> list[TaggedExample]:
    """Sentences of tags, each word called w, from line 10 on."""
    return [TaggedExample(("w",) * len(tags.split()), tuple(tags.split()), f"{file}:10") for tags in sentences]


@pytest.mark.parametrize(
    "tags",
    [
        "O B-X I-X O B-X B-X I-X",
        "B-X I-X E-X S-Y O B-Y E-Y",  # BIOES
        "B-X M-X E-X S-Y",  # BMES
        "B-X I-X L-X U-Y",  # BILOU
        "I-X N V",  # not chunks
        "O O",
    ],
)
def test_whole_chunks_pass(tags: str) -> None:
    assert require_whole_chunks(tagged(tags), scheme_of_examples(tagged(tags))) == tagged(tags)


@pytest.mark.parametrize(
    ("tags", "line", "hint"),
    [
        ("B-X I-X O I-X", 13, "it must follow B-X or I-X, not O"),
        ("B-X B-Y I-X", 12, "it must follow B-X or I-X, not B-Y"),
        ("E-X B-X E-X", 10, "the other tags are BIO; fix it"),
        ("B-X I-X Tag", 12, "the other tags are BIO; fix it"),
        ("B-X B-Y S-X I-X", 12, "the other tags are BIO; fix it"),
    ],
)
def test_a_chunk_that_never_began(tags: str, line: int, hint: str) -> None:
    sound = tagged("B-X B-Y O B-X")
    require_valid_bio = partial(require_whole_chunks, name=scheme_of_examples([*sound, *tagged(tags)]))
    with pytest.raises(DataError, match=rf"^a\.conll:{line}: broken tag .*{hint}$"):
        require_valid_bio([*sound, *tagged(tags)])
    with pytest.raises(DataError, match=rf'^a\.jsonl:10: word {line - 9} \("w"\): broken tag'):
        require_valid_bio([*sound, *tagged(tags, file="a.jsonl")])
    assert require_valid_bio([*sound, *tagged(tags)], skip_broken=True) == sound


def test_the_older_scheme_becomes_bio(capsys: pytest.CaptureFixture[str]) -> None:
    further = tagged("I-X I-X B-X I-X O I-Y I-X", "O I-X")
    assert scheme_of_examples(further) == "iob1"
    form = tag_form_of_further(further, TagForm("bio", "bio"))
    found = in_scheme(require_whole_chunks(further, form.files), form)
    assert found == tagged("B-X I-X B-X I-X O B-Y B-X", "O B-X")
    assert capsys.readouterr().err == "a.conll: the tags are IOB1 and are read as BIO\n"
    assert scheme_of_examples(found) == "bio"


def test_labels_must_vary_and_be_known() -> None:
    train = [TextExample("a", labels=("positive", "long"), source="t.tsv:2"), TextExample("b", labels=("negative",))]
    require_several_labels(train)
    require_several_labels(tagged("N V"))
    with pytest.raises(DataError, match=r"only one label \('negative'\)"):
        require_several_labels(train[1:])
    with pytest.raises(DataError, match=r"only one label \('O'\)"):
        require_several_labels(tagged("O O", "O"))
    labels = ["negative", "positive", "long"]
    require_known_labels(train, labels)
    odd = TextExample("c", labels=("long", "postive"), source="v.tsv:9")
    message = r'^v.tsv:9: label "postive" of the test data does not occur in the training data; .* is "positive"$'
    with pytest.raises(DataError, match=message):
        require_known_labels([*train, odd], labels, "test")
    with pytest.raises(DataError, match=r'^a.conll:11: label "Z" of the validation data'):
        require_known_labels(tagged("N Z"), ["N", "V"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(context=TEXTS.filter(clean_text), data=st.data())
def test_any_answer_cut_from_its_context_is_accepted(tmp_path: Path, context: str, data: st.DataObject) -> None:
    places = [(a, b) for a in range(len(context)) for b in range(a + 1, len(context) + 1) if context[a:b].strip()]
    start, end = data.draw(st.sampled_from(places))
    answer = {"text": [context[start:end]], "answer_start": [start]}
    path = written(tmp_path / "a.jsonl", json.dumps({"question": "?", "context": context, "answers": answer}))
    assert read(path, "question-answering")[0].answers == ((context[start:end], start),)


@settings(max_examples=100)
@given(st.lists(st.lists(st.sampled_from(["O", "I-X", "B-X", "I-Y", "B-Y"]), min_size=1, max_size=8), min_size=1))
def test_what_passes_is_valid_bio(sentences: list[list[str]]) -> None:
    """Whatever comes back - passed, converted or left over - never goes on with what was not begun."""
    examples = tagged(*map(" ".join, sentences))
    found = scheme_of_examples(examples)
    for example in in_scheme(require_whole_chunks(examples, found, skip_broken=True), TagForm(found, "bio")):
        for before, tag in zip(("O", *example.tags), example.tags, strict=False):
            assert not tag.startswith("I") or before[1:] == tag[1:]
